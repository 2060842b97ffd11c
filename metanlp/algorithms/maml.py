"""MAML over adapters, with a prototype head: first and second order, and ANIL."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metanlp import weights
from metanlp.algorithms.base import Algorithm, Net
from metanlp.errors import InputError
from metanlp.inner import twice_differentiable
from metanlp.types import Batch, MetaGrad, Pass, Weights


@dataclass(frozen=True)
class Maml(Algorithm):
    """Model-agnostic meta-learning: Finn, Abbeel & Levine 2017, arXiv 1703.03400; first order (§5.2) unless
    `second_order`.

    The head starts from the prototypes at θ and keeps that path in the outer gradient: Proto-MAML, Triantafillou et al.
    2020, arXiv 1903.03096; first order on BERT, Holla et al. 2020, arXiv 2004.14355. With `head_only` the inner loop
    moves the head alone: ANIL, Raghu et al. 2020, arXiv 1909.09157.

    Where `classes` names the training tasks, the linear heads of multi-task learning help: prototypes of a few rows say
    little about entailment before the features do. Their loss, on the same features, is added with the weight `guide`.

    `multi_step` is MAML++'s multi-step loss (Antoniou, Edwards & Storkey 2019, arXiv 1810.09502, §4): the outer loss is
    a mean over the φ of all steps. There the weights move from all alike (1 here) to the last step alone (0) while
    training; a gradient that is a function of θ and episodes knows no such clock, so here they stay.
    """

    guide: float = 1.0  # weight of the training tasks' own linear heads in the outer loss, where `classes` names them
    head_only: bool = False  # adapt the head alone; θ's adapters still learn in the outer loop
    second_order: bool = False  # differentiate through the inner steps: exact, slower, and every step stays in memory
    multi_step: float = 0.0  # share of the outer loss that is spread over the φ of all steps; the rest is the last's

    def __post_init__(self) -> None:
        if not 0 <= self.multi_step <= 1:
            raise InputError(f"multi_step is {self.multi_step}; it is a share, from 0 to 1")
        if self.head_only and self.inner.lr:
            object.__setattr__(self, "inner", replace(self.inner, lr=0.0))

    def meta_grad(self, net: Net, theta: Weights, episodes: Pass) -> MetaGrad:
        """First order holds the inner gradients fixed: the gradient is that of the query loss at φ, through the
        adapters and through the prototypes that the support set gives there. Second order is the exact gradient."""
        theta = weights.leaves(theta)
        # Around all of it: beside passes that need it, a call outside would get the one or the other kernel by chance.
        with twice_differentiable() if self.second_order and self.inner.steps else nullcontext():
            support, query = net.with_trunk(episodes.support), net.with_trunk(episodes.query)
            at_hand = Pass(episodes.episodes, support, query)
            path = self.inner_loop(net, theta, support, differentiable=self.second_order)
            losses = [
                (share, *self._losses(net, theta, moved, at_hand))
                for share, moved in zip(self.shares(), path, strict=True)
                if share
            ]
            outer = torch.stack([share * asked for share, _, asked in losses])
            grad = weights.gradient(outer.sum(), theta)
        return MetaGrad(grad, losses[-1][1].detach(), self._work(net, support, query))

    def shares(self) -> tuple[float, ...]:
        """What the query losses of the φ after 0, 1, … steps count in the outer loss: steps + 1 numbers of sum 1."""
        steps = self.inner.steps
        if not steps:
            return (1.0,)
        each = self.multi_step / steps
        return (0.0, *[each] * (steps - 1), 1.0 - each * (steps - 1))

    def _losses(self, net: Net, theta: Weights, moved: Weights, episodes: Pass) -> tuple[Tensor, Tensor]:
        """The query loss of φ, and what the outer loop minimises: (T,) each."""
        adapters = weights.pick(moved, "lora/")
        seen, asked = net.features(adapters, episodes.support), net.features(adapters, episodes.query)
        phi = self.head.finish(theta, moved, seen, episodes.support)
        loss = self.scores_loss(self.head.scores(phi, asked, episodes.query), episodes.query)
        sides = [(seen, episodes.support), (asked, episodes.query)]
        return loss, loss + self.guide * self.tasks_loss(theta, sides, episodes.episodes)

    def _work(self, net: Net, support: Batch, query: Batch) -> int:
        """Forward and backward: two passes over both sides for each φ that is asked, two over the support set for each
        step of adapters, and one for the evidence about views. What runs before φ runs back again in second order, the
        backward passes too."""
        looks, steps = sum(map(bool, self.shares())), self._steps_of_adapters()
        inside = min(1, self.inner.steps) + 2 * steps
        return net.work(support, 2 * looks + inside * (1 + self.second_order)) + net.work(query, 2 * looks)

    def _steps_of_adapters(self) -> int:
        return self.inner.steps if self.inner.lr else 0

    def kept(self, support: int, query: int) -> tuple[int, int]:
        """All φ that are asked stay side by side; second order keeps the pass for the evidence about views, and every
        step of adapters."""
        asked = sum(map(bool, self.shares())) * (support + query)
        if not self.second_order:
            return asked, 0
        return asked + min(1, self.inner.steps) * support, self._steps_of_adapters() * support

    def recipes(self) -> tuple[Algorithm, ...]:
        return gradient_recipes(self)


@dataclass(frozen=True)
class Anil(Maml):
    """Almost no inner loop: MAML with `head_only`. Raghu et al. 2020, arXiv 1909.09157."""

    head_only: bool = True  # what makes it ANIL


def gradient_recipes(algorithm: Algorithm) -> tuple[Algorithm, ...]:
    """Rates of the inner loop to try, its own first; step counts are read off one trajectory and not listed."""
    inner, unit = algorithm.inner, 0.01 if algorithm.inner.optimiser == "adam" else 1.0
    rates = [(inner.lr, inner.head_lr), (0.0, unit), (0.5 * unit, 0.5 * unit)]
    inners = [replace(inner, steps=max(5, inner.steps), lr=lr, head_lr=head_lr) for lr, head_lr in rates]
    return tuple(dict.fromkeys(replace(algorithm, inner=inner) for inner in inners))
