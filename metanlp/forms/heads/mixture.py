"""Several heads as one: their scores, each times a factor that comes from how it answers rows that it has not seen.

Letters: N units, K classes, T tasks, H heads, S scales.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from metanlp.core.types import Batch, Weights
from metanlp.forms.heads.base import balanced, beyond, per_task

LOG_SCALES = torch.linspace(-1.5, 1.5, 7)  # logarithms of the factors on scores that are weighed
SPREAD = 0.7  # standard deviation of their prior, a normal one around 0


def mixture_factors(left_out: Sequence[Tensor], usable: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """What the scores of each head are multiplied with, from its left-out scores (N, K) and which of them count (N,):
    as all rows say (T, H), and for each row as the others of its task say (N, H), so that none speaks for itself.

    A head at a scale is a model, and what it says of the left-out rows its likelihood (Geisser & Eddy 1979; weights of
    an average from these are pseudo-BMA in Yao et al. 2018, arXiv 1704.02030). Every class counts alike, heads are
    alike beforehand, and of the scales of a head stays the geometric mean: without evidence each factor is 1 / H.
    """
    loss = torch.stack([_losses(scores, usable, batch) for scores in left_out], 1)  # (N, H, S)
    all_rows = per_task(loss, batch)
    return _factors(all_rows), _factors(all_rows.index_select(0, batch.task_of) - loss)


def mixed_heads(heads: Sequence[Weights], factors: Tensor) -> Weights:
    """One linear head that scores as the sum of some, times their factors (T, H)."""
    each = {key: torch.stack([head[key] for head in heads], 1) for key in heads[0]}  # (T, H, …)
    return {key: torch.einsum("th,th...->t...", factors, values) for key, values in each.items()}


def mixed_scores(scores: Sequence[Tensor], factors: Tensor, batch: Batch) -> Tensor:
    """The sum of some scores (N, K), times the factors of each row (N, H)."""
    finite = torch.stack(list(scores), 1).masked_fill(beyond(batch)[:, None], 0.0)  # a factor may be as good as 0
    return (finite * factors[..., None]).sum(1).masked_fill(beyond(batch), -torch.inf)


def _losses(scores: Tensor, usable: Tensor, batch: Batch) -> Tensor:
    """Of one head's left-out scores at every scale, times the weight of the row: (N, S)."""
    scores, weight = balanced(scores, usable, batch)
    losses = [cross_entropy(scores * scale, batch.targets, reduction="none") for scale in LOG_SCALES.exp().tolist()]
    return torch.stack(losses, 1) * weight[:, None]


def _factors(loss: Tensor) -> Tensor:
    """The probability of each head, times its scale: (…, H, S) -> (…, H)."""
    scales = LOG_SCALES.to(loss)
    known = -loss - (scales / SPREAD).square() / 2
    return torch.softmax(known.logsumexp(-1), -1) * (torch.softmax(known, -1) * scales).sum(-1).exp()
