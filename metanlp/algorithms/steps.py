"""One step of the inner loop: gradient descent, Adam or a learned update, first order or differentiable."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from threading import Lock, get_ident
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from metanlp.core import weights
from metanlp.core.types import Weights

Rates = Mapping[str, float | Tensor]
"""The step size of every tensor that moves, by its key."""
Step = Callable[[Tensor, Weights, Weights, Rates], Weights]
"""From the loss (T,), φ, what moves of it, recording gradients, and the rates, to what moves, one step on."""
Update = Callable[[Any, Weights, Weights, Tensor, Rates], tuple[Any, Weights]]
"""A learned step: from its state (None at first), what moves, (T, …) each, its gradient after the clip, the loss (T,)
and the rates, to the state and what moves afterwards."""

ADAM_EPSILON = 1e-5  # an update has the slope rate / (32 ε) at gradient 0, which is where LoRA's A begins: usual 1e-8
# would let these entries alone make up the second-order gradient; entries above 3e-4 hardly feel the difference


@contextmanager
def twice_differentiable() -> Generator[None]:
    """Within it attention has second derivatives, which the fused kernels lack: also for the outer gradient."""
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


def sgd(loss: Tensor, phi: Weights, moving: Weights, rates: Rates, clip: float, differentiable: bool) -> Weights:
    """Gradient descent: a `Step` once clip and order are given."""
    # Tasks share no weights, so the gradient of the sum holds each task's own gradient in its slice.
    grad = weights.gradient(loss.sum(), moving, differentiable=differentiable)
    short = _shortening(grad, clip)
    return {key: phi[key] - rate * short[key] * grad[key] for key, rate in rates.items()}


def by_update(update: Update, clip: float) -> Step:
    """Steps by a learned update, which keeps its state from step to step."""
    state: Any = None

    def step(loss: Tensor, phi: Weights, moving: Weights, rates: Rates) -> Weights:
        nonlocal state
        grad = weights.gradient(loss.sum(), moving)
        short = _shortening(grad, clip)
        grad = {key: short[key] * g for key, g in grad.items()}
        state, moved = update(state, {key: phi[key] for key in rates}, grad, loss.detach(), rates)
        return moved

    return step


def adam(rates: Mapping[str, float], clip: float, differentiable: bool) -> Step:
    """Adam (Kingma & Ba 2015, with ε̂ as at the end of §2) by `higher` (Grefenstette et al. 2019, arXiv 1910.01727),
    whose optimizers are differentiable. It keeps the rates that it is made with, and its moments from step to step."""
    from higher.optim import get_diff_optim  # only this optimiser needs it

    places = [torch.empty(0) for _ in rates]  # of what moves, which is handed in at each step
    groups = [{"params": [place], "lr": rate} for place, rate in zip(places, rates.values(), strict=True)]
    made = get_diff_optim(torch.optim.Adam(groups, eps=ADAM_EPSILON), places, track_higher_grads=differentiable)

    def step(loss: Tensor, phi: Weights, moving: Weights, _: Rates) -> Weights:
        def shortened(found: Sequence[Tensor | None]) -> list[Tensor]:
            pairs = zip(moving.items(), found, strict=True)
            grad = {key: torch.zeros_like(value) if g is None else g for (key, value), g in pairs}
            short = _shortening(grad, clip)
            return [short[key] * g for key, g in grad.items()]

        stepped = dict(zip(moving, made.step(loss.sum(), moving.values(), grad_callback=shortened), strict=True))
        if differentiable:
            return stepped
        # `moving` are leaves; φ still knows where it started.
        return {key: phi[key] + (value - moving[key]).detach() for key, value in stepped.items()}

    return step


def _shortening(grad: Weights, clip: float) -> Weights:
    """The factor that brings each task's gradient to length `clip` at the most, for each tensor: (T, 1, …)."""
    factor = (clip / weights.norm_per_task(grad).clamp(min=1e-12)).clamp(max=1.0)
    return {key: factor.view(-1, *[1] * (value.dim() - 1)) for key, value in grad.items()}
