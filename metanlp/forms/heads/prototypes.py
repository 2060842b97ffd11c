"""Prototypes: class scores from the class means of the support features.

Letters: N examples, V views, D features, K classes, T tasks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from metanlp.core.types import Batch, Weights
from metanlp.forms.heads.base import (
    Head,
    balanced,
    beyond,
    class_sizes,
    compared_sizes,
    linear_scores,
    per_task,
    products,
    view_weights,
)


@dataclass(frozen=True)
class PrototypeHead(Head):
    """A linear head: class means of the support features, plus a residual that starts at zero.

    W = 2c and b = −‖c‖² make a linear layer a nearest-prototype classifier (Snell et al. 2017; as the start of gradient
    steps Triantafillou et al. 2020, eq. 5-6; with a zero residual that the steps move Holla et al. 2020, §4.3).
    Features are normalised, each view on its own. The views' scores are averaged with weights that start from θ and
    move with the evidence: how well each view classifies the support set when every row is left out of its prototype.
    Inner steps minimise just that loss, so the evidence is taken before the first of them and then stays: taken later
    it flatters the views that moved. While adapting, rows are scored against prototypes without themselves: with
    themselves four rows a class are fitted before the first step.
    """

    scale: float = 10.0  # start of the learned factor on scores, in nats per unit of squared distance
    trust: float = 1.5  # start of the learned trust in the support set's evidence about views, per nat

    def init(self, views: int, width: int) -> Weights:
        """The head's part of θ: `views/prior` (V,), and the logarithms of scale and trust, () each."""
        return {
            "views/prior": torch.zeros(views),
            "views/trust": torch.tensor(math.log(self.trust)),
            "head/scale": torch.tensor(math.log(self.scale)),
        }

    def evidence(self, theta: Weights, features: Tensor, batch: Batch) -> Weights:
        """`views/loss` (T, V): √n times the mean left-out loss of each view over n rows, because the doubt about that
        mean shrinks with √n."""
        return {"views/loss": self._views_loss(*self._views_left_out(theta, normalize(features, dim=-1), batch), batch)}

    def left_out(self, theta: Weights, moved: Weights, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Support rows scored against prototypes without themselves: (N, K), and which of them count: (N,).

        `moved` holds the residual, and `evidence` where that is not to be read off these features.
        """
        views, usable = self._views_left_out(theta, normalize(features, dim=-1), batch)
        loss = moved["views/loss"] if "views/loss" in moved else self._views_loss(views, usable, batch)
        scores = (views * view_weights(theta, loss).index_select(0, batch.task_of)[:, None]).sum(-1)
        return scores + linear_scores(moved["head/weight"], moved["head/bias"], features, batch), usable

    def finish(self, theta: Weights, moved: Weights, features: Tensor, batch: Batch) -> Weights:
        """φ's head, prototypes and residual in one: `head/weight` (T, K, V·D), `head/bias` (T, K)."""
        x = normalize(features, dim=-1)
        c = class_means(x, batch)
        evidence = moved if "views/loss" in moved else self.evidence(theta, features, batch)
        share = theta["head/scale"].exp() * view_weights(theta, evidence["views/loss"])[:, None]  # (T, 1, V)
        weight = (2 * share[..., None] * c).flatten(2)
        extra = size_correction(variance_within(x, c, batch), batch)
        bias = (share * (extra - c.square().sum(-1))).sum(-1)
        return {"head/weight": weight + moved["head/weight"], "head/bias": bias + moved["head/bias"]}

    def _views_left_out(self, theta: Weights, x: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Left-out scores view by view (N, K, V), and which rows count (N,)."""
        scores, usable = left_out_scores(x, class_means(x, batch), batch)
        return scores * theta["head/scale"].exp(), usable

    def _views_loss(self, left_out: Tensor, usable: Tensor, batch: Batch) -> Tensor:
        left_out, weight = balanced(left_out, usable, batch)
        left_out = left_out.masked_fill(beyond(batch)[..., None], -math.inf)
        loss = -torch.log_softmax(left_out, dim=1).gather(1, own_class(left_out, batch)).squeeze(1)  # (N, V)
        # √n for n rows of weight 1: the squared sum of the weights over the sum of their squares.
        root = per_task(weight.square(), batch)[:, None].clamp(min=1).sqrt()
        return per_task(loss * weight[:, None], batch) / root


def class_means(x: Tensor, batch: Batch) -> Tensor:
    """Mean feature of each class of each task, 0 for a class without rows: (N, V, D) -> (T, K, V, D)."""
    place = batch.task_of * batch.max_ways + batch.targets
    sums = x.new_zeros(batch.count_tasks * batch.max_ways, *x.shape[1:]).index_add(0, place, x)
    return sums.view(batch.count_tasks, -1, *x.shape[1:]) / class_sizes(batch).clamp(min=1)[..., None, None]


def variance_within(x: Tensor, c: Tensor, batch: Batch) -> Tensor:
    """Σ‖x − c‖² over N − K, pooled over the K classes with rows of each task: (T, V); 0 where each has one row."""
    sizes = class_sizes(batch).to(x.dtype)
    place = batch.task_of * batch.max_ways + batch.targets
    apart = (x - c.flatten(0, 1).index_select(0, place)).square().sum(-1)  # (N, V)
    freedom = sizes.sum(1) - (sizes > 0).sum(1)
    return per_task(apart, batch) / freedom.clamp(min=1)[:, None]


def size_correction(variance: Tensor, batch: Batch, missing: int = 0) -> Tensor:
    """What to add to −‖c‖² so that class sizes play no part: (T, V) -> (T, K, V); 0 where classes are equally large.

    The squared length of a mean of n rows is too large by the variance within the class over n. Every class is brought
    to the excess that it would have with as many rows as the largest class of its task; `missing` rows are left out of
    each.
    """
    sizes, largest = (values.to(variance.dtype) for values in compared_sizes(batch))
    there = torch.where(sizes > 0, sizes, largest)
    inverse, least = (1 / (n - missing).clamp(min=1) for n in (there, largest))
    return variance[:, None] * (inverse - least)[..., None]


def left_out_scores(x: Tensor, c: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """2 x·c − ‖c‖² of every support row, view by view, against prototypes without that row: (N, K, V), with the
    correction for class sizes.

    Also which rows count: (N,), 1 or 0. A row that is alone in its class would leave an empty prototype: it does not.
    In closed form from n·c − x, so no prototype is computed twice. Beyond a task's own classes stands 0, not yet −∞:
    these scores are still multiplied, and the gradient of a product with −∞ is not a number.
    """
    dot = torch.stack([products(x[:, v], c[:, :, v], batch) for v in range(x.shape[1])], -1)  # (N, K, V)
    square = c.square().sum(-1).index_select(0, batch.task_of)
    own = x.square().sum(-1)[:, None]  # (N, 1, V)
    n = class_sizes(batch)[batch.task_of, batch.targets].to(x.dtype)[:, None, None]
    mine = own_class(dot, batch)
    rest = (n - 1).clamp(min=1)
    dot_mine = dot.gather(1, mine)
    dot_without = (n * dot_mine - own) / rest
    square_without = (n**2 * square.gather(1, mine) - 2 * n * dot_mine + own) / rest**2
    variance = variance_within(x, c, batch)
    others, without = (size_correction(variance, batch, gone).index_select(0, batch.task_of) for gone in (0, 1))
    scores = 2 * dot - square + others
    scores = scores.scatter(1, mine, 2 * dot_without - square_without + without.gather(1, mine))
    return scores, (n.flatten() > 1).to(x.dtype)


def own_class(values: Tensor, batch: Batch) -> Tensor:
    """Where each row's own class stands along the second axis of (N, K, V): (N, 1, V)."""
    return batch.targets[:, None, None].expand(-1, 1, values.shape[2])
