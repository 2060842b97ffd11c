"""Ridge regression over the words of a passage: where an answer begins, and where it ends.

Letters: N units, n units of a task, m units of a question, V views, D features, K scores a unit, T tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from metanlp.core.types import Batch, Weights
from metanlp.forms.heads.base import view_weights
from metanlp.forms.heads.ridge import RidgeHead


@dataclass(frozen=True)
class WordRidgeHead(RidgeHead):
    """What `RidgeHead` solves for questions, `contrast`, with N equations, solved with D: a question has hundreds of
    units. With A = XᵀX + λ, a question B is missed by (I − X_B A⁻¹ X_Bᵀ)⁻¹ (y_B − X_B w) without itself (PRESS, as
    there). θ learns K vectors."""

    scale: float = 30.0  # of 10, 30 and 100 the lowest left-out loss on training rows of a domain
    contrast: bool = True
    learned: bool = True
    vectors: int = 2  # K

    def init(self, views: int, width: int) -> Weights:
        """As in `RidgeHead`, with vectors (V, D, K)."""
        return super().init(views, width) | {"head/vector": torch.zeros(views, width, self.vectors)}

    def known(self, theta: Weights, features: Tensor, batch: Batch) -> Tensor | float:
        share = theta["head/scale"].exp() * torch.softmax(theta["views/prior"], dim=0)
        return torch.einsum("nvd,vdk,v->nk", normalize(features, dim=-1), theta["head/vector"], share)

    def finish(self, theta: Weights, moved: Weights, features: Tensor, batch: Batch) -> Weights:
        """A constant changes no softmax over a question: the bias is the residual's."""
        evidence = moved if "views/loss" in moved else self.evidence(theta, features, batch)
        share = theta["head/scale"].exp() * view_weights(theta, evidence["views/loss"])  # (T, V)
        x, _, rest = self._regressed(theta, features, batch)
        each = zip(*(side.split(tasks_of(batch), dim=1) for side in (x, rest)), strict=True)
        slope = theta["head/vector"] + torch.stack([self._slope(theta, *task)[1] for task in each])  # (T, V, D, K)
        weight = (share[:, :, None, None] * slope).permute(0, 3, 1, 2).flatten(2)
        return {"head/weight": weight + moved["head/weight"], "head/bias": moved["head/bias"]}

    def _regressed(self, theta: Weights, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """x (V, N, D), y (V, N, K), and what θ's vectors leave of y."""
        x, y = self._regression(features, batch)
        x, y = x.transpose(0, 1), y.expand(x.shape[1], *y.shape)
        return x, y, y - x @ theta["head/vector"]

    def _slope(self, theta: Weights, x: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        """Of one task: A⁻¹ (V, D, D), and the solution beside θ's vectors (V, D, K)."""
        penalty = theta["head/penalty"].exp() * torch.eye(x.shape[2], device=x.device, dtype=x.dtype)
        inverse = torch.linalg.inv(x.mT @ x + penalty)
        return inverse, inverse @ (x.mT @ rest)

    def _views_left_out(self, theta: Weights, features: Tensor, batch: Batch) -> Tensor:
        x, y, rest = self._regressed(theta, features, batch)
        groups, missed = batch.group.split(tasks_of(batch)), list[Tensor]()
        for task_x, task_rest, group in zip(*(s.split(tasks_of(batch), 1) for s in (x, rest)), groups, strict=True):
            inverse, slope = self._slope(theta, task_x, task_rest)
            sizes = group.unique_consecutive(return_counts=True)[1].tolist()
            for own, left in zip(task_x.split(sizes, 1), task_rest.split(sizes, 1), strict=True):
                hat = own @ inverse @ own.mT  # (V, m, m)
                eye = torch.eye(hat.shape[1], device=hat.device, dtype=hat.dtype)
                missed.append(torch.linalg.solve(eye - hat, left - own @ slope))
        return theta["head/scale"].exp() * (y - torch.cat(missed, 1)).permute(1, 2, 0)


def tasks_of(batch: Batch) -> list[int]:
    """Units of each task, whose units follow each other."""
    return batch.task_of.bincount(minlength=batch.count_tasks).tolist()
