"""The contract: an algorithm is four pure functions over weights. Nothing here knows of files, tasks' texts or processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from metanlp import weights
from metanlp.forms import classify
from metanlp.heads import PrototypeHead
from metanlp.inner import Inner, trajectory
from metanlp.types import Batch, MetaGrad, Pass, Weights


class Net(Protocol):
    """What an algorithm needs of a backbone."""

    width: int

    @property
    def view_names(self) -> tuple[str, ...]: ...
    def init(self, generator: torch.Generator) -> Weights: ...
    def with_trunk(self, batch: Batch) -> Batch: ...
    def features(self, w: Weights, batch: Batch) -> Tensor: ...
    def work(self, batch: Batch, passes: int) -> int: ...


@dataclass(frozen=True)
class Algorithm(ABC):
    """A frozen dataclass whose fields are its configuration. θ in, φ out; neither is ever changed in place."""

    inner: Inner = Inner()  # how it adapts to a support set
    head: PrototypeHead = PrototypeHead()  # from features to class scores

    def init(self, net: Net, generator: torch.Generator) -> Weights:
        """θ before any training."""
        theta = net.init(generator)
        device = next(iter(theta.values())).device
        return theta | weights.to(self.head.init(len(net.view_names)), device)

    def adapt(self, net: Net, theta: Weights, support: Batch) -> Weights:
        """φ for the T tasks of a support batch, one slice a task. θ stays as it was."""
        *_, phi = self.adapting(net, theta, support)
        return phi

    def adapting(self, net: Net, theta: Weights, support: Batch) -> Iterator[Weights]:
        """φ after 0, 1, … inner steps: the last one is what `adapt` gives."""
        support = net.with_trunk(support)
        for moved in self.inner_loop(net, theta, support):
            with torch.no_grad():
                yield self.finish(net, theta, moved, support)

    def scores(self, net: Net, phi: Weights, batch: Batch) -> Tensor:
        """(N, K), −inf beyond a task's own classes."""
        return self.head.scores(phi, net.features(phi, batch), batch)

    @abstractmethod
    def meta_grad(self, net: Net, theta: Weights, episodes: Pass) -> MetaGrad:
        """The gradient of θ that a pass of episodes asks for."""

    # what most algorithms share

    def inner_loop(self, net: Net, theta: Weights, support: Batch) -> Iterator[Weights]:
        """What moves, after 0, 1, … steps: the adapters from θ and the head's residual from zero, (T, …) each."""
        adapters = weights.expand(weights.detach(weights.pick(theta, "lora/")), support.count_tasks)
        with torch.no_grad():
            features = net.features(theta, support)
        fixed = features if not self.inner.lr else None  # a head alone needs the features only once

        def loss(moved: Weights) -> Tensor:
            x = net.features(moved, support) if fixed is None else fixed
            scores, counted = self.head.left_out(theta, moved, x, support)
            return classify.loss(scores, support.targets, support.task_of, support.count_tasks, counted)

        return trajectory(loss, adapters | self.head.residual(features, support), self.inner)

    def finish(self, net: Net, theta: Weights, moved: Weights, support: Batch) -> Weights:
        """φ: the moved adapters, and the head that the support set gives through them."""
        adapters = weights.pick(moved, "lora/")
        return adapters | self.head.finish(theta, moved, net.features(adapters, support), support)

    def query_loss(self, net: Net, phi: Weights, query: Batch) -> Tensor:
        """(T,)"""
        return classify.loss(self.scores(net, phi, query), query.targets, query.task_of, query.count_tasks)

    def recipes(self) -> tuple[Algorithm, ...]:
        """Other settings of the adaptation that the recipe search may try on validation tasks; itself first."""
        return (self,)
