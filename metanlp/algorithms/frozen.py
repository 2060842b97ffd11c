"""Frozen features: the baseline that costs nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from metanlp import weights
from metanlp.algorithms.base import Algorithm, Net
from metanlp.errors import InputError
from metanlp.heads import normalized
from metanlp.inner import Inner
from metanlp.types import Batch, MetaGrad, Pass, Weights


@dataclass(frozen=True)
class Frozen(Algorithm):
    """No adapter: prototypes (Snell et al. 2017), or a logistic regression, on the frozen views alone."""

    inner: Inner = Inner(steps=0)  # no gradient step
    classifier: Literal["prototypes", "logistic"] = "prototypes"  # what reads the features
    c: float = 10.0  # inverse strength of the logistic regression's L2 penalty

    def init(self, net: Net, generator: torch.Generator) -> Weights:
        if not any(map(_is_frozen, net.view_names)):
            raise InputError(f"the frozen baseline needs a frozen view, but the views are {list(net.view_names)}")
        return super().init(net, generator)

    def adapting(
        self, net: Net, theta: Weights, support: Batch, steps: Collection[int]
    ) -> Iterator[tuple[int, Weights]]:
        support = net.with_trunk(support)
        features = frozen_features(support)
        if self.classifier == "logistic":
            yield self.inner.steps, logistic_heads(features, support, self.c)
            return
        shown = [number for number, name in enumerate(net.view_names) if _is_frozen(name)]
        theta = theta | {"views/prior": theta["views/prior"][shown]}
        residual = self.head.residual(features[0].numel(), support)
        yield self.inner.steps, weights.detach(self.head.finish(theta, residual, features, support))

    def scores(self, net: Net, phi: Weights, batch: Batch) -> Tensor:
        batch = net.with_trunk(batch)
        return self.head.scores(phi, frozen_features(batch), batch)

    def meta_grad(self, net: Net, theta: Weights, episodes: Pass) -> MetaGrad:
        raise InputError(
            "frozen features learn nothing from other tasks, so they can't be meta-trained; use them as they are"
        )

    def recipes(self) -> tuple[Algorithm, ...]:
        return self, *(replace(self, classifier="logistic", c=c) for c in (1.0, 10.0, 100.0))


def _is_frozen(view: str) -> bool:
    return view.startswith("frozen.")


def frozen_features(batch: Batch) -> Tensor:
    """(N, frozen views, D)"""
    assert batch.trunk is not None
    return batch.trunk.frozen


def logistic_heads(features: Tensor, batch: Batch, c: float) -> Weights:
    """One logistic regression a task on the normalised views: `head/weight` (T, K, V·D), `head/bias` (T, K)."""
    from sklearn.linear_model import LogisticRegression  # a second to import, and only this classifier needs it

    x = normalized(features)
    weight = x.new_zeros(batch.count_tasks, batch.max_ways, x.shape[1])
    bias = x.new_zeros(batch.count_tasks, batch.max_ways)
    for task in range(batch.count_tasks):
        mine = batch.task_of == task
        fitted = LogisticRegression(C=c, max_iter=1000).fit(x[mine].cpu().numpy(), batch.targets[mine].cpu().numpy())
        coefficients, intercepts = (torch.as_tensor(v).to(x) for v in (fitted.coef_, fitted.intercept_))
        # Two classes come as one row: the score of the second against zero for the first.
        classes = torch.as_tensor(fitted.classes_)[-len(intercepts) :].to(x.device)
        weight[task, classes], bias[task, classes] = coefficients, intercepts
    return {"head/weight": weight, "head/bias": bias}
