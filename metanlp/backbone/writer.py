"""A model of transformers that writes, token by token: what its kinds share. It is frozen but for adapters with a task
axis, or learns with all weights.

Letters: n pairs of a source and a target, N tokens of targets, W words of the vocabulary, T tasks.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy, deepcopy
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.func import functional_call
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.pytorch_utils import Conv1D

from metanlp.backbone import lora
from metanlp.backbone.all_weights import PREFIX, save_whole, whole
from metanlp.backbone.grids import SOURCE, TARGET, Grids
from metanlp.backbone.languages import Languages, codes_of, missing, prompted, tag_of
from metanlp.backbone.lora import Lora
from metanlp.backbone.options import Writing
from metanlp.backbone.pretrained import Base, base_of, to_be_had
from metanlp.backbone.tokens import notice
from metanlp.backbone.trunk import Trees, align, twin
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.settings import to_json
from metanlp.core.torch_modes import own_modes
from metanlp.core.types import Batch, MaskedPass, Tokens, Weights

AT_ONCE = 32  # pairs that go through the model together, and sources that are answered together


class Writer(ABC):
    """A backbone whose features of a target's token are its scores by the model's own head, given the source and the
    tokens before it: one view of W numbers. With `adapt` θ is adapters, without it all weights, `base/…`. Its batches
    hold pairs: text 2i is a source, text 2i + 1 what the model reads of its target, whose tokens are the units."""

    view_names: tuple[str, ...] = ("adapted.vocabulary",)
    opens: ClassVar[Literal["AutoModelForSeq2SeqLM", "AutoModelForCausalLM"]]  # what transformers opens it with
    use: ClassVar[str]  # peft's word for it
    joined: ClassVar[int] = 1  # texts that share the model's positions

    @own_modes()
    def __init__(
        self, model: nn.Module, tokenizer: Any, adapt: Lora | None, *, base: Base | str, max_length: int = 64,
        prompt: str = "",
    ) -> None:  # fmt: skip
        """`model` is one of transformers', of the caller's own, in fp32. Sources are read after the `prompt`; they and
        targets are cut at `max_length` tokens, or as many as it has places for. Raises InputError for other models."""
        self.base = Base(base) if isinstance(base, str) else base
        self.name, self.adapt, self.tokenizer = self.base.name, adapt, tokenizer
        self.prompt, self._cut = prompt, dict[str, bool]()
        self.languages: Languages = ()
        if codes := codes_of(tokenizer):
            self.tokenizer = deepcopy(tokenizer)  # it will be told its languages
        self._codes = codes
        # Sinusoids, which no file holds, are parameters that don't learn.
        self._learn = {name for name, value in model.named_parameters() if value.requires_grad}
        model = align(twin(model)).float().eval().requires_grad_(False)
        config, head = cast(Any, model).config, cast(Any, model).get_output_embeddings()
        self._check(config, head)
        places = getattr(config, "max_position_embeddings", None) or self.joined * max_length  # none: no limit
        self.max_length = min(max_length, places // self.joined)
        self.config, self.device = config, next(model.parameters()).device
        self.width = int(head.out_features)
        (self._head,) = (name for name, part in model.named_modules() if part is head)
        head.register_buffer("places", torch.zeros(0, dtype=torch.long), persistent=False)
        head.register_forward_pre_hook(_at_places)
        if adapt:
            layers, transposed = adapted_layers(model, adapt)
            names = "|".join(map(re.escape, layers))
            self._asked = lora.config_of(
                adapt, names, self.name, self.base.revision, transposed=transposed, use=self.use
            )
            model = lora.add_adapters(model, self._asked)
        self._model, self._trees = model, Trees(model)
        self._layers = lora.task_layers(model)

    @classmethod
    @own_modes()
    def load(
        cls, name: str, adapt: Lora | None, *, max_length: int = 64, prompt: str = "",
        device: torch.device | str = "cpu",
    ) -> Self:  # fmt: skip
        """A checkpoint: a folder, or an id on the Hub. Raises InputError where it can't be loaded, or a weight of it is
        in no file."""
        base = base_of(name)
        with to_be_had(name):
            model, missing = base.model(getattr(transformers, cls.opens), dtype=torch.float32)
            tokenizer = base.tokenizer(places=False)
        if missing:
            raise InputError(f"model {name!r}: {len(missing)} of its weights are in no file, such as {missing[0]}")
        return cls(model.to(device), tokenizer, adapt, base=base, max_length=max_length, prompt=prompt)

    @classmethod
    def open(cls, name: str, options: Writing, device: torch.device | str = "cpu") -> Self:
        """`load`, with the options as one object."""
        net = cls.load(name, options.adapt, max_length=options.max_length, prompt=options.prompt, device=device)
        return net.between(options.languages) if options.languages else net

    @property
    def options(self) -> Writing:
        """As a learner's files have them."""
        return Writing(self.opens, self.adapt or Lora(), self.prompt, self.languages, self.max_length)

    def between(self, languages: Languages) -> Self:
        """The same model from one language to another, by its own tags for them where it has some. Raises InputError
        where it has none for these, and where it has to know them and there are none."""
        prompted(self.prompt, languages, ())
        made = copy(self)
        made.languages = tuple(tag_of(each, self._codes) for each in languages) if self._codes else languages
        made._speak()
        return made

    def init(self, generator: torch.Generator) -> Weights:
        """Fresh adapters, with which the model computes what it did before; without any, its weights."""
        if self.adapt:
            return weights.to(lora.init(self._model, generator), self.device)
        return {key: value for key, value in whole(self._model).items() if key.removeprefix(PREFIX) in self._learn}

    def identity(self) -> dict[str, Any]:
        """All that decides what it computes, but its adapters or weights."""
        return {"base": {"name": self.name, "sha256": self.base.sha256}, "max_length": self.max_length,
                "adapt": self.adapt and to_json(self.adapt)}  # fmt: skip

    @abstractmethod
    def encode(self, sources: Sequence[str], targets: Sequence[str]) -> tuple[Tokens, np.ndarray]:
        """The 2n texts of n pairs, words of which are the tokens of targets, and what these have to tell: (N,)."""

    def notice(self) -> str:
        """One line about texts so far that were cut; "" if none were."""
        return notice({"texts": len(self._cut), "cut": sum(self._cut.values())}, self.max_length)

    def adapter_config(self) -> bytes:
        """`adapter_config.json`, as plain peft writes it."""
        return lora.config_bytes(self._asked)

    def with_trunk(self, batch: Batch) -> Batch:
        """The batch on this device: nothing is computed beforehand."""
        return batch.to(self.device)

    def features(self, w: Weights, batch: Batch) -> Tensor:
        """Scores of the words at each token of the targets: (N, 1, W), fp32. Pairs that are about equally long go
        through the model together."""
        batch = batch.to(self.device)
        pairs = batch.lengths.view(-1, 2).sum(1).argsort(stable=True).split(AT_ONCE)
        grids = [Grids(batch, self.padding, some.sort().values) for some in pairs]
        scores = [self._scores(w, each) for each in grids]
        if len(grids) == 1:
            return scores[0][:, None]
        return torch.cat(scores).index_select(0, torch.cat([each.units for each in grids]).argsort())[:, None]

    def loss(self, theta: Weights, given: MaskedPass) -> Tensor:
        """Mean negative log-likelihood of the targets' tokens, in nats: ()."""
        return nn.functional.cross_entropy(self.features(theta, given.batch)[:, 0], given.targets.to(self.device))

    @own_modes()
    def generate(self, phi: Weights, sources: Sequence[str], beams: int = 1) -> list[str]:
        """The target of each source by transformers' beam search, greedy with one beam, under the adapters and the bias
        a word of the one task of φ."""
        order = sorted(range(len(sources)), key=lambda number: len(sources[number]))
        found = [""] * len(sources)
        for at in range(0, len(order), AT_ONCE):
            some = order[at : at + AT_ONCE]
            for number, text in zip(some, self._decoded(phi, [sources[number] for number in some], beams), strict=True):
                found[number] = text
        return found

    def work(self, batch: Batch, passes: int) -> int:
        """Tokens of both sides, `passes` times forward or backward."""
        return passes * batch.count_tokens

    def save(self, theta: Weights, folder: Path) -> None:
        """A folder that transformers opens, from all weights."""
        save_whole(type(self._model), self.config, theta, self.tokenizer, folder)

    # inside

    @property
    @abstractmethod
    def padding(self) -> int:
        """The token that fills grids."""

    @abstractmethod
    def _check(self, config: Any, head: Any) -> None:
        """Raises InputError for a model of another kind."""

    @abstractmethod
    def _inputs(self, grids: Grids) -> tuple[dict[str, Tensor], Tensor]:
        """What the model reads of these pairs, and 1 where a token of a target is told."""

    @abstractmethod
    def _ends(self, grids: Grids) -> dict[str, Tensor]:
        """Where the rows of tasks end, by the adapted layer that reads them."""

    def _scores(self, w: Weights, grids: Grids) -> Tensor:
        """Of those of the units that are in the grids."""
        inputs, told = self._inputs(grids)
        adapters = lora.arguments(w, (), torch.zeros(0)) | self._ends(grids) if self.adapt else {}
        given = (adapters or weights.pick_inside(w, PREFIX)) | {f"{self._head}.places": told.flatten().nonzero()[:, 0]}
        return functional_call(self._trees.mine()[0], given, args=(), kwargs=inputs | {"use_cache": False}).logits[0]

    @torch.no_grad()
    def _decoded(self, phi: Weights, sources: Sequence[str], beams: int) -> list[str]:
        read = self.tokenizer.pad({"input_ids": self._read(sources)}, return_tensors="pt").to(self.device)
        given = {f"model.{name}": value for name, value in lora.arguments(phi, (), torch.zeros(0)).items()}
        # Before beams are compared, scores are made log-probabilities again.
        words = LogitsProcessorList([Biased(phi["head/bias"][0])])
        asked = {"input_ids": read["input_ids"], "attention_mask": read["attention_mask"], "num_beams": beams,
                 "do_sample": False, "max_new_tokens": self.max_length, "logits_processor": words,
                 "renormalize_logits": True, "pad_token_id": self.padding, **self.begins()}  # fmt: skip
        ids = functional_call(Generating(self._trees.mine()[0]), given, args=(), kwargs=asked)
        written = self._written(ids, read["input_ids"].shape[1])
        return [text.strip() for text in self.tokenizer.batch_decode(written, skip_special_tokens=True)]

    def _read(self, sources: Sequence[str]) -> list[list[int]]:
        """Sources after the prompt, as token ids."""
        return self._ids("text", prompted(self.prompt, self.languages, sources))

    def _ids(self, side: str, texts: Sequence[str], **options: Any) -> list[list[int]]:
        """Of one side, `text` or `text_target` as tokenizers call them, in its language; cut."""
        self._speak()
        found = self.tokenizer(**{side: list(texts)}, truncation=True, max_length=self.max_length, **options)[
            "input_ids"
        ]
        for text, ids in zip(texts, found, strict=True):
            full = len(ids) == self.max_length and len(self.tokenizer(**{side: text}, **options)["input_ids"]) > len(
                ids
            )
            self._cut[text] = self._cut.get(text, False) or full
        return found

    def _speak(self) -> None:
        """Tells a tokenizer that has tokens for languages which these are. Raises InputError where nobody said."""
        if self._codes and not self.languages:
            raise missing(f"{self.name} marks each text with its language")
        if self._codes:
            self.tokenizer.src_lang, self.tokenizer.tgt_lang = self.languages

    def begins(self) -> dict[str, int]:
        """How `generate` begins a target, where it is to be told."""
        return {}

    def _written(self, ids: Tensor, read: int) -> Tensor:
        """Of what `generate` returns for so many tokens read, the target."""
        return ids


