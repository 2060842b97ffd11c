"""The pretrained model: loaded once, frozen, called with weights. The one door of transformers."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AutoConfig, AutoModel, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging
from transformers.utils.hub import cached_file

from metanlp.backbone import bits, lora
from metanlp.backbone.attention import ATTENTION, packed_attention
from metanlp.backbone.bits import Precision, Quantize
from metanlp.backbone.families import Family, family_of
from metanlp.backbone.lora import Lora
from metanlp.backbone.options import Options
from metanlp.backbone.origin import folder_of, identity
from metanlp.backbone.packing import PART, Packing, pack, parts
from metanlp.backbone.sentence import Sentence, read_sentence
from metanlp.backbone.tokens import encode
from metanlp.backbone.trunk import Trees, record_states, skip_layers, twin
from metanlp.backbone.views import View, default_views, pool
from metanlp.backbone.workers import side_by_side, summed
from metanlp.errors import InputError
from metanlp.types import Batch, Tokens, Trunk, Weights

AttentionInterface.register(ATTENTION, packed_attention)


class Backbone:
    """A frozen encoder with places for adapters. Nothing in it changes after construction."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        options: Options,
        *,
        name: str,
        sha256: str = "",
        sentence: Sentence | None = None,
    ) -> None:
        """`model` is a bare transformers model (no task head); its weights are frozen and put into `precision`, so hand
        in one of your own. `sentence` is what its makers say of reading it."""
        model = twin(model)  # with a configuration of its own, as `from_config` gives one to several models
        config = cast(Any, model).config
        self.family: Family = family_of(model, config)
        self.name, self.sha256 = name, sha256
        self.tokenizer = tokenizer
        self.depth: int = config.num_hidden_layers
        self.sentence = sentence or Sentence(self.family.pooling)
        self.width: int = max(config.hidden_size, self.sentence.width)
        self.lowest = 0 if self.family.shared else options.adapt.lowest(self.depth)
        self._skipped = self.lowest if self.family.packed else 0  # layers that the trunk stands for
        self._first_position = self.family.first_position(config)
        self.device = next(model.parameters()).device
        decided = bits.decide(options.precision, self.device)
        views = options.views or default_views(self.depth, self.sentence.default_view)
        prompt = self.sentence.prompt if options.prompt is None else options.prompt
        self.options = replace(options, views=views, precision=decided, prompt=prompt)
        self.views = tuple(View.parse(view) for view in views)
        self._check_views()
        self._check_length(getattr(config, "max_position_embeddings", None) or options.max_length)
        if options.quantize == "none":
            model = model.to(bits.dtype_of(decided, self.device))
        bits.settle(model.eval().requires_grad_(False))
        config.use_cache = False
        if self.family.packed:  # set after loading: a model that can't would take the name at load, and be wrong
            cast(Any, model).set_attn_implementation(ATTENTION)
        if hasattr(model, "pooler"):
            cast(Any, model).pooler = None
        self._build(model)
        self._probe()

    @staticmethod
    def load(
        name: str,
        adapt: Lora | None = None,
        *,
        views: Sequence[str] = (),
        precision: Precision = "auto",
        max_length: int = 128,
        prompt: str | None = None,
        gradient_checkpoint: bool = False,
        quantize: Quantize = "none",
        device: torch.device | str = "cpu",
    ) -> Backbone:
        """`minilm`, a folder, or an id on the Hub. Raises InputError where the model can't be had, or not quantised."""
        chosen = (tuple(views), precision, max_length, prompt, gradient_checkpoint, quantize)
        return Backbone.open(name, Options(adapt or Lora(), *chosen), device)

    @staticmethod
    def open(name: str, options: Options, device: torch.device | str = "cpu") -> Backbone:
        """`load`, with the options in one piece."""
        device, folder = torch.device(device), folder_of(name)
        dtype = bits.dtype_of(options.precision, device)
        given: dict[str, Any] = {"dtype": dtype}
        if options.quantize != "none":
            bits.require_layers(options.quantize, device, dtype, outline(name))
            config = BitsAndBytesConfig(**bits.settings(options.quantize, dtype))
            given |= {"quantization_config": config, "device_map": {"": device}}
        logging.disable_progress_bar()  # a second's work; its bar would stand in every script's output
        with _to_be_had(name):
            model = cast(nn.Module, AutoModel.from_pretrained(folder, **given))
            tokenizer = cast(Any, AutoTokenizer).from_pretrained(folder)
        public, sha256 = identity(name, Path(folder))
        sentence = read_sentence(partial(_file_of, folder), public)
        return Backbone(model.to(device), tokenizer, options, name=public, sha256=sha256, sentence=sentence)

    # what users of the class call

    def init(self, generator: torch.Generator) -> Weights:
        """Fresh adapters: the model computes what it did before."""
        return {key: value.to(self.device) for key, value in lora.init(self._adapted, generator).items()}

    def encode(self, texts: Sequence[tuple[str, ...]], words: bool = False) -> Tokens:
        """Token ids of N texts, each of one part or two; with `words` also which word of the first part, counted
        between spaces, a token begins in."""
        return encode(self.tokenizer, texts, cast(str, self.options.prompt), self.options.max_length, words)

    def with_trunk(self, batch: Batch) -> Batch:
        """The batch on this device, carrying what the frozen model says of it, so that no later call computes it."""
        if batch.trunk is not None:
            return batch
        batch = batch.to(self.device)
        with torch.no_grad():
            found = side_by_side([lambda part=part: self._frozen(part) for part in self._parts(batch)])
        states, frozen = zip(*found, strict=True)
        return replace(batch, trunk=Trunk(torch.cat(states), torch.stack(frozen).sum(0)))

    def features(self, w: Weights, batch: Batch) -> Tensor:
        """What every view reads: (N, V, D), fp32. `w` holds θ, or φ with one slice a task of the batch."""
        batch = self.with_trunk(batch)
        frozen = iter(cast(Trunk, batch.trunk).frozen.unbind(1))
        if not any(view.adapted for view in self.views):
            return torch.stack(list(frozen), 1)
        adapted = iter(self._adapted_views(w, batch).unbind(1))
        return torch.stack([next(adapted if view.adapted else frozen) for view in self.views], 1)

    def _adapted_views(self, w: Weights, batch: Batch) -> Tensor:
        """What the views with adapters read: (N, adapted views, D)."""
        if self.options.gradient_checkpoint and torch.is_grad_enabled():
            # Within a call, recomputation would come after `functional_call` has taken its weights back.
            read = [checkpoint(self._adapted_part, w, part, use_reentrant=False) for part in parts(batch, PART)]
            return torch.stack(cast(list[Tensor], read)).sum(0)
        pieces = self._parts(batch)
        return summed(self._adapted_part, w, pieces) if pieces[1:] else self._adapted_part(w, batch)

    def _parts(self, batch: Batch) -> list[Batch]:
        """What the cores of a CPU compute side by side."""
        # Whoever asks for the math kernel wants to differentiate twice, which parts can't.
        whole = self.device.type != "cpu" or not self.family.packed or not torch.backends.cuda.flash_sdp_enabled()
        return [batch] if whole else parts(batch, -(-batch.count_tokens // torch.get_num_threads()))

    def _frozen(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """A batch's trunk: states and frozen views."""
        states = self._run(self._trees.mine()[0], batch) if self._frozen_layers else {}
        frozen = [self._read(states, view, batch) for view in self.views if not view.adapted]
        # With adapters in every layer there is no trunk.
        below = states[self._skipped] if self._skipped else batch.ids.new_zeros(batch.count_tokens, 0).float()
        return below, torch.stack(frozen, 1) if frozen else below.new_zeros(len(batch.task_of), 0, self.width)

    def _adapted_part(self, w: Weights, batch: Batch) -> Tensor:
        states = self._adapted_states(w, batch)
        return torch.stack([self._read(states, view, batch) for view in self.views if view.adapted], 1)

    def hidden(self, w: Weights, batch: Batch) -> Tensor:
        """Last hidden states of all tokens: (P, H)."""
        return self._adapted_states(w, self.with_trunk(batch))[self.depth]

    def work(self, batch: Batch, passes: int) -> int:
        """What a batch costs: tokens through the whole stack, once frozen and `passes` times (forward or backward)
        through the adapted layers. The unit of equal compute."""
        return round(batch.count_tokens * (self._frozen_layers + passes * (self.depth - self._skipped)) / self.depth)

    @property
    def view_names(self) -> tuple[str, ...]:
        return tuple(map(str, self.views))

    def save_adapter_config(self, folder: Path) -> None:
        """`adapter_config.json` for plain peft. The weights beside it are the caller's."""
        lora.save_config(self._peft_config(), folder)

    # inside

    def _read(self, states: Mapping[int, Tensor], view: View, batch: Batch) -> Tensor:
        """One view: (N, D). A vector shorter than D ends in zeros."""
        whole = view.pooling == "sentence"
        x = pool(states[view.layer], batch, self.sentence.pooling if whole else view.pooling)
        x = self._dense(x) if whole else x
        return nn.functional.pad(x, (0, self.width - x.shape[1]))

    def _build(self, model: nn.Module) -> None:
        """The plain model cut above its highest frozen view, and the adapted one whose lower layers give the trunk."""
        adapted = twin(model)
        frozen = [view.layer for view in self.views if not view.adapted]
        self._frozen_layers = max([self._skipped, *frozen])
        if self.family.packed:
            record_states(model, self.family.layers)
            record_states(adapted, self.family.layers)
            skip_layers(adapted, self.family.layers, self._skipped)
        if self.family.packed and not self.family.shared:
            del cast(nn.ModuleList, model.get_submodule(self.family.layers))[self._frozen_layers :]
        self._dense = (self.sentence.dense or nn.Identity()).to(self.device)
        self._adapted = lora.add_adapters(adapted, self._peft_config())
        self._task_layers = lora.task_layers(self._adapted)
        self._plain, self._trees = model, Trees(model, self._adapted)

    def _peft_config(self) -> Any:
        return lora.peft_config(self.options.adapt, self.family, self.depth, self.name)

    def _adapted_states(self, w: Weights, batch: Batch) -> dict[int, Tensor]:
        recall = cast(Trunk, batch.trunk).states if self._skipped else None
        ends = batch.ends if self.family.packed else Packing(batch).padded_ends
        return self._run(self._trees.mine()[1], batch, lora.arguments(w, self._task_layers, ends), recall)

    def _run(
        self, tree: nn.Module, batch: Batch, w: Mapping[str, Tensor] | None = None, recall: Tensor | None = None
    ) -> dict[int, Tensor]:
        """Hidden states by layer number: (P, H) each. What a model says last is normed, if that is its way."""
        run = self._run_packed if self.family.packed else self._run_padded
        return run(tree, batch, dict(w or {}), recall)

    def _run_packed(
        self, tree: nn.Module, batch: Batch, w: dict[str, Tensor], recall: Tensor | None
    ) -> dict[int, Tensor]:
        packing = Packing(batch, None if recall is None else recall[None])
        inputs = {"input_ids": batch.ids[None], "position_ids": batch.positions[None] + self._first_position}
        types = {"token_type_ids": batch.types[None]} if self.family.types else {}
        out = functional_call(tree, w, args=(), kwargs=inputs | types | {"packing": packing}, tie_weights=False)
        if len(packing.attended) != len(packing.states):
            raise RuntimeError(f"{self.name}: its attention is not ours; rows of a pack would see each other")
        lowest = 1 if recall is None else 1 + self._skipped
        states = {number: state[0] for number, state in enumerate(packing.states, start=lowest)}
        return states | ({self.depth: out.last_hidden_state[0]} if self.depth in states else {})

    def _run_padded(self, tree: nn.Module, batch: Batch, w: dict[str, Tensor], _: Tensor | None) -> dict[int, Tensor]:
        packing, padding = Packing(batch), self.tokenizer.pad_token_id or 0
        inputs = {
            "input_ids": packing.padded(batch.ids - padding) + padding,
            "attention_mask": packing.mask[:, 0, 0].long(),
        }
        types = {"token_type_ids": packing.padded(batch.types)} if self.family.types else {}
        out = functional_call(tree, w, args=(), kwargs=inputs | types | {"output_hidden_states": True})
        return {number: packing.packed(state) for number, state in enumerate(out.hidden_states)}

    def _check_views(self) -> None:
        for view in self.views:
            low = self.lowest + 1 if view.adapted else 1
            if not low <= view.layer <= self.depth:
                raise InputError(
                    f"view {str(view)!r} reads layer {view.layer}, but with adapters from layer {self.lowest + 1} of "
                    f"{self.depth} on, it may read layers {low} to {self.depth}"
                )

    def _check_length(self, positions: int) -> None:
        most = positions - self._first_position
        if self.options.max_length > most:
            raise InputError(
                f"{self.name} reads at most {most} tokens, but max_length is {self.options.max_length}; lower it"
            )

    def _probe(self) -> None:
        """A neighbour in the pack must not change a row: an attention that is not ours would let it."""
        ids = np.arange(1, 6) % 5 + 1
        tokens = Tokens(ids, np.zeros(5, np.int64), np.ones(5, np.int64), np.array([0, 2, 5]))
        theta = self.init(torch.Generator().manual_seed(0))
        one, two = (pack(tokens, rows, rows, 2) for rows in ([1], [0, 1]))
        with lora.only_texts(self._trees.mine()[1], one.count_tokens, self.name):
            alone = self.features(theta, one)
        together = self.features(theta, two)
        if not torch.allclose(alone[0], together[1], atol=0.05 * float(alone.abs().max())):
            raise RuntimeError(f"{self.name}: rows of a pack see each other; it can't be packed as it is")


def outline(name: str) -> nn.Module:
    """The model without its weights, on the meta device. Raises InputError where it can't be had."""
    folder = folder_of(name)
    with _to_be_had(name):
        config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        return cast(nn.Module, AutoModel.from_config(config))


@contextmanager
def _to_be_had(name: str) -> Generator[None]:
    """What transformers says of a model that it can't load, as one line."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"model {name!r} could not be loaded ({reason}); give a folder or a model's id, or "
            "work without a network: --model minilm --data mini"
        ) from error


def _file_of(folder: str, name: str) -> Path | None:
    """A file of the model that `folder` names, here or on the Hub; None where there is none, and offline where it is
    not in the cache. Raises InputError where the Hub fails."""
    if Path(folder).is_dir():
        path = Path(folder) / name
        return path if path.is_file() else None
    try:
        found = cached_file(folder, name, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{name} of model {folder!r} could not be had ({reason}); give a folder") from error
    return Path(found) if found else None
