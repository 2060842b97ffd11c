"""An encoder and a decoder: a model of transformers, frozen but for adapters with a task axis, or with all weights.

Letters: n pairs of a source and a target, P tokens of both, N tokens of targets, W words of the vocabulary, T tasks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import AutoModelForSeq2SeqLM, LogitsProcessor, LogitsProcessorList, MarianConfig, MarianMTModel

from metanlp.backbone import lora
from metanlp.backbone.all_weights import PREFIX, Size, save_whole, seeded, whole
from metanlp.backbone.grids import SOURCE, TARGET, Grids
from metanlp.backbone.lora import Lora
from metanlp.backbone.pretrained import Base, base_of, to_be_had
from metanlp.backbone.trunk import Trees, align, twin
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.settings import to_json
from metanlp.core.torch_modes import own_modes
from metanlp.core.types import Batch, MaskedPass, Tokens, Weights

AT_ONCE = 32  # pairs that go through the model together, and sources that are decoded together


class Seq2Seq:
    """A backbone whose features of a target's token are its scores by the model's own head, given the source and the
    tokens before it: one view of W numbers. With `adapt` θ is adapters, without it all weights, `base/…`. Its batches
    hold pairs: text 2i is a source, text 2i + 1 what the decoder reads, whose tokens are the units."""

    view_names: tuple[str, ...] = ("adapted.vocabulary",)

    @own_modes()
    def __init__(
        self, model: nn.Module, tokenizer: Any, adapt: Lora | None, *, base: Base | str, max_length: int = 64
    ) -> None:
        """`model` is one of transformers' with an encoder, a decoder and a vocabulary head, of the caller's own, and is
        computed in fp32. Sources and targets are cut after `max_length` tokens. Raises InputError for other models."""
        self.base = Base(base) if isinstance(base, str) else base
        self.name, self.adapt, self.max_length, self.tokenizer = self.base.name, adapt, max_length, tokenizer
        # Sinusoids, which no file holds, are parameters that don't learn.
        self._learn = {name for name, value in model.named_parameters() if value.requires_grad}
        model = align(twin(model)).float().eval().requires_grad_(False)
        config, head = cast(Any, model).config, cast(Any, model).get_output_embeddings()
        self._check(config, head)
        self.config, self.device = config, next(model.parameters()).device
        self.width = int(head.out_features)
        (self._head,) = (name for name, part in model.named_modules() if part is head)
        head.register_buffer("places", torch.zeros(0, dtype=torch.long), persistent=False)
        head.register_forward_pre_hook(_at_places)
        if adapt:
            layers = "|".join(map(re.escape, adapted_layers(model, adapt)))
            model = lora.add_adapters(model, lora.config_of(adapt, layers, self.name, self.base.revision))
        self._model, self._trees = model, Trees(model)
        self._sides = self._sides_of(lora.task_layers(model))

    @staticmethod
    @own_modes()
    def load(name: str, adapt: Lora | None, *, max_length: int = 64, device: torch.device | str = "cpu") -> Seq2Seq:
        """A checkpoint of T5, BART, Marian or their kin: a folder, or an id on the Hub. Raises InputError where it
        can't be loaded, or a weight of it is in no file."""
        base = base_of(name)
        with to_be_had(name):
            model, missing = base.model(AutoModelForSeq2SeqLM, dtype=torch.float32)
            tokenizer = base.tokenizer()
        if missing:
            raise InputError(f"model {name!r}: {len(missing)} of its weights are in no file, such as {missing[0]}")
        return Seq2Seq(model.to(device), tokenizer, adapt, base=base, max_length=max_length)

    @staticmethod
    @own_modes()
    def make(tokenizer: Any, size: Size, max_length: int, *, seed: int, device: torch.device | str = "cpu") -> Seq2Seq:
        """A new Marian of `size.layers` layers on either side, all of whose weights learn: the same for the same
        `seed`."""
        layers: dict[str, Any] = {f"{side}_{what}": value for side in ("encoder", "decoder") for what, value in (
            ("layers", size.layers), ("attention_heads", size.heads), ("ffn_dim", 4 * size.width))}  # fmt: skip
        config = MarianConfig(
            vocab_size=len(tokenizer), d_model=size.width, max_position_embeddings=max_length + 8, dropout=0.0,
            scale_embedding=True, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id, forced_eos_token_id=tokenizer.eos_token_id, **layers,
        )  # fmt: skip
        with seeded(seed, torch.device("cpu")):
            model = cast(nn.Module, MarianMTModel(config))
        name = f"marian-{size.layers}-layers-{size.width}"
        return Seq2Seq(model.to(torch.device(device)), tokenizer, None, base=name, max_length=max_length)

    def init(self, generator: torch.Generator) -> Weights:
        """Fresh adapters, with which the model computes what it did before; without any, its weights."""
        if self.adapt:
            return weights.to(lora.init(self._model, generator), self.device)
        return {key: value for key, value in whole(self._model).items() if key.removeprefix(PREFIX) in self._learn}

    def identity(self) -> dict[str, Any]:
        """All that decides what it computes, but its adapters or weights."""
        return {"base": {"name": self.name, "sha256": self.base.sha256}, "max_length": self.max_length,
                "adapt": self.adapt and to_json(self.adapt)}  # fmt: skip

    def encode(self, sources: Sequence[str], targets: Sequence[str]) -> tuple[Tokens, np.ndarray]:
        """The 2n texts of n pairs, words of which are the decoder's tokens, and what these have to tell: (N,)."""
        read, told = (
            self.tokenizer(**{name: list(texts)}, truncation=True, max_length=self.max_length)["input_ids"]
            for name, texts in (("text", sources), ("text_target", targets))
        )
        begin = self.config.decoder_start_token_id
        rows = [ids for source, target in zip(read, told, strict=True) for ids in (source, [begin, *target[:-1]])]
        lengths = np.array([len(ids) for ids in rows])
        sides = np.repeat(np.tile([SOURCE, TARGET], len(read)), lengths)
        places = np.concatenate([np.arange(length) for length in lengths])
        tokens = Tokens(np.concatenate(rows).astype(np.int64), np.zeros(len(sides), np.int64), sides,
                        np.cumsum([0, *lengths]), np.where(sides == TARGET, places, -1))  # fmt: skip
        return tokens, np.concatenate(told).astype(np.int64)

    def with_trunk(self, batch: Batch) -> Batch:
        """The batch on this device: nothing is computed beforehand."""
        return batch.to(self.device)

    def features(self, w: Weights, batch: Batch) -> Tensor:
        """Scores of the words at each token of the targets: (N, 1, W), fp32. Pairs that are about equally long go
        through the model together."""
        batch = batch.to(self.device)
        pairs = batch.lengths.view(-1, 2).sum(1).argsort(stable=True).split(AT_ONCE)
        grids = [Grids(batch, self.config.pad_token_id, some.sort().values) for some in pairs]
        scores = [self._scores(w, each) for each in grids]
        if len(grids) == 1:
            return scores[0][:, None]
        return torch.cat(scores).index_select(0, torch.cat([each.units for each in grids]).argsort())[:, None]

    def _scores(self, w: Weights, grids: Grids) -> Tensor:
        """Of those of the units that are in the grids."""
        given = self._arguments(w, grids) | {f"{self._head}.places": grids.mask(TARGET).flatten().nonzero()[:, 0]}
        inputs = {"input_ids": grids.ids(SOURCE), "attention_mask": grids.mask(SOURCE), "use_cache": False,
                  "decoder_input_ids": grids.ids(TARGET), "decoder_attention_mask": grids.mask(TARGET)}  # fmt: skip
        return functional_call(self._trees.mine()[0], given, args=(), kwargs=inputs).logits[0]

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

    @torch.no_grad()
    def _decoded(self, phi: Weights, sources: Sequence[str], beams: int) -> list[str]:
        read = self.tokenizer(list(sources), truncation=True, max_length=self.max_length, padding=True,
                              return_tensors="pt").to(self.device)  # fmt: skip
        given = {f"model.{name}": value for name, value in lora.arguments(phi, (), torch.zeros(0)).items()}
        # Before beams are compared, scores are made log-probabilities again.
        words = LogitsProcessorList([Biased(phi["head/bias"][0])])
        asked = {"input_ids": read["input_ids"], "attention_mask": read["attention_mask"], "num_beams": beams,
                 "do_sample": False, "max_new_tokens": self.max_length, "logits_processor": words,
                 "renormalize_logits": True}  # fmt: skip
        ids = functional_call(Writer(self._trees.mine()[0]), given, args=(), kwargs=asked)
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def work(self, batch: Batch, passes: int) -> int:
        """Tokens of both sides, `passes` times forward or backward."""
        return passes * batch.count_tokens

    def save(self, theta: Weights, folder: Path) -> None:
        """A folder that `AutoModelForSeq2SeqLM` and `AutoTokenizer` open, from all weights."""
        save_whole(type(self._model), self.config, theta, self.tokenizer, folder)

    # inside

    def _arguments(self, w: Weights, grids: Grids) -> dict[str, Tensor]:
        """What `functional_call` puts in place: all weights, or adapters, and where the rows of tasks end in the grid
        of the sources or of the targets, whichever a layer reads."""
        if not self.adapt:
            return weights.pick_inside(w, PREFIX)
        ends = {side: grids.ends(side) for side in (SOURCE, TARGET)}
        sides = {f"{layer}.ends": ends[side] for layer, side in self._sides.items()}
        return lora.arguments(w, (), ends[TARGET]) | sides

    def _check(self, config: Any, head: Any) -> None:
        if not getattr(config, "is_encoder_decoder", False) or not isinstance(head, nn.Linear):
            raise InputError(f"{self.name}: a {config.model_type} model has no encoder and decoder with a vocabulary; "
                             "take T5, mT5, BART, mBART, Marian or their kin")  # fmt: skip
        if config.decoder_start_token_id is None:
            raise InputError(f"{self.name}: its configuration has no decoder_start_token_id, so that nobody knows how "
                             "a target begins; set it, or take another model")  # fmt: skip

    def _sides_of(self, layers: Sequence[str]) -> dict[str, int]:
        """Whether a layer with an adapter reads sources or targets, as seen in one call: keys and values of the
        attention from a decoder to its encoder read sources. Raises InputError where a layer reads something else."""
        rows, found, tree = {7: SOURCE, 5: TARGET}, dict[str, int](), self._trees.mine()[0]

        def look(layer: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            count = inputs[0].shape[:-1].numel()
            if count not in rows:
                raise InputError(f"{self.name}: not only texts go through its layer {layer}; take another model")
            found[layer] = rows[count]

        hooks = [tree.get_submodule(layer).register_forward_pre_hook(partial(look, layer)) for layer in layers]
        with torch.no_grad():
            tree(**{name: torch.ones(1, count, dtype=torch.long, device=self.device)
                    for name, count in zip(("input_ids", "decoder_input_ids"), rows, strict=True)})  # fmt: skip
        for hook in hooks:
            hook.remove()
        return found


class Writer(nn.Module):
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


def adapted_layers(model: nn.Module, adapt: Lora) -> list[str]:
    """The linear layers of encoder and decoder that take an adapter, by full name."""
    lists = [name for name, part in model.named_modules() if isinstance(part, nn.ModuleList)]
    found = list[str]()
    for stack in (name for name in lists if not any(name.startswith(f"{other}.") for other in lists)):
        layers = cast(nn.ModuleList, model.get_submodule(stack))
        for number in range(adapt.lowest(len(layers)), len(layers)):
            found += [
                f"{stack}.{number}.{path}"
                for path, part in layers[number].named_modules()
                if isinstance(part, nn.Linear) and takes(adapt, path)
            ]
    return found


def takes(adapt: Lora, path: str) -> bool:
    """Whether a linear layer at this path inside a layer takes an adapter. Of an attention block, what makes queries
    and values begins with q and v in all of these models."""
    inside = "att" in path.lower()
    queries = inside and path.rpartition(".")[2].startswith(("q", "v"))
    return {"all linear": True, "attention": inside, "query and value": queries}[adapt.targets]


def _at_places(head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The states of the tokens that are told, where they are named, so that the head runs on no other."""
    places = cast(Tensor, head.places)
    return (inputs[0].flatten(0, 1).index_select(0, places)[None],) if len(places) else inputs
