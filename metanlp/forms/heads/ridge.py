"""Ridge regression: scores for answers that are numbers, right or wrong choices, or sets of labels.

Letters: N units, V views, D features, K scores a unit, T tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from metanlp.core.types import Batch, Weights
from metanlp.forms.heads.base import Head, beyond, linear_scores, per_task, view_weights

CONSTANT = 10.0  # square of the constant feature: so large that the intercept is hardly shrunk


@dataclass(frozen=True)
class RidgeHead(Head):
    """Solved on the support set in closed form (Bertinetto et al. 2019, arXiv 1805.08136, eq. 6), view by view, around
    a vector that θ learns: it is what many tasks have in common, and the prior mean of each (Harrison et al. 2018,
    ALPaCA). The solution for a support set without one of its rows is closed too: with G = (XXᵀ + λ)⁻¹ and α = Gy, the
    rows B of a question are missed by G_BB⁻¹ α_B (the PRESS statistic, Allen 1974). Views are weighed as prototypes do.

    A regression on what few rows have stays close to "no" for all. With `even`, the scores of a label are moved by the
    middle between the mean left-out score of the rows with it and that of the rows without it, view by view.
    """

    loss: Callable[[Tensor, Batch], Tensor]  # of the form: (N, K) -> (T,)
    scale: float = 10.0  # start of the learned factor on scores
    offset: float = 0.0  # what is added to scores
    penalty: float = 1.0  # start of the learned λ
    trust: float = 1.5  # start of the learned trust in the support set's evidence about views, per nat
    contrast: bool = False  # only differences between the units of a group count: the choices of a question
    learned: bool = False  # whether tasks have enough in common for a vector of θ
    even: bool = False  # targets are yes or no, and a label counts alike however many rows have it

    def init(self, views: int, width: int) -> Weights:
        """`views/prior` (V,), the logarithms of trust, scale and λ, () each; the learned vector (V, D)."""
        logs = {"views/trust": self.trust, "head/scale": self.scale, "head/penalty": self.penalty}
        start = {key: torch.tensor(math.log(value)) for key, value in logs.items()}
        vector = {"head/vector": torch.zeros(views, width)} if self.learned else {}
        return {"views/prior": torch.zeros(views)} | start | vector

    def evidence(self, theta: Weights, features: Tensor, batch: Batch) -> Weights:
        return {"views/loss": self._views_loss(self._views_left_out(theta, features, batch), batch)}

    def left_out(self, theta: Weights, moved: Weights, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        views = self._views_left_out(theta, features, batch)
        loss = moved["views/loss"] if "views/loss" in moved else self._views_loss(views, batch)
        scores = (views * view_weights(theta, loss).index_select(0, batch.task_of)[:, None]).sum(-1)
        scores = scores + linear_scores(moved["head/weight"], moved["head/bias"], features, batch)
        return scores, scores.new_ones(len(scores))

    def known(self, theta: Weights, features: Tensor, batch: Batch) -> Tensor | float:
        if not self.learned:
            return 0.0
        share = theta["head/scale"].exp() * torch.softmax(theta["views/prior"], dim=0)
        scores = torch.einsum("nvd,vd,v->n", normalize(features, dim=-1), theta["head/vector"], share)
        return scores[:, None] + self.offset

    def finish(self, theta: Weights, moved: Weights, features: Tensor, batch: Batch) -> Weights:
        evidence = moved if "views/loss" in moved else self.evidence(theta, features, batch)
        weights = view_weights(theta, evidence["views/loss"])[:, None]  # (T, 1, V)
        share = theta["head/scale"].exp() * weights
        x, y = self._regression(features, batch)
        g, alpha = self._solve(theta, x, y, batch)
        solved = per_task(x[..., None] * alpha[:, :, None], batch)  # (T, V, D or D + 1, K)
        slope = solved[:, :, : features.shape[2]].permute(0, 3, 1, 2)  # (T, K, V, D)
        if self.learned:
            slope = slope + theta["head/vector"]
        weight = (share[..., None] * slope).flatten(2)
        bias = weight.new_full((batch.count_tasks, batch.max_ways), self.offset)
        if not self.contrast:
            bias = bias + (share * solved[:, :, -1].transpose(1, 2)).sum(-1) * CONSTANT**0.5
        if self.even:
            bias = bias - (weights * middle(self._without_own(theta, y, g, alpha, batch), batch)).sum(-1)
        return {"head/weight": weight + moved["head/weight"], "head/bias": bias + moved["head/bias"]}

    def _regression(self, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """What is regressed on what: x (N, V, D), or with a constant feature (N, V, D + 1), and y (N, K)."""
        x, y = normalize(features, dim=-1), batch.targets.view(len(batch.targets), -1).to(features.dtype)
        if self.contrast:
            return less_group_mean(x, batch.group), less_group_mean(y, batch.group)
        return pad(x, (0, 1), value=CONSTANT**0.5), y - 0.5

    def _solve(self, theta: Weights, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """G (V, N, N), zero between tasks, and α (N, V, K)."""
        rest = y[:, None].expand(-1, x.shape[1], -1)
        if self.learned:
            known = torch.einsum("nvd,vd->nv", x[..., : theta["head/vector"].shape[1]], theta["head/vector"])
            rest = rest - known[..., None]
        same = batch.task_of[:, None] == batch.task_of
        gram = torch.einsum("nvd,mvd->vnm", x, x) * same
        g = torch.linalg.inv(gram + theta["head/penalty"].exp() * torch.eye(len(x), device=x.device, dtype=x.dtype))
        return g, torch.einsum("vnm,mvk->nvk", g, rest)

    def _views_left_out(self, theta: Weights, features: Tensor, batch: Batch) -> Tensor:
        """Scores of each row, or question, by the solution without it: (N, K, V)."""
        x, y = self._regression(features, batch)
        scores = self._without_own(theta, y, *self._solve(theta, x, y, batch), batch)
        return scores - middle(scores, batch)[batch.task_of] if self.even else scores

    def _without_own(self, theta: Weights, y: Tensor, g: Tensor, alpha: Tensor, batch: Batch) -> Tensor:
        """The same before scores are moved: (N, K, V)."""
        together = batch.group[:, None] == batch.group
        missed = torch.linalg.solve(g * together, alpha.transpose(0, 1)).permute(1, 2, 0)
        return theta["head/scale"].exp() * (y[..., None] - missed) + self.offset

    def _views_loss(self, left_out: Tensor, batch: Batch) -> Tensor:
        masked = left_out.masked_fill(beyond(batch)[..., None], -math.inf)
        each = torch.stack([self.loss(scores, batch) for scores in masked.unbind(-1)], 1)  # (T, V)
        questions = per_task(1 / group_sizes(batch.group)[batch.group], batch)  # (T,)
        return each * questions.sqrt()[:, None]


def middle(scores: Tensor, batch: Batch) -> Tensor:
    """Halfway between the mean scores of the rows that have a label and of those that have not: (N, K, V) ->
    (T, K, V). Zero for a label that all rows of a task have, or none."""
    has = batch.targets.to(scores.dtype)[..., None]
    counts = [per_task(which, batch) for which in (has, 1 - has)]
    sums = [per_task(which * scores, batch) for which in (has, 1 - has)]
    yes, no = (total / count.clamp(min=1) for total, count in zip(sums, counts, strict=True))
    return (yes + no) / 2 * (counts[0] * counts[1] > 0)


def group_sizes(group: Tensor) -> Tensor:
    """Units of each group, by group number: (N,) numbers below N -> (N,) fp32."""
    return torch.zeros(len(group), device=group.device).index_add(0, group, torch.ones_like(group, dtype=torch.float32))


def less_group_mean(x: Tensor, group: Tensor) -> Tensor:
    """(N, …), (N,) -> (N, …)"""
    sizes = group_sizes(group).clamp(min=1).to(x.dtype).view(-1, *[1] * (x.dim() - 1))
    return x - (torch.zeros_like(x).index_add(0, group, x) / sizes)[group]
