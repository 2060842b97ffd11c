"""Linear heads of training tasks: rows that are made, stepped and saved for the tasks that were drawn.

Letters: R rows of all heads, K classes of a task, F = V·D features of all views.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from metanlp.core import weights
from metanlp.core.types import Weights
from metanlp.training.optimizer import OuterOptimizer

COPIES = 13  # of a row: value, gradient and two moments; while a checkpoint is written, value and moments thrice more


class Headed(Protocol):
    """A method that says whether it uses such heads."""

    task_heads: ClassVar[bool]


class Viewed(Protocol):
    """A model that says how wide features are."""

    @property
    def view_names(self) -> tuple[str, ...]: ...
    @property
    def width(self) -> int: ...


class TaskHeads:
    """Linear heads of the training tasks drawn so far, for methods with `Algorithm.task_heads`: one matrix (R, F), one
    vector (R,), and their AdamW. A head begins at zero when its task is first drawn; without its task a step moves it
    by momentum, as if it had been there from the first step.
    """

    def __init__(self, method: Headed, net: Viewed, weight_decay: float, device: torch.device) -> None:
        self.sizes: dict[str, int] = {}  # task -> K, in the order in which they were drawn
        self._used, self._rows = method.task_heads, dict[str, slice]()
        width = len(net.view_names) * net.width
        start = {"weight": torch.zeros(0, width, device=device), "bias": torch.zeros(0, device=device)}
        self._outer = OuterOptimizer(start, weight_decay)

    def of(self, tasks: Mapping[str, int]) -> Weights:
        """The heads of these tasks, copied, by name and K; made where they are new: `tasks/NAME/weight` (K, F),
        `tasks/NAME/bias` (K,). Nothing for a method that uses none."""
        if not self._used:
            return {}
        self._add({name: size for name, size in tasks.items() if name not in self.sizes})
        parts = self._outer.parameters.items()
        return {f"tasks/{name}/{key}": value[self._rows[name]].clone() for name in tasks for key, value in parts}

    def step(self, grad: Weights, rate: float) -> None:
        """One update of all heads; those that `grad` lacks move by their momentum."""
        whole = weights.zeros(self._outer.parameters)
        for place, value in weights.pick_inside(grad, "tasks/").items():
            name, key = place.rsplit("/", 1)
            whole[key][self._rows[name]] = value
        if self.sizes:
            self._outer.step(whole, rate)

    def tensors(self) -> dict[str, Tensor]:
        """The heads and the state of their AdamW, copied; `sizes` says whose they are."""
        return {f"tasks/{key}": value for key, value in self._outer.tensors().items()} if self.sizes else {}

    def restore(self, tensors: Mapping[str, Tensor], sizes: Mapping[str, int]) -> None:
        """The inverse of `tensors` and `sizes`, for heads that are as they were made."""
        self._add(dict(sizes))
        self._outer.restore(weights.pick_inside(dict(tensors), "tasks/"))

    def _add(self, new: Mapping[str, int]) -> None:
        ends = list(accumulate(new.values(), initial=sum(self.sizes.values())))
        self._rows |= {name: slice(*ends[n : n + 2]) for n, name in enumerate(new)}
        self.sizes |= new
        if new:
            self._outer.grow(sum(new.values()))


def rows_in_memory(sizes: Sequence[int], draws: int | None) -> int:
    """Rows that the heads of `draws` tasks take at the most, None for all tasks; `sizes` are the tasks' classes."""
    return COPIES * sum(sorted(sizes, reverse=True)[:draws])
