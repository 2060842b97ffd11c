"""The contract: an algorithm is four pure functions over weights. Nothing here knows of files, texts or processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from metanlp import weights
from metanlp.forms import FORMS
from metanlp.heads import Heads, linear_scores
from metanlp.inner import Inner, Rates, Update, last, trajectory
from metanlp.types import Batch, Episode, MetaGrad, Pass, Weights

Sides = Sequence[tuple[Tensor, Batch]]
"""Features (N, V, D) and the batch they were read off: the support set and the query rows of a pass."""


class Net(Protocol):
    """What an algorithm needs of a backbone."""

    width: int  # D, features a view

    @property
    def view_names(self) -> tuple[str, ...]:
        """V names."""
        ...

    def init(self, generator: torch.Generator) -> Weights:
        """Adapters that change nothing yet, no task axis."""
        ...

    def with_trunk(self, batch: Batch) -> Batch:
        """The batch with what the frozen model alone says of it, computed once."""
        ...

    def features(self, w: Weights, batch: Batch) -> Tensor:
        """Of every unit under the adapters of its task: (N, V, D)."""
        ...

    def work(self, batch: Batch, passes: int) -> int:
        """Tokens through the whole stack: once frozen, and `passes` times, forward or backward, where it is adapted."""
        ...


@dataclass(frozen=True)
class Algorithm(ABC):
    """A frozen dataclass whose fields are its configuration. θ in, φ out; neither is ever changed in place."""

    forms: ClassVar[tuple[str, ...]] = tuple(FORMS)  # what tasks it can learn, by their form

    inner: Inner = Inner()  # how it adapts to a support set
    head: Heads = Heads()  # from features to scores
    classes: tuple[tuple[str, int], ...] = ()  # training tasks with a linear head in θ, and how many classes each

    def init(self, net: Net, generator: torch.Generator) -> Weights:
        """θ before any training: adapters, the head's part, and for each of `classes` a linear head of zeros,
        `tasks/NAME/weight` (K, V·D) and `tasks/NAME/bias` (K,)."""
        theta = net.init(generator)
        like = next(iter(theta.values()))
        width = len(net.view_names) * net.width
        heads: Weights = {}
        for name, count in self.classes:
            heads[f"tasks/{name}/weight"] = like.new_zeros(count, width)
            heads[f"tasks/{name}/bias"] = like.new_zeros(count)
        return theta | weights.to(self.head.init(len(net.view_names), net.width), like.device) | heads

    def adapt(self, net: Net, theta: Weights, support: Batch) -> Weights:
        """φ for the T tasks of a support batch, one slice a task. θ stays as it was."""
        ((_, phi),) = self.adapting(net, theta, support, [self.inner.steps])
        return phi

    def adapting(
        self, net: Net, theta: Weights, support: Batch, steps: Collection[int]
    ) -> Iterator[tuple[int, Weights]]:
        """Number of inner steps and φ after them, for those of `steps` that the inner loop passes."""
        support, theta = net.with_trunk(support), weights.detach(theta)
        for step, moved in enumerate(self.inner_loop(net, theta, support)):
            if step in steps:
                with torch.no_grad():
                    phi = self.finish(net, theta, moved, support)
                yield step, phi

    def left_out(self, net: Net, theta: Weights, support: Batch) -> tuple[Tensor, Tensor]:
        """Support units scored after adaptation, each by a head without itself: (N, K), and which of them count, 1 or
        0: (N,); one that is alone in its class does not. The inner loop runs anew, and its steps have seen every
        row: after many of them the scores flatter."""
        support, theta = net.with_trunk(support), weights.detach(theta)
        moved = last(self.inner_loop(net, theta, support))
        with torch.no_grad():
            features = net.features(weights.pick(moved, "lora/"), support)
            return self.head.left_out(theta, moved, features, support)

    def scores(self, net: Net, phi: Weights, batch: Batch) -> Tensor:
        """(N, K), −inf beyond a task's own classes."""
        return self.head.scores(phi, net.features(phi, batch), batch)

    @abstractmethod
    def meta_grad(self, net: Net, theta: Weights, episodes: Pass) -> MetaGrad:
        """The gradient of θ that a pass of episodes asks for."""

    def kept(self, support: int, query: int) -> tuple[int, int]:
        """What a meta-gradient keeps graphs of at once, for episodes with so many support and query rows: rows that go
        through the model, one as often as it does, and rows of inner steps that are differentiated themselves."""
        return support + query, 0

    # what most algorithms share

    def inner_loop(
        self, net: Net, theta: Weights, support: Batch, *, differentiable: bool = False
    ) -> Iterator[Weights]:
        """What moves, after 0, 1, … steps: the adapters from θ and the head's residual from zero, (T, …) each; and with
        any steps the evidence about views at θ, which stays. As functions of θ they are first order, or
        `differentiable` in all of it."""
        start = weights.pick(theta, "lora/")
        residual = self.head.residual(len(net.view_names) * net.width, support)
        begin = weights.expand(start, support.count_tasks)
        begin |= weights.leaves(residual) if differentiable else residual
        fixed: Tensor | None = None
        if self.inner.steps:
            with torch.set_grad_enabled(differentiable):
                at_theta = net.features(start, support)
                begin |= self.head.evidence(theta, at_theta, support)
            fixed = None if self.inner.lr else at_theta  # a head alone needs the features only once

        def loss(moved: Weights) -> Tensor:
            return self.support_loss(theta, moved, net.features(moved, support) if fixed is None else fixed, support)

        rates, update = self.rates(theta, begin), self.update(theta)
        return trajectory(loss, begin, self.inner, rates, update=update, differentiable=differentiable)

    def update(self, theta: Weights) -> Update | None:
        """What takes the inner steps in place of `inner`'s optimiser."""
        return None

    def support_loss(self, theta: Weights, moved: Weights, features: Tensor, support: Batch) -> Tensor:
        """What inner steps minimise: (N, V, D) -> (T,). Each row is scored by a head without itself."""
        scores, counted = self.head.left_out(theta, moved, features, support)
        # A step size that suits classes then suits numbers too.
        return FORMS[support.form].loss(scores, support, counted) / FORMS[support.form].curvature

    def rates(self, theta: Weights, keys: Iterable[str]) -> Sequence[Rates]:
        """Step sizes of what moves, for each inner step in turn; `keys` are those of all that could."""
        return [self.inner.moving(keys)] * self.inner.steps

    def finish(self, net: Net, theta: Weights, moved: Weights, support: Batch) -> Weights:
        """φ: the moved adapters, and the head that the support set gives through them."""
        adapters = weights.pick(moved, "lora/")
        return adapters | self.head.finish(theta, moved, net.features(adapters, support), support)

    def scores_loss(self, scores: Tensor, batch: Batch) -> Tensor:
        """(N, K) -> (T,)"""
        return FORMS[batch.form].loss(scores, batch)

    def task_scores(self, theta: Weights, features: Tensor, batch: Batch, episodes: tuple[Episode, ...]) -> Tensor:
        """Scores under the linear head that θ keeps for each training task: (N, K)."""
        heads = [
            (theta[f"tasks/{e.task}/weight"][list(e.classes)], theta[f"tasks/{e.task}/bias"][list(e.classes)])
            for e in episodes
        ]
        weight = torch.stack([pad(w, (0, 0, 0, batch.max_ways - len(w))) for w, _ in heads])
        bias = torch.stack([pad(b, (0, batch.max_ways - len(b))) for _, b in heads])
        scale = theta["head/scale"].exp()
        return linear_scores(scale * weight, scale * bias, features, batch)

    def tasks_loss(self, theta: Weights, sides: Sides, episodes: tuple[Episode, ...]) -> Tensor | float:
        """Mean loss of the training tasks' own linear heads on the sides of an episode: (T,); 0 without such heads."""
        if not self.classes:
            return 0.0
        losses = [self.scores_loss(self.task_scores(theta, x, batch, episodes), batch) for x, batch in sides]
        return torch.stack(losses).mean(0)

    def recipes(self) -> tuple[Algorithm, ...]:
        """Other settings of the adaptation that the recipe search may try on validation tasks; itself first."""
        return (self,)
