"""Methods that adapt without a gradient step: φ is a differentiable function of the support set's features."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from metanlp import weights
from metanlp.algorithms.base import Algorithm, Net
from metanlp.heads import beyond
from metanlp.inner import Inner
from metanlp.types import Batch, MetaGrad, Pass, Weights


@dataclass(frozen=True)
class Direct(Algorithm):
    """A method says how a support set becomes φ (`condition`), and how φ answers (`answer`); the rest is here. The
    meta-gradient is exact: nothing is held fixed."""

    forms: ClassVar[tuple[str, ...]] = ("classify", "tag")

    inner: Inner = Inner(steps=0)  # no gradient step
    guide: float = 1.0  # weight of the training tasks' own linear heads in the outer loss, where `classes` names them

    def init(self, net: Net, generator: torch.Generator) -> Weights:
        theta = super().init(net, generator)
        own = self.network(len(net.view_names) * net.width, generator)
        return theta | weights.to(own, next(iter(theta.values())).device)

    def network(self, width: int, generator: torch.Generator) -> Weights:
        """The method's own part of θ, for features of `width` = V·D; drawn from `generator` alone."""
        return {}

    @abstractmethod
    def condition(self, theta: Weights, features: Tensor, support: Batch) -> Weights:
        """φ but for the adapters, a slice a task, from features (N, V, D)."""

    @abstractmethod
    def answer(self, phi: Weights, features: Tensor, batch: Batch) -> Tensor:
        """Scores from features: (N, V, D) -> (N, K). Anything beyond a task's own classes."""

    def loss(self, theta: Weights, seen: Tensor, asked: Tensor, support: Batch, query: Batch) -> Tensor:
        """What θ is to lower, from the features of both sides, (N, V, D) each: (T,). The query loss of φ's scores."""
        scores = self.answer(self.condition(theta, seen, support), asked, query)
        return self.scores_loss(scores.masked_fill(beyond(query), -math.inf), query)

    def adapting(
        self, net: Net, theta: Weights, support: Batch, steps: Collection[int]
    ) -> Iterator[tuple[int, Weights]]:
        support = net.with_trunk(support)
        start = weights.expand(weights.detach(weights.pick(theta, "lora/")), support.count_tasks)
        with torch.no_grad():
            phi = start | self.condition(theta, net.features(start, support), support)
        yield self.inner.steps, weights.detach(phi)

    def left_out(self, net: Net, theta: Weights, support: Batch) -> tuple[Tensor, Tensor]:
        """Every row scored by φ of a support set in which the next row of its class stands in its place: N
        conditionings, one run of the model. With a row less its class would score lower than the others whatever the
        rows are, where each row is a vote; so left-out scores are those of a new row where the rows of a class are
        alike. What is left is that a class has a row less that is different: a maximum over its rows feels that."""
        with torch.no_grad():
            features = net.features(weights.pick(theta, "lora/"), net.with_trunk(support))
            instead = next_of_class(support)
            usable = instead != torch.arange(len(instead), device=instead.device)
            scores = features.new_zeros(len(features), support.max_ways)
            for row in usable.nonzero().flatten().tolist():
                others = features.index_copy(0, instead.new_tensor([row]), features[instead[row], None])
                phi = self.condition(theta, others, support)
                scores[row] = self.answer(phi, features[row, None], one_of(support, row))[0]
        return scores.masked_fill(beyond(support), -math.inf), usable.to(features.dtype)

    def scores(self, net: Net, phi: Weights, batch: Batch) -> Tensor:
        return self.answer(phi, net.features(phi, batch), batch).masked_fill(beyond(batch), -math.inf)

    def meta_grad(self, net: Net, theta: Weights, episodes: Pass) -> MetaGrad:
        support, query = net.with_trunk(episodes.support), net.with_trunk(episodes.query)
        theta = weights.leaves(theta)
        adapters = weights.pick(theta, "lora/")
        seen, asked = net.features(adapters, support), net.features(adapters, query)
        loss = self.loss(theta, seen, asked, support, query)
        outer = loss + self.guide * self.tasks_loss(theta, [(seen, support), (asked, query)], episodes.episodes)
        grad = weights.gradient(outer.sum(), theta)
        return MetaGrad(grad, loss.detach(), net.work(support, 2) + net.work(query, 2))


def next_of_class(batch: Batch) -> Tensor:
    """For each unit the next of the same class and task, for the last of them the first: (N,)."""
    own = batch.task_of * batch.max_ways + batch.targets
    order = own.argsort(stable=True)
    kind = own[order]
    after = order.roll(-1)
    first = torch.searchsorted(kind, kind)
    return torch.empty_like(order).index_copy(0, order, torch.where(kind.roll(-1) == kind, after, order[first]))


def one_of(batch: Batch, unit: int) -> Batch:
    """What heads read of a batch, for one of its units. Its tokens stay as they are."""
    chosen = slice(unit, unit + 1)
    return replace(
        batch, task_of=batch.task_of[chosen], targets=batch.targets[chosen], group=batch.group[chosen], trunk=None
    )
