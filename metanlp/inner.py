"""The inner loop: gradient steps on a support set, each task on its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Lock, get_ident
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from metanlp import weights
from metanlp.errors import InputError
from metanlp.types import Weights

Loss = Callable[[Weights], Tensor]
Rates = Mapping[str, float | Tensor]
"""The step size of every tensor that moves, by its key."""
Step = Callable[[Tensor, Weights, Weights, Rates], Weights]
"""From the loss (T,), φ, what moves of it, recording gradients, and the rates, to what moves, one step on."""
Update = Callable[[Any, Weights, Weights, Tensor, Rates], tuple[Any, Weights]]
"""A learned step: (its state, None at first; what moves, (T, …) each; its gradient after the clip; the loss (T,); the
rate of each tensor) -> (the state, what moves) afterwards."""

ADAM_EPSILON = 1e-5  # an update has the slope rate / (32 ε) at gradient 0, which is where LoRA's A begins: usual 1e-8
# would let these entries alone make up the second-order gradient; entries above 3e-4 hardly feel the difference


@dataclass(frozen=True)
class Inner:
    """Gradient descent from θ on one support set."""

    steps: int = 5  # number of updates
    lr: float = 0.1  # step size of the adapters; 0 leaves them alone and the inner loop touches the head only
    head_lr: float = 0.1  # step size of the head
    clip: float = 1.0  # longest gradient of a task, over all that moves; longer ones are shortened to it
    optimiser: Literal["sgd", "adam"] = "sgd"  # adam starts anew on each task; it wants rates of about 0.001

    def __post_init__(self) -> None:
        if self.steps < 0 or self.lr < 0 or self.head_lr < 0 or self.clip <= 0:
            raise InputError(f"{self} is not possible: steps and rates are at least 0, clip is above 0")

    def moving(self, keys: Iterable[str]) -> dict[str, float]:
        """The step size of every tensor that moves."""
        rates = {"lora/": self.lr, "head/weight": self.head_lr, "head/bias": self.head_lr}
        found = {key: rate for prefix, rate in rates.items() for key in keys if key.startswith(prefix)}
        return {key: rate for key, rate in found.items() if rate}


def trajectory(
    loss: Loss,
    phi: Weights,
    inner: Inner,
    rates: Sequence[Rates] | None = None,
    *,
    update: Update | None = None,
    differentiable: bool = False,
) -> Iterator[Weights]:
    """φ after 0, 1, …, `inner.steps` steps. `loss` gives (T,) from a φ with T slices; the slices never mix.

    `rates` are those of each step in turn, by default `inner`'s; an `update` takes the place of `inner`'s optimiser.
    First order: gradients and losses are constants, while the paths from the start, from rates and from weights of
    `update` stay. `differentiable` steps are functions of everything that `loss` depends on too, at the price of
    keeping every step; what moves of `phi` then records gradients, and attention has to be `twice_differentiable`.
    """
    yield phi
    plain = inner.moving(phi)
    step: Step = partial(_sgd, clip=inner.clip, differentiable=differentiable)
    if update:
        step = _by(update, inner.clip)
    elif inner.optimiser == "adam" and plain:
        step = _adam(plain, inner.clip, differentiable)
    for now in [plain] * inner.steps if rates is None else rates:
        if now:
            moving = {key: phi[key] for key in now}
            moving = moving if differentiable else weights.leaves(moving)
            phi = phi | step(loss(phi | moving), phi, moving, now)
        yield phi


def last(path: Iterable[Weights]) -> Weights:
    """φ after all steps; those before are let go as it is found, so that memory does not grow with steps."""
    return deque(path, maxlen=1)[0]


@contextmanager
def twice_differentiable() -> Generator[None]:
    """Within it, attention has second derivatives; the fused kernels have none. Also for the outer gradient."""
    with _lock:  # torch has one choice of kernels for all threads: the first to come makes it, the last takes it back
        if not _within:
            _chosen.enter_context(sdpa_kernel(SDPBackend.MATH))
        _within.append(get_ident())
    try:
        yield
    finally:
        with _lock:
            _within.remove(get_ident())
            if not _within:
                _chosen.close()


_lock, _within, _chosen = Lock(), list[int](), ExitStack()


def _sgd(loss: Tensor, phi: Weights, moving: Weights, rates: Rates, clip: float, differentiable: bool) -> Weights:
    # Tasks share no weights, so the gradient of the sum holds each task's own gradient in its slice.
    grad = weights.gradient(loss.sum(), moving, differentiable=differentiable)
    short = _shortening(grad, clip)
    return {key: phi[key] - rate * _beside(short, phi[key]) * grad[key] for key, rate in rates.items()}


def _by(update: Update, clip: float) -> Step:
    """Steps by a learned update, which keeps its state from step to step."""
    state: Any = None

    def step(loss: Tensor, phi: Weights, moving: Weights, rates: Rates) -> Weights:
        nonlocal state
        grad = weights.gradient(loss.sum(), moving)
        short = _shortening(grad, clip)
        grad = {key: _beside(short, g) * g for key, g in grad.items()}
        state, moved = update(state, {key: phi[key] for key in rates}, grad, loss.detach(), rates)
        return moved

    return step


def _adam(rates: Mapping[str, float], clip: float, differentiable: bool) -> Step:
    """Adam (Kingma & Ba 2015, with ε̂ as at the end of §2) by `higher` (Grefenstette et al. 2019, arXiv 1910.01727),
    whose optimizers are differentiable. It keeps the rates that it is made with, and its moments from step to step."""
    from higher.optim import get_diff_optim  # only this optimiser needs it

    places = [torch.empty(0) for _ in rates]  # of what moves, which is handed in at each step
    groups = [{"params": [place], "lr": rate} for place, rate in zip(places, rates.values(), strict=True)]
    adam = get_diff_optim(torch.optim.Adam(groups, eps=ADAM_EPSILON), places, track_higher_grads=differentiable)

    def step(loss: Tensor, phi: Weights, moving: Weights, _: Rates) -> Weights:
        def shortened(found: Sequence[Tensor | None]) -> list[Tensor]:
            pairs = zip(moving.items(), found, strict=True)
            grad = {key: torch.zeros_like(value) if g is None else g for (key, value), g in pairs}
            short = _shortening(grad, clip)
            return [_beside(short, g) * g for g in grad.values()]

        stepped = dict(zip(moving, adam.step(loss.sum(), moving.values(), grad_callback=shortened), strict=True))
        if differentiable:
            return stepped
        # `moving` are leaves; φ still knows where it started.
        return {key: phi[key] + (value - moving[key]).detach() for key, value in stepped.items()}

    return step


def _shortening(grad: Weights, clip: float) -> Tensor:
    """The factor that brings each task's gradient to length `clip` at the most: (T,)."""
    return (clip / weights.norm_per_task(grad).clamp(min=1e-12)).clamp(max=1.0)


def _beside(factor: Tensor, value: Tensor) -> Tensor:
    """(T,) -> (T, 1, …) with as many axes as `value`."""
    return factor.view(-1, *[1] * (value.dim() - 1))
