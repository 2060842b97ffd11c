"""LoRA adapters (Hu et al. 2022, arXiv 2106.09685) with a task axis."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from peft import LoraConfig, TaskType, inject_adapter_in_model
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from metanlp.backbone.families import FAMILIES, Family
from metanlp.core.errors import InputError
from metanlp.core.types import Weights
from metanlp.core.weights import pick_inside

PREFIX = "lora/base_model.model."  # our prefix and peft's, in front of a module's name inside the bare model
FURTHER = "lora/{}/base_model.model."  # the same for a further set of adapters, from the second on
DEFAULT = ".default.weight"  # how the names of peft's parameters end in memory; in its files, ".weight"


@dataclass(frozen=True)
class Lora:
    """Which weights of the backbone learn."""

    rank: int = 8  # inner size r of the update B·A
    alpha: float = 16.0  # the update is scaled by alpha / rank
    layers: Literal["top half", "all"] = "top half"  # below the lowest adapted layer, states are computed once
    # Linear layers of a block that carry an adapter.
    targets: Literal["query and value", "attention", "all linear"] = "attention"

    def __post_init__(self) -> None:
        if self.rank < 1 or self.rank % 4:
            raise InputError(f"LoRA rank {self.rank} is not a positive multiple of 4; take 4, 8 or 16")

    def lowest(self, depth: int) -> int:
        """Number of the lowest adapted layer of `depth`, from 0."""
        return depth // 2 if self.layers == "top half" else 0


class TaskLinear(LoraLinear):
    """A linear layer with an adapter for each of T tasks.

    `functional_call` puts `lora_A` (T, r, in) and `lora_B` (T, out, r) in place of peft's matrices; rows
    `ends[t-1]:ends[t]` of the input, packed or padded, go through task t's. Without gradients a single task's adapter
    is merged into the layer, where there are more rows than outputs.
    """

    ends: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("ends", torch.zeros(0, dtype=torch.int32), persistent=False)

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        down, up = (cast(nn.Linear, layers["default"]).weight for layers in (self.lora_A, self.lora_B))
        base, scale = cast(nn.Linear, self.base_layer), self.scaling["default"]
        # One task through a plain layer of the adapters' own precision.
        alone = [w if w.dim() == 2 else w[0] for w in (down, up) if w.dim() == 2 or len(w) == 1]
        plain = type(base) is nn.Linear and base.weight.dtype == down.dtype and len(alone) == 2
        if plain and not torch.is_grad_enabled() and x.shape[:-1].numel() > base.out_features:
            return nn.functional.linear(x, torch.addmm(base.weight, alone[1], alone[0], alpha=scale), base.bias)
        out = base(x)
        low = _product(x.flatten(0, -2).to(down.dtype), down, self.ends)
        if plain:  # one operation in place of product, scale and sum: each writes all activations once more
            return out.flatten(0, -2).addmm_(low, alone[1].T, alpha=scale).view(out.shape)
        update = _product(low, up, self.ends) * scale
        return out + update.view(out.shape).to(out.dtype)


def _product(x: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
    """Each task's rows times its matrix: (P, in), (T, out, in) or (out, in) -> (P, out). No host sync."""
    if matrices.dim() == 2 or len(matrices) == 1:
        return x @ matrices.view(matrices.shape[-2:]).T
    return nn.functional.grouped_mm(x, matrices.transpose(1, 2), offs=ends)


def peft_config(lora: Lora, family: Family, depth: int, base_name: str, revision: str = "") -> LoraConfig:
    """The contents of `adapter_config.json`. Targets are a regular expression over full names, as `layers_to_transform`
    raises on several architectures."""
    numbers = "0" if family.shared else "|".join(map(str, range(lora.lowest(depth), depth)))
    names = "|".join(map(re.escape, family.targets(lora.targets)))
    layers = rf"(.*\.)?{re.escape(family.layers)}\.({numbers})\.({names})"
    return config_of(lora, layers, base_name, revision, transposed=family.conv1d)


