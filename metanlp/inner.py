"""The inner loop: gradient steps on a support set, each task on its own, first order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

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


def trajectory(loss: Callable[[Weights], Tensor], phi: Weights, inner: Inner) -> Iterator[Weights]:
    """φ after 0, 1, …, `inner.steps` steps. `loss` gives (T,) from a φ with T slices; the slices never mix."""
    phi = weights.detach(phi)
    yield phi
    rates = inner.moving(phi)
    for _ in range(inner.steps):
        phi = _step(loss, phi, rates, inner.clip) if rates else phi
        yield phi


def _step(loss: Callable[[Weights], Tensor], phi: Weights, rates: dict[str, float], clip: float) -> Weights:
    moving = weights.leaves({key: phi[key] for key in rates})
    # Tasks share no weights, so the gradient of the sum holds each task's own gradient in its slice.
    grad = weights.gradient(loss(phi | moving).sum(), moving)
    short = (clip / weights.norm_per_task(grad).clamp(min=1e-12)).clamp(max=1.0)
    stepped = {
        key: phi[key] - rate * short.view(-1, *[1] * (phi[key].dim() - 1)) * grad[key] for key, rate in rates.items()
    }
    return phi | stepped