class Generating(nn.Module):
    """A model whose call is `generate`, so that `functional_call` lends its weights to that."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **asked: Any) -> Tensor:
        return cast(Any, self.model).generate(**asked)


class Biased(LogitsProcessor):
    """Adds a number a word (W,) to its scores."""

    def __init__(self, bias: Tensor) -> None:
        self.bias = bias

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        return scores + self.bias


def paired(read: Sequence[Sequence[int]], given: Sequence[Sequence[int]]) -> Tokens:
    """Sources, and what a model reads of their targets, as the 2n texts of n pairs; the units are tokens of targets."""
    rows = [ids for pair in zip(read, given, strict=True) for ids in pair]
    lengths = np.array([len(ids) for ids in rows])
    sides = np.repeat(np.tile([SOURCE, TARGET], len(read)), lengths)
    places = np.concatenate([np.arange(length) for length in lengths])
    return Tokens(np.concatenate(rows).astype(np.int64), np.zeros(len(sides), np.int64), sides,
                  np.cumsum([0, *lengths]), np.where(sides == TARGET, places, -1))  # fmt: skip


def adapted_layers(model: nn.Module, adapt: Lora) -> tuple[list[str], bool]:
    """The linear layers of a model's stacks that take an adapter, by full name; and whether they are GPT-2's, whose
    weights stand transposed."""
    lists = [name for name, part in model.named_modules() if isinstance(part, nn.ModuleList)]
    found = dict[str, nn.Module]()
    for stack in (name for name in lists if not any(name.startswith(f"{other}.") for other in lists)):
        layers = cast(nn.ModuleList, model.get_submodule(stack))
        for number in range(adapt.lowest(len(layers)), len(layers)):
            found |= {
                f"{stack}.{number}.{path}": part
                for path, part in layers[number].named_modules()
                if isinstance(part, nn.Linear | Conv1D) and takes(adapt, path)
            }
    return list(found), any(isinstance(part, Conv1D) for part in found.values())


def takes(adapt: Lora, path: str) -> bool:
    """Whether a linear layer at this path inside a layer takes an adapter. Of an attention block, what makes queries
    and values begins with q and v in nearly all of these models, and with c_a in GPT-2, which makes keys there too."""
    inside = "att" in path.lower()
    queries = inside and path.rpartition(".")[2].startswith(("q", "v", "c_a"))
    return {"all linear": True, "attention": inside, "query and value": queries}[adapt.targets]


def _at_places(head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The states of the tokens that are told, where they are named, so that the head runs on no other."""
    places = cast(Tensor, head.places)
    return (inputs[0].flatten(0, 1).index_select(0, places)[None],) if len(places) else inputs
