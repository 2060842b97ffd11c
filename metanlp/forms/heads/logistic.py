"""Logistic regression on normalised features: a linear head that is fitted, class by class against all others.

Letters: N units, V views, D features, K classes, T tasks.
"""

from __future__ import annotations

import math
import warnings
from functools import cache

import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from metanlp.core.types import Batch, Weights
from metanlp.forms.heads.base import beyond

FOLDS = 10  # most parts that left-out scores are made in


def logistic_heads(features: Tensor, batch: Batch, c: float, share: Tensor | None = None) -> Weights:
    """One logistic regression a task on the normalised views (N, V, D): `head/weight` (T, K, V·D), `head/bias` (T, K).

    `share` (T, V) is how much each view counts in the squared length of a row, by default 1 each; `c` is the inverse
    strength of the L2 penalty."""
    stretch, x = _stretched(features, batch, share)
    heads = list[tuple[Tensor, Tensor]]()
    for task in range(batch.count_tasks):
        mine = batch.task_of == task
        basis, inside = _rotated(x[mine])
        weight, bias = _logistic(inside, batch.targets[mine], batch.max_ways, c)
        heads.append((weight @ basis.T, bias))
    weight, bias = (torch.stack(each) for each in zip(*heads, strict=True))
    return {"head/weight": weight * stretch[:, None], "head/bias": bias}


def logistic_left_out(features: Tensor, batch: Batch, c: float, share: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Every row scored by a regression that has not seen it, cross-validated in at most `FOLDS` parts of its task:
    (N, K), and which rows count, 1 or 0: (N,). One that is alone in its class does not."""
    _, x = _stretched(features, batch, share)
    scores, usable = x.new_zeros(len(x), batch.max_ways), x.new_zeros(len(x))
    for task in range(batch.count_tasks):
        mine = (batch.task_of == task).nonzero().flatten()
        fold = _folds(batch.targets[mine])
        usable[mine] = (fold >= 0).to(x.dtype)
        inside, targets = _rotated(x[mine])[1], batch.targets[mine]
        for number in fold[fold >= 0].unique().tolist():
            out, rest = fold == number, fold != number
            weight, bias = _logistic(inside[rest], targets[rest], batch.max_ways, c)
            scores[mine[out]] = inside[out] @ weight.T + bias
    return scores.masked_fill(beyond(batch), -math.inf), usable


def _stretched(features: Tensor, batch: Batch, share: Tensor | None) -> tuple[Tensor, Tensor]:
    """The factor of each feature, (T, V·D), and the rows with it: (N, V·D)."""
    views, width = features.shape[1:]
    share = features.new_ones(batch.count_tasks, views) if share is None else share
    stretch = share.sqrt().repeat_interleave(width, 1)
    return stretch, normalize(features, dim=-1).flatten(1) * stretch[batch.task_of]


def _rotated(x: Tensor) -> tuple[Tensor, Tensor]:
    """An orthonormal basis of what the rows span, (F, n), and the rows in it, (n, n): n below F. A penalised regression
    is the same in there, and takes a fraction of the time."""
    basis, inside = torch.linalg.qr(x.T)
    return basis, inside.T


def _folds(targets: Tensor) -> Tensor:
    """The part that each row is in, (n,): rows are dealt class by class, so that no part holds a whole class, and each
    of a few rows has a part for itself. One that is alone in its class is in none: −1."""
    order = targets.argsort(stable=True)
    dealt = (targets[order].bincount()[targets[order]] > 1).long()
    fold = torch.where(dealt > 0, (dealt.cumsum(0) - 1) % FOLDS, -1)
    return torch.empty_like(fold).index_copy(0, order, fold)


def _logistic(x: Tensor, targets: Tensor, ways: int, c: float) -> tuple[Tensor, Tensor]:
    """The regression of one task, in which every class counts alike: (n, F), (n,) -> (K, F), (K,); zeros for a
    class without rows."""
    from sklearn.linear_model import LogisticRegression  # a second to import, and only this classifier needs it

    regression = LogisticRegression(C=c, max_iter=1000, class_weight="balanced")
    with blas().limit(limits=1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes")  # one shot of many classes is no mistake
        fitted = regression.fit(x.cpu().numpy(), targets.cpu().numpy())
    coefficients, intercepts = (torch.as_tensor(v).to(x) for v in (fitted.coef_, fitted.intercept_))
    # Two classes come as one row, for the second against the first: half for the one, half against the other, as the
    # scores of more classes also sum to zero.
    if len(intercepts) == 1:
        coefficients, intercepts = (torch.cat([-v, v]) / 2 for v in (coefficients, intercepts))
    classes = torch.as_tensor(fitted.classes_).to(x.device)
    weight, bias = x.new_zeros(ways, x.shape[1]), x.new_zeros(ways)
    strength = c / 2 if len(classes) == 2 else c
    weight[classes] = coefficients
    bias[classes] = intercepts + _own_share(x, targets, classes, coefficients, intercepts, strength)
    return weight, bias


@cache
def blas() -> ThreadpoolController:
    """The linear algebra of numpy and scipy: on a busy machine its threads wait for each other 15 times as long as one
    takes for a few rows."""
    return ThreadpoolController().select(user_api="blas")


def _own_share(x: Tensor, targets: Tensor, classes: Tensor, weight: Tensor, bias: Tensor, strength: float) -> Tensor:
    """What rows of a class score for having been fitted, beyond that of the largest class's rows: (K,).

    W = strength Σ w (y − p) x over the rows, whose weights w make classes count alike. So a fitted row scores its own
    factor times the variance within classes more than a new one, and the fewer rows a class has the larger that is."""
    own = one_hot(torch.searchsorted(classes, targets), len(classes)).to(x.dtype)  # (n, K)
    sizes = own.sum(0)
    apart = (x - own @ (own.T @ x / sizes[:, None])).square().sum() / max(1, len(x) - len(classes))
    missed = (own * (1 - torch.softmax(x @ weight.T + bias, 1))).sum(0) / sizes
    factor = strength * len(x) / (len(classes) * sizes)
    return factor * missed * apart * (1 - sizes / sizes.amax())
