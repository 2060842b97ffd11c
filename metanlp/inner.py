"""The inner loop: gradient steps on a support set, each task on its own, first order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from metanlp import weights
from metanlp.errors import InputError
from metanlp.types import Weights


@dataclass(frozen=True)
class Inner:
    """Stochastic gradient descent from θ on one support set."""

    steps: int = 5  # number of updates
    lr: float = 0.1  # step size of the adapters; 0 leaves them alone and the inner loop touches the head only
    head_lr: float = 0.1  # step size of the head
    clip: float = 1.0  # longest gradient of a task, over all that moves; longer ones are shortened to it

    def __post_init__(self) -> None:
        if self.steps < 0 or self.lr < 0 or self.head_lr < 0 or self.clip <= 0:
            raise InputError(f"{self} is not possible: steps and rates are at least 0, clip is above 0")

    def moving(self, phi: Weights) -> dict[str, float]:
        """The step size of every tensor that moves."""
        rates = {"lora/": self.lr, "head/weight": self.head_lr, "head/bias": self.head_lr}
        found = {key: rate for prefix, rate in rates.items() for key in phi if key.startswith(prefix)}
        return {key: rate for key, rate in found.items() if rate}


Update = Callable[[Any, Weights, Weights, Tensor, dict[str, float]], tuple[Any, Weights]]
"""One step: (its state, None at first; what moves, (T, …) each; its gradient after the clip; the loss (T,); the rate of
each tensor) -> (the state, what moves) afterwards."""


def descent(state: None, moving: Weights, grad: Weights, loss: Tensor, rates: dict[str, float]) -> tuple[None, Weights]:
    """Plain gradient descent."""
    return state, {key: moving[key] - rate * grad[key] for key, rate in rates.items()}


def trajectory(
    loss: Callable[[Weights], Tensor], phi: Weights, inner: Inner, update: Update = descent
) -> Iterator[Weights]:
    """φ after 0, 1, …, `inner.steps` steps. `loss` gives (T,) from a φ with T slices; the slices never mix.

    First order: gradients and losses are constants; the paths from the start and from weights of `update` stay.
    """
    yield phi
    rates, state = inner.moving(phi), None
    for _ in range(inner.steps):
        if rates:
            moving = {key: phi[key] for key in rates}
            state, moved = update(state, moving, *_slope(loss, phi, moving, inner.clip), rates)
            phi = phi | moved
        yield phi


def _slope(loss: Callable[[Weights], Tensor], phi: Weights, moving: Weights, clip: float) -> tuple[Weights, Tensor]:
    """The gradient of each task, shortened to `clip`, and its loss."""
    moving = weights.leaves(moving)
    value = loss(phi | moving)
    # Tasks share no weights, so the gradient of the sum holds each task's own gradient in its slice.
    grad = weights.gradient(value.sum(), moving)
    short = (clip / weights.norm_per_task(grad).clamp(min=1e-12)).clamp(max=1.0)
    return {key: short.view(-1, *[1] * (g.dim() - 1)) * g for key, g in grad.items()}, value.detach()