def config_of(
    lora: Lora, layers: str, base_name: str, revision: str = "", *, transposed: bool = False,
    use: str = "FEATURE_EXTRACTION",
) -> LoraConfig:  # fmt: skip
    """Peft's own settings, for adapters on the `layers` whose full names match a regular expression, in a model of this
    `use`, one of peft's task types."""
    return LoraConfig(
        task_type=TaskType[use],
        base_model_name_or_path=base_name,
        revision=revision or None,
        r=lora.rank,
        lora_alpha=cast(int, lora.alpha),
        lora_dropout=0.0,
        fan_in_fan_out=transposed,  # peft corrects this itself for its own layers only, and merges wrongly without
        target_modules=layers,
    )


def targets(model: nn.Module, config: LoraConfig) -> list[nn.Module]:
    """The layers that take an adapter."""
    names = re.compile(cast(str, config.target_modules))
    return [part for name, part in model.named_modules() if names.fullmatch(name)]


def add_adapters(model: nn.Module, config: LoraConfig) -> nn.Module:
    """The bare model with `TaskLinear` in place of its targets; the model handed in is changed and returned."""
    kinds = {type(part) for part in targets(model, config)}
    config._register_custom_module(dict.fromkeys(kinds, TaskLinear))  # pyright: ignore[reportPrivateUsage]
    return inject_adapter_in_model(config, model)


def config_bytes(config: LoraConfig) -> bytes:
    """`adapter_config.json`, as plain peft writes it."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True, default=sorted).encode()  # peft's sets as lists


def prefix_of(number: int) -> str:
    """What stands in front of the names of the weights of a set of adapters."""
    return PREFIX if number == 1 else FURTHER.format(number)


def is_further(key: str) -> bool:
    """Whether a weight is of a set of adapters beyond the first."""
    return bool(re.match(r"lora/\d+/", key))


def one_set(w: Weights, number: int) -> Weights:
    """A set of adapters as if it were the only one."""
    return {PREFIX + key: value for key, value in pick_inside(w, prefix_of(number)).items()}


def renumbered(w: Weights, number: int) -> Weights:
    """The only set of adapters as the one of that number."""
    return {prefix_of(number) + key: value for key, value in pick_inside(w, PREFIX).items()}


def init(model: nn.Module, generator: torch.Generator, number: int = 1) -> Weights:
    """Fresh adapters of a set: A uniform as in a linear layer (Kaiming, a = √5, peft's own choice), B zero."""
    weights: Weights = {}
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            shape = parameter.shape
            uniform = (torch.rand(shape, generator=generator) * 2 - 1) * shape[1] ** -0.5
            weights[prefix_of(number) + name.replace(DEFAULT, ".weight")] = (
                uniform if ".lora_A." in name else torch.zeros(shape)
            )
    return weights


def arguments(w: Weights, task_layers: Iterable[str], ends: Tensor, number: int = 1) -> dict[str, Tensor]:
    """The dictionary for `functional_call`: a set of adapters under peft's module names, and every layer's `ends`."""
    adapters = pick_inside(w, prefix_of(number)).items()
    named = {key.removesuffix(".weight") + DEFAULT: value for key, value in adapters}
    return named | {f"{layer}.ends": ends for layer in task_layers}


def task_layers(model: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, module in model.named_modules() if isinstance(module, TaskLinear))


@contextmanager
def only_texts(model: nn.Module, tokens: int, name: str) -> Generator[None]:
    """Watches a call of the model on one text of so many `tokens`. Raises InputError where other rows go through an
    adapter, such as a table of relative positions: they belong to no task."""
    foreign: list[str] = []

    def look(layer: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].shape[:-1].numel() != tokens:
            foreign.append(layer)

    layers = task_layers(model)
    hooks = [model.get_submodule(layer).register_forward_pre_hook(partial(look, layer)) for layer in layers]
    yield
    for hook in hooks:
        hook.remove()
    if foreign:
        raise InputError(
            f"{name}: not only texts go through its layer {foreign[0]}, so that it can't differ from task to task; "
            f"take a model of one of {', '.join(FAMILIES)}"
        )
