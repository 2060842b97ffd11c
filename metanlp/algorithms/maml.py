"""MAML over adapters, with a prototype head: first and second order, and ANIL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

from metanlp.algorithms.base import Cost, Guided, Look, Net, Reader
from metanlp.algorithms.inner import InnerLoop
from metanlp.algorithms.steps import twice_differentiable
from metanlp.core.errors import InputError
from metanlp.core.types import MetaGrad, Pass, Weights


@dataclass(frozen=True)
class Maml(InnerLoop, Guided):
    """Model-agnostic meta-learning: Finn, Abbeel & Levine 2017, arXiv 1703.03400; first order (§5.2) unless
    `second_order`.

    The head starts from the prototypes at θ and keeps that path in the outer gradient: Proto-MAML, Triantafillou et al.
    2020, arXiv 1903.03096; first order on BERT, Holla et al. 2020, arXiv 2004.14355. With `head_only` the inner loop
    moves the head alone: ANIL, Raghu et al. 2020, arXiv 1909.09157.

    `multi_step` is MAML++'s multi-step loss (Antoniou, Edwards & Storkey 2019, arXiv 1810.09502, §4): a mean over the φ
    of all steps. Its weights are constant here, and not annealed towards the last step: the gradient is a function of θ
    and episodes, and knows no clock.
    """

    differentiable: ClassVar[bool] = True

    head_only: bool = False  # adapt the head alone; θ's adapters still learn in the outer loop
    second_order: bool = False  # differentiate through the inner steps: exact, slower, and every step stays in memory
    multi_step: float = 0.0  # share of the outer loss that is spread over the φ of all steps; the rest is the last's

    def __post_init__(self) -> None:
        if not 0 <= self.multi_step <= 1:
            raise InputError(f"multi_step is {self.multi_step}; it is a share, from 0 to 1")
        if self.head_only and self.inner.lr:
            object.__setattr__(self, "inner", replace(self.inner, lr=0.0))

    def looks(self, theta: Weights, support: Reader, query: Reader) -> Iterator[Look]:
        """First order holds the inner gradients fixed: the gradient is that of the query loss at φ, through the
        adapters and through the prototypes that the support set gives there. Second order is the exact gradient."""
        path = self.inner_loop(theta, support, differentiable=self.second_order)
        for step, (share, moved) in enumerate(zip(self.shares(), path, strict=True)):
            if share:
                # In first order the graph of what a step reads is gone when it is taken.
                goes = step < self.inner.steps and self.inner.lr and not self.second_order
                seen = self.features(support.net, moved, support.batch) if goes else support(moved)
                asked = query(moved)
                yield share, self.head.finish(theta, moved, seen, support.batch), seen, asked

    def meta_grad(self, net: Net, theta: Weights, episodes: Pass) -> MetaGrad:
        # Around all of it: beside passes that need it, a call outside would get the one or the other kernel by chance.
        with twice_differentiable() if self.second_order and self.inner.steps else nullcontext():
            return super().meta_grad(net, theta, episodes)

    def shares(self) -> tuple[float, ...]:
        """Weights in the outer loss of the φ after 0, 1, … steps: steps + 1 numbers of sum 1."""
        steps = self.inner.steps
        each = self.multi_step / max(1, steps)
        return (0.0, *[each] * (steps - 1), 1.0 - each * (steps - 1)) if steps else (1.0,)

    def cost(self) -> Cost:
        """A forward and a backward pass of both sides for each φ in the outer loss, all in memory together, and of the
        support rows for each step of adapters; a head alone moves on features that are read once. Second order keeps
        the steps and runs back through them and their backward passes; it reads the evidence about views apart, and
        what a step has read of the support rows serves the outer loss at the same φ."""
        steps, looks = self.inner.steps, sum(map(bool, self.shares()))
        if not self.inner.lr:
            return Cost()
        if self.second_order:
            evidence = min(1, steps)
            return Cost(2 + 2 * evidence + 4 * steps, 2 * looks, 1 + evidence, looks, steps)
        return Cost(2 * looks + 2 * steps, 2 * looks, looks, looks)


@dataclass(frozen=True)
class Anil(Maml):
    """Almost no inner loop: MAML with `head_only`. Raghu et al. 2020, arXiv 1909.09157."""

    head_only: bool = True  # what makes it ANIL
