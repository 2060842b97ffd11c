"""The pretrained model: loaded once, frozen, called with weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, BitsAndBytesConfig

from metanlp.backbone import lora
from metanlp.backbone import quantize as bits
from metanlp.backbone.attention import ATTENTION, packed_attention
from metanlp.backbone.cpu_threads import side_by_side, summed
from metanlp.backbone.families import Family, family_of, tried
from metanlp.backbone.lora import Lora
from metanlp.backbone.options import Options
from metanlp.backbone.packing import PART, WHOLE, Packing, pack, parts
from metanlp.backbone.pretrained import Base, base_of, to_be_had
from metanlp.backbone.sentence import Sentence, read_sentence
from metanlp.backbone.store import Store, is_exact
from metanlp.backbone.tokens import encode, notice
from metanlp.backbone.trunk import Trees, align, record_states, skip_layers, twin
from metanlp.backbone.views import View, adapter_sets, default_views, pool
from metanlp.core.errors import InputError
from metanlp.core.torch_modes import own_modes
from metanlp.core.types import Batch, Tokens, Trunk, Weights

AttentionInterface.register(ATTENTION, packed_attention)


class Backbone:
    """A frozen encoder with places for adapters. Nothing in it changes after construction but the count of texts."""

    @own_modes()
    def __init__(
        self, model: nn.Module, tokenizer: Any, options: Options, *, base: Base | str, sentence: Sentence | None = None,
        store_gb: float = 0.0,
    ) -> None:  # fmt: skip
        """`model` is a bare transformers model (no task head) of the caller's own: its weights are frozen and cast to
        `precision`. `base` says which weights it has, or names it; `sentence` how it is meant to be read. `store_gb`
        gigabytes hold what it says of texts while frozen; it changes nothing but time and memory."""
        model = align(twin(model))  # with a configuration of its own, as `from_config` gives one to several models
        config = cast(Any, model).config
        self.family: Family = family_of(model, config)
        self.base = Base(base) if isinstance(base, str) else base
        self.name = self.base.name
        self._texts_read = Counter[str]()
        self.tokenizer = tokenizer
        self.depth: int = config.num_hidden_layers
        self.sentence = sentence or Sentence(self.family.pooling)
        self.width: int = max(config.hidden_size, self.sentence.width)
        self.lowest = 0 if self.family.shared else options.adapt.lowest(self.depth)
        self._skipped = self.lowest if self.family.packed else 0  # layers that the trunk stands for
        self._first_position = self.family.first_position(config)
        self.device = next(model.parameters()).device
        decided = bits.decide(options.precision, self.device)
        views = tuple(options.views) or default_views(self.depth, self.sentence.default_view)
        prompt = self.sentence.prompt if options.prompt is None else options.prompt
        self.options = replace(options, views=views, precision=decided, prompt=prompt)
        self.views = tuple(View.parse(view) for view in views)
        self.sets = adapter_sets(views)
        self._check_views()
        self._check_length(getattr(config, "max_position_embeddings", None) or 0)
        if options.quantize == "none":
            model = model.to(bits.dtype_of(decided, self.device))
        bits.settle(model.eval().requires_grad_(False))
        config.use_cache = False
        if self.family.packed:  # set after loading: a model that can't would take the name at load, and be wrong
            cast(Any, model).set_attn_implementation(ATTENTION)
        if hasattr(model, "pooler"):
            cast(Any, model).pooler = None
        self.store: Store | None = None
        self._build(model)
        self._probe()
        if store_gb and self._can_store(config.vocab_size):
            self.store = Store(round(store_gb * 1e9))

    @staticmethod
    def load(
        name: str,
        adapt: Lora | None = None,
        *,
        device: torch.device | str = "cpu",
        store_gb: float = 0.0,
        **others: Any,
    ) -> Backbone:
        """The model of that `name`: `minilm`, a folder, or `owner/name` or `owner/name@revision` on the Hub. `others`
        are the other fields of `Options`. Raises InputError where it can't be loaded or quantised."""
        return Backbone.open(name, Options(adapt or Lora(), **others), device, store_gb)

    @staticmethod
    @own_modes()
    def open(name: str, options: Options, device: torch.device | str = "cpu", store_gb: float = 0.0) -> Backbone:
        """`load`, with the options as one object."""
        device, base = torch.device(device), base_of(name)
        dtype = bits.dtype_of(options.precision, device)
        given: dict[str, Any] = {"dtype": dtype}
        if options.quantize != "none":
            bits.require_layers(options.quantize, device, dtype, base.outline())
            config = BitsAndBytesConfig(**bits.settings(options.quantize, dtype))
            given |= {"quantization_config": config, "device_map": {"": device}}
        with to_be_had(name):
            model, tokenizer = base.encoder(**given), base.tokenizer()
        with tried(cast(Any, model).config.model_type):
            sentence = read_sentence(base.file, base.name)
            return Backbone(model.to(device), tokenizer, options, base=base, sentence=sentence, store_gb=store_gb)

    # what users of the class call

    def init(self, generator: torch.Generator) -> Weights:
        """Fresh adapters: the model computes what it did before."""
        made = [lora.init(self._adapted, generator, number) for number in self._numbers]
        return {key: value.to(self.device) for one in made for key, value in one.items()}

    def encode(self, texts: Sequence[tuple[str, ...]], words: bool = False) -> Tokens:
        """Token ids of N texts of one part or two; with `words` also the number of the word, between spaces, of the
        first part in which a token begins."""
        tokens = encode(self.tokenizer, texts, cast(str, self.options.prompt), self.options.max_length, words)
        self._texts_read.update(texts=len(tokens), cut=tokens.cut, unknown=tokens.unknown)
        return tokens

    def notice(self) -> str:
        """One line about texts encoded so far that were cut or are mostly unknown to the tokenizer; "" if none."""
        return notice(self._texts_read, self.options.max_length)

    def with_trunk(self, batch: Batch, again: bool = True) -> Batch:
        """The batch on this device with the outputs of the frozen model, so that later calls need not compute them.
        Texts that may come `again` in other batches go into the store, if there is one."""
        if batch.trunk is not None:
            return batch
        batch, store = batch.to(self.device), self.store if again and self._in_parts else None
        with torch.no_grad():
            return replace(batch, trunk=store.trunk(batch, self._trunk) if store else self._trunk(batch))

    def features(self, w: Weights, batch: Batch) -> Tensor:
        """The vectors of all views: (N, V, D), fp32. `w` is θ, or φ with a slice for each task of the batch."""
        batch = self.with_trunk(batch)
        frozen = iter(cast(Trunk, batch.trunk).frozen.unbind(1))
        if not any(view.adapted for view in self.views):
            return torch.stack(list(frozen), 1)
        adapted = iter(self._adapted_views(w, batch).unbind(1))
        return torch.stack([next(adapted if view.adapted else frozen) for view in self.views], 1)

    def _adapted_views(self, w: Weights, batch: Batch) -> Tensor:
        """The vectors of the views with adapters: (N, adapted views, D)."""
        pieces = self._parts(batch) if self._in_parts else [batch]
        large = pieces[1:] and batch.count_tokens > WHOLE
        if torch.is_grad_enabled() and (self.options.gradient_checkpoint or large):
            # Within a call, recomputation would come after `functional_call` has taken its weights back.
            read = (checkpoint(self._adapted_part, w, part, use_reentrant=False) for part in parts(batch, PART))
            return reduce(torch.add, cast(Iterator[Tensor], read))
        return summed(self._adapted_part, w, pieces) if pieces[1:] else self._adapted_part(w, batch)

    @property
    def _numbers(self) -> range:
        """Of the sets of adapters."""
        return range(1, self.sets + 1)

    @property
    def _in_parts(self) -> bool:
        """Whether passes are computed in parts: not where second derivatives are wanted, which parts don't have, and
        which take another attention that gives a text other bits."""
        return self.device.type == "cpu" and self.family.packed and torch.backends.cuda.flash_sdp_enabled()

    def _parts(self, batch: Batch) -> list[Batch]:
        """Parts that the cores of a CPU compute side by side."""
        return parts(batch, min(WHOLE, -(-batch.count_tokens // torch.get_num_threads())))

    def _trunk(self, batch: Batch) -> Trunk:
        if not self._in_parts:
            return Trunk(*self._frozen(batch))
        states, frozen = zip(*side_by_side([partial(self._frozen, part) for part in self._parts(batch)]), strict=True)
        return Trunk(torch.cat(states), torch.stack(frozen).sum(0))

    def _frozen(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """States and frozen views of a batch's trunk."""
        states = self._run(self._trees.mine()[0], batch, {}) if self._frozen_layers else {}
        frozen = [self._read(states, view, batch) for view in self.views if not view.adapted]
        # With adapters in every layer there is no trunk.
        below = states[self._skipped] if self._skipped else batch.ids.new_zeros(batch.count_tokens, 0).float()
        return below, torch.stack(frozen, 1) if frozen else below.new_zeros(len(batch.task_of), 0, self.width)

    def _adapted_part(self, w: Weights, batch: Batch) -> Tensor:
        states = {number: self._adapted_states(w, batch, number) for number in self._numbers}
        return torch.stack([self._read(states[view.of], view, batch) for view in self.views if view.adapted], 1)

    def hidden(self, w: Weights, batch: Batch) -> Tensor:
        """Last hidden states of all tokens: (P, H)."""
        return self._adapted_states(w, self.with_trunk(batch))[self.depth]

    def work(self, batch: Batch, passes: int) -> int:
        """Cost of a batch in tokens through the whole stack: once through the frozen layers, `passes` times (forward or
        backward) through the adapted ones."""
        adapted = self.sets * (self.depth - self._skipped)
        return round(batch.count_tokens * (self._frozen_layers + passes * adapted) / self.depth)

    @property
    def view_names(self) -> tuple[str, ...]:
        return tuple(map(str, self.views))

    def adapter_config(self) -> bytes:
        """`adapter_config.json`, as plain peft writes it."""
        return lora.config_bytes(self._peft_config())

    # inside

    def _read(self, states: Mapping[int, Tensor], view: View, batch: Batch) -> Tensor:
        """One view: (N, D). A vector shorter than D ends in zeros."""
        whole = view.pooling == "sentence"
        x = pool(states[view.layer], batch, self.sentence.pooling if whole else view.pooling)  # 0 for another part's
        x = torch.where((x != 0).any(1, keepdim=True), self._dense(x), 0.0) if whole else x
        return nn.functional.pad(x, (0, self.width - x.shape[1]))

    def _build(self, model: nn.Module) -> None:
        """The plain model, cut above its highest frozen view, and the adapted one, whose lower layers return the
        trunk."""
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
        return lora.peft_config(self.options.adapt, self.family, self.depth, self.name, self.base.revision)

    def _adapted_states(self, w: Weights, batch: Batch, number: int = 1) -> dict[int, Tensor]:
        recall = cast(Trunk, batch.trunk).states if self._skipped else None
        ends = batch.ends if self.family.packed else Packing(batch).padded_ends
        return self._run(self._trees.mine()[1], batch, lora.arguments(w, self._task_layers, ends, number), recall)

    def _run(
        self, tree: nn.Module, batch: Batch, w: dict[str, Tensor], recall: Tensor | None = None
    ) -> dict[int, Tensor]:
        """Hidden states by layer number: (P, H) each; the last one after the model's final norm, if it has one."""
        packing = Packing(batch, None if recall is None else recall[None])
        if not self.family.packed:
            return self._run_padded(tree, packing, w)
        inputs = {"input_ids": batch.ids[None], "position_ids": batch.positions[None] + self._first_position}
        types = {"token_type_ids": batch.types[None]} if self.family.types else {}
        out = functional_call(tree, w, args=(), kwargs=inputs | types | {"packing": packing}, tie_weights=False)
        if len(packing.attended) != len(packing.states):
            raise RuntimeError(f"{self.name}: its attention is not ours; rows of a pack would see each other")
        lowest = 1 if recall is None else 1 + self._skipped
        states = {number: state[0] for number, state in enumerate(packing.states, start=lowest)}
        return states | ({self.depth: out.last_hidden_state[0]} if self.depth in states else {})

    def _run_padded(self, tree: nn.Module, packing: Packing, w: dict[str, Tensor]) -> dict[int, Tensor]:
        batch, padding = packing.batch, self.tokenizer.pad_token_id or 0
        ids, mask = packing.padded(batch.ids - padding) + padding, packing.mask[:, 0, 0].long()
        inputs = {"input_ids": ids, "attention_mask": mask}
        types = {"token_type_ids": packing.padded(batch.types)} if self.family.types else {}
        out = functional_call(tree, w, args=(), kwargs=inputs | types | {"output_hidden_states": True})
        return {number: packing.packed(state) for number, state in enumerate(out.hidden_states)}

    def _check_views(self) -> None:
        read = {view.of for view in self.views if view.adapted}
        if unread := [number for number in self._numbers if read and number not in read]:
            raise InputError(
                f"views read set {self.sets} of the adapters, and none reads set {unread[0]}; leave none out"
            )
        for view in self.views:
            low = self.lowest + 1 if view.adapted else 1
            if not low <= view.layer <= self.depth:
                raise InputError(
                    f"view {str(view)!r} reads layer {view.layer}, but with adapters from layer {self.lowest + 1} of "
                    f"{self.depth} on, it may read layers {low} to {self.depth}"
                )

    def _check_length(self, positions: int) -> None:
        most = positions - self._first_position
        if positions > 0 and most < self.options.max_length:  # 0 and −1 stand for no limit
            raise InputError(
                f"{self.name} reads at most {most} tokens, but max_length is {self.options.max_length}; lower it"
            )

    def _probe(self) -> None:
        """Raises RuntimeError where a neighbour in the pack changes a text, as other attention than ours lets it."""
        ids = np.arange(1, 6) % 5 + 1
        tokens = Tokens(ids, np.zeros(5, np.int64), np.ones(5, np.int64), np.array([0, 2, 5]))
        theta = self.init(torch.Generator().manual_seed(0))
        one, two = (pack(tokens, rows, rows, 2) for rows in ([1], [0, 1]))
        with lora.only_texts(self._trees.mine()[1], one.count_tokens, self.name):
            alone = self.features(theta, one)
        together = self.features(theta, two)
        if not torch.allclose(alone[0], together[1], atol=0.05 * float(alone.abs().max())):
            raise RuntimeError(f"{self.name}: rows of a pack see each other; it can't be packed as it is")

    @torch.no_grad()
    def _can_store(self, vocabulary: int) -> bool:
        """Whether a text's trunk has the same bits in every pass: not on GPUs, whose kernels go by the shape, not where
        neighbours make the padding longer, nor in 8 bits, where they decide which columns are rounded, nor in decoders:
        a tiny Llama had other bits in other passes, and `is_exact` had not seen it."""
        able = self._in_parts and self.options.quantize == "none" and self.family.pooling == "all"
        return able and is_exact(self._trunk, vocabulary)
