"""Methods that adapt without a gradient step: φ is a differentiable function of the support set's features."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from metanlp.algorithms.base import Adaptations, Guided, Inner, Look, Net, Reader
from metanlp.core import weights
from metanlp.core.types import Batch, Weights
from metanlp.forms import Objective
from metanlp.forms.heads import beyond


@dataclass(frozen=True)
class Direct(Guided):
    """A method says how a support set becomes φ (`condition`), and how φ answers (`answer`); the rest is here. The
    meta-gradient is exact: nothing is held fixed."""

    linear_head: ClassVar[bool] = False

    inner: Inner = Inner(steps=0)  # no gradient step

    @classmethod
    def learns(cls, form: Objective) -> bool:
        return form.class_targets

    @abstractmethod
    def condition(self, theta: Weights, features: Tensor, support: Batch) -> Weights:
        """φ but for the adapters, a slice a task, from features (N, V, D)."""

    @abstractmethod
    def answer(self, phi: Weights, features: Tensor, batch: Batch) -> Tensor:
        """Scores from features: (N, V, D) -> (N, K). Anything beyond a task's own classes."""

    def adapting(self, net: Net, theta: Weights, support: Batch, steps: Collection[int]) -> Adaptations:
        support = net.with_trunk(support)
        start = weights.expand(weights.detach(weights.pick(theta, "lora/")), support.count_tasks)
        with torch.no_grad():
            phi = start | self.condition(theta, net.features(start, support), support)
        yield self.inner.steps, weights.detach(phi)

    def left_out(self, net: Net, theta: Weights, support: Batch) -> tuple[Tensor, Tensor]:
        """Every row scored by φ of a support set in which the next row of its class stands in its place: N
        conditionings, one run of the model. A class that was a row smaller would have fewer votes and score lower. The
        scores are those of a new row where the rows of a class are alike; else the class lacks one of its different
        rows, which a maximum over them feels."""
        with torch.no_grad():
            features = net.features(weights.pick(theta, "lora/"), net.with_trunk(support))
            instead = next_of_class(support)
            usable = instead != torch.arange(len(instead), device=instead.device)
            scores = features.new_zeros(len(features), support.max_ways)
            for row in usable.nonzero().flatten().tolist():
                others = features.index_copy(0, instead.new_tensor([row]), features[instead[row], None])
                phi = self.condition(theta, others, support)
                # What heads read of a batch, for one of its units.
                parts = {name: getattr(support, name)[row, None] for name in ("task_of", "targets", "group")}
                scores[row] = self.answer(phi, features[row, None], replace(support, **parts, trunk=None))[0]
        return scores.masked_fill(beyond(support), -math.inf), usable.to(features.dtype)

    def head_scores(self, phi: Weights, features: Tensor, batch: Batch) -> Tensor:
        return self.answer(phi, features, batch).masked_fill(beyond(batch), -math.inf)

    def looks(self, theta: Weights, support: Reader, query: Reader) -> Iterator[Look]:
        seen, asked = support(theta), query(theta)
        yield 1.0, self.condition(theta, seen, support.batch), seen, asked


def next_of_class(batch: Batch) -> Tensor:
    """For each unit the next of the same class and task, for the last of them the first: (N,)."""
    own = batch.task_of * batch.max_ways + batch.targets
    same = (own[:, None] == own).int()
    later = same.triu(1)
    return torch.where(later.any(1), later.argmax(1), same.argmax(1))
