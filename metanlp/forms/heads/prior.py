"""The head of answers in their order: what the net says of any student, corrected by the student's own answers.

Letters: N answers, D features, T students.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from metanlp.core.types import Batch, Weights
from metanlp.forms.heads.base import Head, per_task, products

FLOOR = 0.05  # least variance p(1 − p) that an answer is given: one against all odds must not decide alone


class PriorHead(Head):
    """Features (N, 1, D + 1) are D numbers x and the log-odds m that the net gives the answer "right" by itself.

    A student's own log-odds are a Gaussian process around m with the kernel x·x′: after one step of Newton's method
    from m (Rasmussen & Williams 2006, eq. 3.18) they are m + x·v, with v solved in closed form on the support answers,
    and the answers left out one by one are closed too (eq. 5.12). So the length of x says how much students differ, and
    where nothing is known, m stays. The head has no part of θ: scale and prior are the net's. Scores are those of the
    classes wrong and right; the first one's are zero until a residual moves them."""

    def init(self, views: int, width: int) -> Weights:
        return {}

    def evidence(self, theta: Weights, features: Tensor, batch: Batch) -> Weights:
        """One view needs none."""
        return {"views/loss": features.new_zeros(batch.count_tasks, features.shape[1])}

    def left_out(self, theta: Weights, moved: Weights, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        precision, alpha = self._solved(features, batch)
        wanted = working(features, batch)[1] - alpha / precision.diagonal()  # of each answer by the others
        scores = self.known(theta, features, batch) + pad(wanted[:, None], (1, 0))
        return scores + self._linear(moved, features, batch), scores.new_ones(len(scores))

    def finish(self, theta: Weights, moved: Weights, features: Tensor, batch: Batch) -> Weights:
        _, alpha = self._solved(features, batch)
        slope = per_task(features[:, 0, :-1] * alpha[:, None], batch)  # (T, D)
        weight = torch.stack([torch.zeros_like(slope), slope], 1)
        return {"head/weight": pad(weight, (0, 1)) + moved["head/weight"], "head/bias": moved["head/bias"]}

    def known(self, theta: Weights, features: Tensor, batch: Batch) -> Tensor:
        return pad(features[:, 0, -1:], (1, 0))

    def scores(self, phi: Weights, features: Tensor, batch: Batch) -> Tensor:
        return self.known(phi, features, batch) + self._linear(phi, features, batch)

    def _linear(self, phi: Weights, features: Tensor, batch: Batch) -> Tensor:
        return products(features[:, 0], phi["head/weight"], batch) + phi["head/bias"][batch.task_of]

    def _solved(self, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(K + W⁻¹)⁻¹ (N, N), zero between students, and that times the working response: (N,)."""
        x, (variance, response) = features[:, 0, :-1], working(features, batch)
        same = batch.task_of[:, None] == batch.task_of
        precision = torch.linalg.inv(x @ x.T * same + torch.diag(1 / variance))
        return precision, precision @ response


def working(features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Of a logistic regression that stands at m: the variance of each answer and how far it lies from m, in log-odds.
    (N,) each."""
    p = features[:, 0, -1].sigmoid()
    variance = (p * (1 - p)).clamp(min=FLOOR)
    return variance, (batch.targets - p) / variance
