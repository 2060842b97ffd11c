"""Frozen features: the baseline that costs nothing."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from metanlp import weights
from metanlp.algorithms.base import Algorithm, Net
from metanlp.errors import InputError
from metanlp.heads import beyond, normalized
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
        if self._is_logistic(support):
            yield self.inner.steps, logistic_heads(features, support, self.c)
            return
        theta, residual = _shown(net, theta), self.head.residual(features[0].numel(), support)
        yield self.inner.steps, weights.detach(self.head.finish(theta, residual, features, support))

    def left_out(self, net: Net, theta: Weights, support: Batch) -> tuple[Tensor, Tensor]:
        """As in every method; a logistic regression is fitted again without each row, N times in all."""
        support = net.with_trunk(support)
        features = frozen_features(support)
        if self._is_logistic(support):
            return logistic_left_out(features, support, self.c)
        residual = self.head.residual(features[0].numel(), support)
        return self.head.left_out(_shown(net, theta), residual, features, support)

    def _is_logistic(self, support: Batch) -> bool:
        """Where there are classes; answers that are numbers or sets have the same head as in every method."""
        return self.classifier == "logistic" and support.form in ("classify", "tag")

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


def _shown(net: Net, theta: Weights) -> Weights:
    """θ whose heads have the frozen views alone."""
    shown = [number for number, name in enumerate(net.view_names) if _is_frozen(name)]
    by_view = ("views/prior", "head/vector")
    return {key: value[shown] if key.endswith(by_view) else value for key, value in theta.items()}


def frozen_features(batch: Batch) -> Tensor:
    """(N, frozen views, D)"""
    assert batch.trunk is not None
    return batch.trunk.frozen


def logistic_heads(features: Tensor, batch: Batch, c: float) -> Weights:
    """One logistic regression a task on the normalised views: `head/weight` (T, K, V·D), `head/bias` (T, K)."""
    x = normalized(features)
    rows = [batch.task_of == task for task in range(batch.count_tasks)]
    heads = [_logistic(x[mine], batch.targets[mine], batch.max_ways, c) for mine in rows]
    weight, bias = zip(*heads, strict=True)
    return {"head/weight": torch.stack(weight), "head/bias": torch.stack(bias)}


def logistic_left_out(features: Tensor, batch: Batch, c: float) -> tuple[Tensor, Tensor]:
    """Every row scored by the regression of its task's other rows: (N, K), and which rows count, 1 or 0: (N,)."""
    x = normalized(features)
    scores = x.new_zeros(len(x), batch.max_ways)
    task = batch.task_of[:, None] == batch.task_of
    usable = (task & (batch.targets[:, None] == batch.targets)).sum(1) > 1
    for row in usable.nonzero().flatten().tolist():
        others = task[row].clone()
        others[row] = False
        weight, bias = _logistic(x[others], batch.targets[others], batch.max_ways, c)
        scores[row] = weight @ x[row] + bias
    return scores.masked_fill(beyond(batch), -math.inf), usable.to(x.dtype)


def _logistic(x: Tensor, targets: Tensor, ways: int, c: float) -> tuple[Tensor, Tensor]:
    """The regression of one task: (n, V·D), (n,) -> (K, V·D), (K,); zeros for a class without rows."""
    from sklearn.linear_model import LogisticRegression  # a second to import, and only this classifier needs it

    fitted = LogisticRegression(C=c, max_iter=1000).fit(x.cpu().numpy(), targets.cpu().numpy())
    coefficients, intercepts = (torch.as_tensor(v).to(x) for v in (fitted.coef_, fitted.intercept_))
    # Two classes come as one row, for the second against the first: half for the one, half against the other, as the
    # scores of more classes also sum to zero.
    if len(intercepts) == 1:
        coefficients, intercepts = (torch.cat([-v, v]) / 2 for v in (coefficients, intercepts))
    classes = torch.as_tensor(fitted.classes_).to(x.device)
    weight, bias = x.new_zeros(ways, x.shape[1]), x.new_zeros(ways)
    weight[classes], bias[classes] = coefficients, intercepts
    return weight, bias
