"""Prototypes: class scores from the class means of the support features.

Letters: N examples, V views, D features, K classes, T tasks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from metanlp.heads.base import Head, beyond, linear_scores, per_task, view_weights
from metanlp.types import Batch, Weights


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
        scores = (views * view_weights(theta, loss)[batch.task_of][:, None]).sum(-1)
        return scores + linear_scores(moved["head/weight"], moved["head/bias"], features, batch), usable

    def finish(self, theta: Weights, moved: Weights, features: Tensor, batch: Batch) -> Weights:
        """φ's head, prototypes and residual in one: `head/weight` (T, K, V·D), `head/bias` (T, K)."""
        x = normalize(features, dim=-1)
        prototypes, _ = class_means(x, batch)
        evidence = moved if "views/loss" in moved else self.evidence(theta, features, batch)
        share = theta["head/scale"].exp() * view_weights(theta, evidence["views/loss"])[:, None]  # (T, 1, V)
        c = prototypes.view(batch.count_tasks, batch.max_ways, *x.shape[1:])
        weight = (2 * share[..., None] * c).flatten(2)
        bias = -(share * c.square().sum(-1)).sum(-1)
        return {"head/weight": weight + moved["head/weight"], "head/bias": bias + moved["head/bias"]}

    def _views_left_out(self, theta: Weights, x: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Left-out scores view by view (N, K, V), and which rows count (N,)."""
        scores, usable = left_out_scores(x, *class_means(x, batch), batch)
        return scores * theta["head/scale"].exp(), usable

    def _views_loss(self, left_out: Tensor, usable: Tensor, batch: Batch) -> Tensor:
        index = batch.targets[:, None, None].expand(-1, 1, left_out.shape[2])
        left_out = left_out.masked_fill(beyond(batch)[..., None], -math.inf)
        loss = -torch.log_softmax(left_out, dim=1).gather(1, index).squeeze(1)  # (N, V)
        n = per_task(usable, batch)[:, None]  # (T, 1)
        return per_task(loss * usable[:, None], batch) / n.clamp(min=1).sqrt()


def class_means(x: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean feature of each class of each task: (N, V, D) -> (T·K, V, D), and rows a class (T·K,)."""
    place = batch.task_of * batch.max_ways + batch.targets
    groups = batch.count_tasks * batch.max_ways
    counts = x.new_zeros(groups).index_add(0, place, x.new_ones(len(place)))
    sums = x.new_zeros(groups, *x.shape[1:]).index_add(0, place, x)
    return sums / counts.clamp(min=1)[:, None, None], counts


def left_out_scores(x: Tensor, prototypes: Tensor, counts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """2 x·c − ‖c‖² of every support row, view by view, against prototypes without that row: (N, K, V).

    Also which rows count: (N,), 1 or 0. A row that is alone in its class would leave an empty prototype: it does not.
    In closed form from n·c − x, so no prototype is computed twice. Beyond a task's own classes stands 0, not yet −∞:
    these scores are still multiplied, and the gradient of a product with −∞ is not a number.
    """
    tasks, ways = batch.count_tasks, batch.max_ways
    c = prototypes.view(tasks, ways, *x.shape[1:])[batch.task_of]  # (N, K, V, D)
    n = counts.view(tasks, ways)[batch.task_of][..., None]  # (N, K, 1)
    dot = torch.einsum("nvd,nkvd->nkv", x, c)
    square = c.square().sum(-1)
    own = x.square().sum(-1)[:, None]  # (N, 1, V)
    rest = (n - 1).clamp(min=1)
    dot_without = (n * dot - own) / rest
    square_without = (n**2 * square - 2 * n * dot + own) / rest**2
    mine = one_hot(batch.targets, ways).bool()[..., None]
    scores = torch.where(mine, 2 * dot_without - square_without, 2 * dot - square)
    usable = n.squeeze(-1).gather(1, batch.targets[:, None]).squeeze(1) > 1
    return scores, usable.to(x.dtype)
