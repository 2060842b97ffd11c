"""The inner loop: gradient steps on a support set, each task on its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle

import torch
from torch import Tensor

from metanlp.algorithms.base import Adaptations, Algorithm, Inner, Net, Reader
from metanlp.algorithms.readout import Factors, Readout
from metanlp.algorithms.steps import Rates, Step, Update, adam, by_update, sgd
from metanlp.core import weights
from metanlp.core.types import Batch, Weights
from metanlp.forms import OBJECTIVES
from metanlp.forms.heads.base import balanced


@dataclass(frozen=True)
class InnerLoop(Readout):
    """Methods that adapt by gradient steps: φ is the adapters that they lead to, and the head that the support set
    gives through these. A method of its own has to say what the meta-gradient is."""

    def adapting(self, net: Net, theta: Weights, support: Batch, steps: Collection[int]) -> Adaptations:
        theta, rows = weights.detach(theta), Reader(net, support)
        for step, moved, features, factors in self._read_after(steps, theta, rows):
            head = self.read_head(theta, moved, features, rows.batch, factors)
            yield step, weights.detach(weights.pick(moved, "lora/") | head)

    def left_out(self, net: Net, theta: Weights, support: Batch) -> tuple[Tensor, Tensor]:
        """By a head without the row. The inner steps have seen every row: after many of them the scores flatter."""
        theta, rows = weights.detach(theta), Reader(net, support)
        ((_, moved, features, factors),) = self._read_after([self.inner.steps], theta, rows)
        with torch.no_grad():
            return self.read_left_out(theta, moved, features, rows.batch, factors)

    def _read_after(
        self, steps: Collection[int], theta: Weights, support: Reader
    ) -> Iterator[tuple[int, Weights, Tensor, Factors | None]]:
        """After those of `steps`: what has moved, features there, and the factors of a mixture. Where there are steps
        these are from before the first, as rows that were learned from flatter whatever scores them."""
        factors = None
        for step, moved in enumerate(self.inner_loop(theta, support)):
            if not step or step in steps:
                with torch.set_grad_enabled(step < self.inner.steps):  # the next step differentiates what is read here
                    features = support(moved).detach()
                if not step and self.inner.steps:
                    factors = self.factors(theta, moved, features, support.batch)
                if step in steps:
                    yield step, moved, features, factors

    def inner_loop(
        self, theta: Weights, support: Reader, *others: Reader, differentiable: bool = False
    ) -> Iterator[Weights]:
        """What moves, after 0, 1, … steps: the adapters from θ and the head's residual from zero, (T, …) each; and with
        any steps the evidence about views at θ, which stays. Functions of θ, first order or `differentiable`. Where
        there are `others`, steps take turns with them as support sets."""
        batch, evidence, turns = support.batch, Weights(), cycle((support, *others))
        begin = weights.expand(weights.pick(theta, "lora/"), batch.count_tasks)
        begin |= self.head.residual(len(support.net.view_names) * support.net.width, batch)

        def loss(moved: Weights) -> Tensor:
            side = next(turns)
            return self.support_loss(theta, moved | evidence, side(moved), side.batch)

        rates, update = self.rates(theta, begin), self.update(theta)
        for moved in trajectory(loss, begin, self.inner, rates, update=update, differentiable=differentiable):
            if self.inner.steps and not evidence:
                # The first step differentiates what is read here and holds the evidence fixed. Where second order
                # differentiates that step, the evidence needs a graph of its own.
                apart = differentiable and self.inner.lr
                features = Reader(support.net, batch)(theta) if apart else support(moved)
                with torch.set_grad_enabled(differentiable):
                    evidence |= self.head.evidence(theta, features if differentiable else features.detach(), batch)
            yield moved | evidence

    def support_loss(self, theta: Weights, moved: Weights, features: Tensor, support: Batch) -> Tensor:
        """What inner steps minimise: (N, V, D) -> (T,). Each row is scored by a head without itself, and every class
        counts alike."""
        scores, counted = self.head.left_out(theta, moved, features, support)
        objective = OBJECTIVES[support.form]
        if objective.by_class:
            scores, counted = balanced(scores, counted, support)
        # A step size that suits classes then suits numbers too.
        return objective.loss(scores, support, counted) / objective.curvature

    def rates(self, theta: Weights, keys: Iterable[str]) -> Sequence[Rates]:
        """Step sizes of what moves, for each inner step in turn; `keys` are those of all that could."""
        return [self.inner.moving(keys)] * self.inner.steps

    def update(self, theta: Weights) -> Update | None:
        """What takes the inner steps in place of `inner`'s optimiser."""
        return None

    def recipes(self) -> tuple[Algorithm, ...]:
        """Rates of the inner loop to try, its own first, read by a mixture; and its own as they were trained. Step
        counts are read off one trajectory and not listed."""
        inner, unit = self.inner, 0.01 if self.inner.optimiser == "adam" else 1.0
        rates = [(inner.lr, inner.head_lr), (0.0, unit), (0.5 * unit, 0.5 * unit)]
        inners = [replace(inner, steps=max(5, inner.steps), lr=lr, head_lr=head_lr) for lr, head_lr in rates]
        return self.each_mixed([replace(self, inner=inner) for inner in inners])


def trajectory(
    loss: Callable[[Weights], Tensor],
    phi: Weights,
    inner: Inner,
    rates: Sequence[Rates] | None = None,
    *,
    update: Update | None = None,
    differentiable: bool = False,
) -> Iterator[Weights]:
    """φ after 0, 1, …, `inner.steps` steps. `loss` gives (T,) from a φ with T slices; the slices never mix. A step
    differentiates the very tensors that came before it: those that move record gradients.

    `rates` are those of each step in turn, by default `inner`'s; an `update` replaces `inner`'s optimiser. First order:
    gradients and losses are constants; the paths from the start, from rates and from weights of `update` stay.
    `differentiable` steps are functions of all that `loss` depends on, at the price of keeping every step; what moves
    of `phi` then has to record gradients, and attention to be `twice_differentiable`.
    """
    plain = inner.moving(phi)
    step: Step = partial(sgd, clip=inner.clip, differentiable=differentiable)
    if update:
        step = by_update(update, inner.clip)
    elif inner.optimiser == "adam" and plain:
        step = adam(plain, inner.clip, differentiable)
    for now in [plain] * inner.steps if rates is None else rates:
        moving = {key: phi[key] if phi[key].requires_grad else phi[key].detach().requires_grad_() for key in now}
        yield phi | moving
        if now:
            phi = phi | step(loss(phi | moving), phi, moving, now)
    yield phi


def last(path: Iterable[Weights]) -> Weights:
    """φ after all steps; earlier ones are let go on the way, so that memory does not grow with steps."""
    return deque(path, maxlen=1)[0]
