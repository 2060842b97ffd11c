"""A learned optimizer: an LSTM takes the steps of the inner loop.

Letters: T tasks, n coordinates of what moves, H hidden units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from metanlp import weights
from metanlp.algorithms.base import Net
from metanlp.algorithms.maml import Maml
from metanlp.errors import InputError
from metanlp.inner import Rates, Update
from metanlp.types import Weights

SMALL = 10.0  # p: gradients below e^-p count as small
PART = 2**15  # coordinates whose step is computed in one go: 4 MB an intermediate result of 8 units


@dataclass(frozen=True)
class LearnedOptimizer(Maml):
    """Ravi & Larochelle 2017, "Optimization as a model for few-shot learning": what the inner loop moves is the cell
    state of an LSTM, c ← f ∘ c − i ∘ ∇ (§3.1), and θ its first. A second LSTM below it reads each coordinate's
    gradient and the loss; both have the same weights for all coordinates, `optimizer/…` in θ.

    At the start f is near 1 and i the rate of plain gradient descent. Inner gradients and losses are held fixed in the
    outer gradient, as in the paper (§3.3). A gate lies between 0 and 1, and so must rates.
    """

    hidden: int = 8  # units of the LSTM that reads gradients; each coordinate has its own
    forget: float = 8.0  # logit of the forget gate at the start: a step then shrinks weights by 0.03 %

    def __post_init__(self) -> None:
        super().__post_init__()
        if max(self.inner.lr, self.inner.head_lr) > 1:
            raise InputError(f"{self.inner}: rates of learned_optimizer are gates, between 0 and 1; give smaller ones")
        if self.second_order or self.inner.optimiser != "sgd":
            raise InputError("learned_optimizer is first order and takes the steps itself; leave both as they are")

    def init(self, net: Net, generator: torch.Generator) -> Weights:
        theta = super().init(net, generator)
        own = weights.to(start(self.hidden, self.forget, generator), next(iter(theta.values())).device)
        return theta | {f"optimizer/{key}": value for key, value in own.items()}

    def update(self, theta: Weights) -> Update:
        return partial(update, weights.pick_inside(theta, "optimizer/"))


class State(NamedTuple):
    """What is remembered of n coordinates."""

    hidden: Tensor  # (T, n, H)
    cell: Tensor  # (T, n, H)
    gates: Tensor  # (T, n, 2) f and i of the last step


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
    w: Weights, state: list[State] | None, moving: Weights, grad: Weights, loss: Tensor, rates: Rates
) -> tuple[list[State], Weights]:
    """One step of all that moves, (T, …) each: an `Update` of the inner loop, once `w` is given. The gradient for `w`
    computes each step again: kept are the states, and of the LSTM's insides those of one part at a time."""
    shapes = {key: moving[key].shape for key in rates}
    c, g = (torch.cat([side[key].flatten(1) for key in rates], 1).split(PART, 1) for side in (moving, grad))
    prior = torch.cat([loss.new_full((shapes[key][1:].numel(),), _logit(rate)) for key, rate in rates.items()])
    states = state or [_nothing(part, len(w["lstm/bias"]) // 4) for part in g]
    stepped = [
        checkpoint(step, w, *part, loss, use_reentrant=False, preserve_rng_state=False)
        for part in zip(states, c, g, prior.split(PART), strict=True)
    ]
    moved = torch.cat([part for _, part in stepped], 1).split([shape[1:].numel() for shape in shapes.values()], 1)
    together = zip(shapes.items(), moved, strict=True)
    return [part for part, _ in stepped], {key: value.reshape(shape) for (key, shape), value in together}


def step(w: Weights, state: State, c: Tensor, grad: Tensor, prior: Tensor, loss: Tensor) -> tuple[State, Tensor]:
    """The step itself, coordinate by coordinate: c and its gradient (T, n), the logit of its rate (n,), loss (T,)."""
    seen = squash(torch.stack([grad, loss[:, None].expand_as(grad)], -1)).flatten(2)
    i, f, o, new = (torch.cat([seen, state.hidden], -1) @ w["lstm/weight"] + w["lstm/bias"]).chunk(4, -1)
    cell = f.sigmoid() * state.cell + i.sigmoid() * new.tanh()
    hidden = o.sigmoid() * cell.tanh()
    logits = torch.cat([hidden, c[..., None]], -1) @ w["gates/weight"] + w["gates/before"] * state.gates
    forget, take = (logits + w["gates/bias"]).unbind(-1)
    forget, take = forget.sigmoid(), (take + prior).sigmoid()
    return State(hidden, cell, torch.stack([forget, take], -1)), forget * c - take * grad


def squash(x: Tensor) -> Tensor:
    """Size and sign apart, both between −1 and 1 or little more: (…) -> (…, 2). Andrychowicz et al. 2016,
    arXiv 1606.04474, appendix A, p = 10."""
    small = x.abs() < math.exp(-SMALL)
    size = torch.where(small, -1.0, x.abs().clamp(min=math.exp(-SMALL)).log() / SMALL)
    return torch.stack([size, torch.where(small, x * math.exp(SMALL), x.sign())], -1)


def _nothing(like: Tensor, hidden: int) -> State:
    zeros = like.new_zeros(*like.shape, 2 * hidden + 2)
    return State(*zeros.split([hidden, hidden, 2], -1))


def _logit(rate: float | Tensor) -> float:
    return math.inf if rate == 1 else math.log(rate / (1 - rate))
