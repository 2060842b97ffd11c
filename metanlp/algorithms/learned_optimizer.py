"""A learned optimizer: an LSTM takes the steps of the inner loop.

Letters: T tasks, n coordinates of what moves, H hidden units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from metanlp.algorithms.maml import Maml
from metanlp.algorithms.steps import Rates, Update
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Weights

SMALL = 10.0  # p: gradients below e^-p count as small
PART = 2**15  # coordinates whose step is computed in one go: 4 MB an intermediate result of 8 units


@dataclass(frozen=True)
class LearnedOptimizer(Maml):
    """Ravi & Larochelle 2017, "Optimization as a model for few-shot learning": what the inner loop moves is the cell
    state of an LSTM, c ← f ∘ c − i ∘ ∇ (§3.1), and θ its first. A second LSTM below it reads each coordinate's
    gradient and the loss; both have the same weights for all coordinates, `optimizer/…` in θ.

    At the start f is near 1 and i the rate of plain gradient descent. Inner gradients and losses are held fixed in the
    outer gradient, as in the paper (§3.3). Gates lie between 0 and 1, and so must rates.
    """

    differentiable: ClassVar[bool] = False

    hidden: int = 8  # units of the LSTM that reads gradients; each coordinate has its own
    forget: float = 8.0  # logit of the forget gate at the start: a step then shrinks weights by 0.03 %

    def __post_init__(self) -> None:
        super().__post_init__()
        if max(self.inner.lr, self.inner.head_lr) > 1:
            raise InputError(f"{self.inner}: rates of learned_optimizer are gates, between 0 and 1; give smaller ones")
        if self.second_order or self.inner.optimiser != "sgd":
            raise InputError("learned_optimizer is first order and takes the steps itself; leave both as they are")

    def network(self, theta: Weights, width: int, generator: torch.Generator) -> Weights:
        return {f"optimizer/{key}": value for key, value in start(self.hidden, self.forget, generator).items()}

    def update(self, theta: Weights) -> Update:
        return partial(update, weights.pick_inside(theta, "optimizer/"))


def start(hidden: int, forget: float, generator: torch.Generator) -> Weights:
    """Weights that make plain gradient descent: the LSTM is random, and the gates do not look at it yet."""
    fan_in = 4 + hidden
    random = torch.rand(fan_in, 4 * hidden, generator=generator)
    return {
        "lstm/weight": (2 * random - 1) / math.sqrt(fan_in),
        "lstm/bias": torch.zeros(4 * hidden),
        "gates/weight": torch.zeros(hidden + 1, 2),
        "gates/before": torch.zeros(2),
        "gates/bias": torch.tensor([forget, 0.0]),
    }


def update(
    w: Weights, state: list[Tensor] | None, moving: Weights, grad: Weights, loss: Tensor, rates: Rates
) -> tuple[list[Tensor], Weights]:
    """One step of all that moves, (T, …) each: an `Update` of the inner loop, once `w` is given. The gradient for `w`
    computes each step again: kept are the states, and of the LSTM's insides those of one part at a time."""
    shapes = {key: moving[key].shape for key in rates}
    c, g = (torch.cat([side[key].flatten(1) for key in rates], 1).split(PART, 1) for side in (moving, grad))
    logits = {key: math.inf if rate == 1 else math.log(rate / (1 - rate)) for key, rate in rates.items()}
    prior = torch.cat([loss.new_full((shapes[key][1:].numel(),), logit) for key, logit in logits.items()])
    states = state or [part.new_zeros(*part.shape, len(w["lstm/bias"]) // 2 + 2) for part in g]
    stepped = [
        checkpoint(step, w, *part, loss, use_reentrant=False, preserve_rng_state=False)
        for part in zip(states, c, g, prior.split(PART), strict=True)
    ]
    moved = torch.cat([part for _, part in stepped], 1).split([shape[1:].numel() for shape in shapes.values()], 1)
    together = zip(shapes.items(), moved, strict=True)
    return [part for part, _ in stepped], {key: value.reshape(shape) for (key, shape), value in together}


def step(w: Weights, state: Tensor, c: Tensor, grad: Tensor, prior: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
    """The step itself, coordinate by coordinate: from the state (T, n, 2 H + 2), which is the LSTM's hidden state, its
    cell and the last f and i, c and its gradient (T, n), the logit of its rate (n,) and the loss (T,)."""
    size = len(w["lstm/bias"]) // 4
    hidden, cell, gates = state.split([size, size, 2], -1)
    seen = squash(torch.stack([grad, loss[:, None].expand_as(grad)], -1)).flatten(2)
    i, f, o, new = (torch.cat([seen, hidden], -1) @ w["lstm/weight"] + w["lstm/bias"]).chunk(4, -1)
    cell = f.sigmoid() * cell + i.sigmoid() * new.tanh()
    hidden = o.sigmoid() * cell.tanh()
    logits = torch.cat([hidden, c[..., None]], -1) @ w["gates/weight"] + w["gates/before"] * gates
    forget, take = (logits + w["gates/bias"]).unbind(-1)
    gates = torch.stack([forget.sigmoid(), (take + prior).sigmoid()], -1)
    return torch.cat([hidden, cell, gates], -1), gates[..., 0] * c - gates[..., 1] * grad


def squash(x: Tensor) -> Tensor:
    """Size and sign apart, both between −1 and 1 or little more: (…) -> (…, 2). Andrychowicz et al. 2016,
    arXiv 1606.04474, appendix A, p = 10."""
    small = x.abs() < math.exp(-SMALL)
    size = torch.where(small, -1.0, x.abs().clamp(min=math.exp(-SMALL)).log() / SMALL)
    return torch.stack([size, torch.where(small, x * math.exp(SMALL), x.sign())], -1)
