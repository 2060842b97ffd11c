"""Siamese networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from metanlp.algorithms.direct import Direct
from metanlp.algorithms.networks.sets import Sets, kinds, shared, sum_by_kind
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Pass, Weights
from metanlp.core.weights import pick
from metanlp.forms.heads import normalized
from metanlp.forms.heads.base import of_own_task, per_task


@dataclass(frozen=True)
class Siamese(Direct):
    """Koch, Zemel & Salakhutdinov 2015: are two rows of the same class? Pairs of any class are scored alike: new
    classes need no training.

    The log-odds of a pair are b − Σ α |x − x′| over the normalised features of all views (§3.1, α > 0: a weighted L1
    distance). θ lowers the binary cross-entropy over pairs of an episode (§3.2): each support row with each query row
    and with each support row after it. Pairs of one class count half in all, the many more of two classes the other
    half. A class's score is the mean of a row's log-odds with its support rows, or the best of them (§4.3): the
    expected best of as many rows as the smallest class has, since the best of more is better by chance.
    """

    match: Literal["mean", "best"] = "mean"  # what the support rows of a class say together

    def __post_init__(self) -> None:
        if self.match not in ("mean", "best"):
            raise InputError(f"{self} is not possible: match is mean or best")

    def network(self, theta: Weights, width: int, generator: torch.Generator) -> Weights:
        """`siamese/weight` (V·D,), the logarithm of α, and `siamese/bias` (), b."""
        # Unit vectors of D numbers at the distance d are about √D · d apart in all. So 10 d on the mean of views.
        return {"siamese/weight": torch.full((width,), 10 * width**-0.5).log(), "siamese/bias": torch.tensor(5.0)}

    def query_loss(self, theta: Weights, phi: Weights, seen: Tensor, asked: Tensor, episodes: Pass) -> Tensor:
        """Of pairs, as above: (T,)."""
        support, query = episodes.support, episodes.query
        weight, bias = theta["siamese/weight"].exp(), theta["siamese/bias"]
        rows, others = normalized(seen) * weight, normalized(torch.cat([seen, asked])) * weight
        odds = bias - torch.cdist(rows, others, p=1)  # (support, support + query)
        task = torch.cat([support.task_of, query.task_of])
        same = support.targets[:, None] == torch.cat([support.targets, query.targets])
        paired = (support.task_of[:, None] == task).triu(1)  # each support row with those after it, and all query rows
        each = softplus(torch.where(same, -odds, odds))
        halves = list[Tensor]()
        for counted in (paired & same, paired & ~same):
            sums, counts = (per_task(x.sum(1), support) for x in (each * counted, counted.to(each.dtype)))
            halves.append(sums / counts.clamp(min=1))
        return 0.5 * halves[0] + 0.5 * halves[1]

    def condition(self, theta: Weights, features: Tensor, support: Batch) -> Weights:
        """`siamese/keys` (T, n, V·D), features times α, `siamese/classes` (T, n, K), above 0 at a row's class,
        `siamese/weight` (T, V·D) and `siamese/bias` (T,)."""
        sets, x = Sets.of(support), normalized(features) * theta["siamese/weight"].exp()
        own = {"siamese/keys": sets.stack(x), "siamese/classes": sets.classes(support, x)}
        return own | shared(pick(theta, "siamese/"), sets.tasks)

    def answer(self, phi: Weights, features: Tensor, batch: Batch) -> Tensor:
        x = normalized(features) * phi["siamese/weight"].index_select(0, batch.task_of).exp()
        apart = of_own_task(torch.cdist(x, phi["siamese/keys"], p=1), batch)  # (N, n)
        odds = phi["siamese/bias"].index_select(0, batch.task_of)[:, None] - apart
        classes = phi["siamese/classes"]
        lowest = odds.detach().amin(1, keepdim=True)  # for a class without support rows
        sizes = (classes > 0).sum(1)  # (T, K)
        kind, rows = kinds(classes, batch), sizes[batch.task_of]
        if self.match == "best":
            fewest = torch.where(sizes > 0, sizes, len(classes[0])).amin(1)
            found = best_of(odds, kind, rows, fewest[batch.task_of, None])
        else:
            found = sum_by_kind(odds, kind, classes.shape[2]) / rows.clamp(min=1)
        return torch.where(rows > 0, found, lowest)


def best_of(odds: Tensor, kind: Tensor, rows: Tensor, m: Tensor) -> Tensor:
    """Expected maximum over m rows drawn from each class: (N, n), (N, n) class numbers, (N, K) rows of each class,
    (N, 1) -> (N, K). Of a class's n rows, the one with j better ones is the best of C(n − 1 − j, m − 1) draws."""
    order = odds.argsort(1, descending=True)
    order = order.gather(1, kind.gather(1, order).argsort(dim=1, stable=True))  # class by class, the best first
    kind = kind.gather(1, order)
    place = torch.arange(kind.shape[1], device=kind.device) - torch.searchsorted(kind, kind)  # j
    n = torch.cat([rows, torch.zeros_like(m)], 1).gather(1, kind)
    share = _log_choose(n - 1 - place, m - 1) - _log_choose(n, m)
    share = torch.where(n - place >= m, share.exp(), 0.0).to(odds.dtype)
    return sum_by_kind(odds.gather(1, order) * share, kind, rows.shape[1])


def _log_choose(n: Tensor, m: Tensor) -> Tensor:
    """Logarithm of the binomial coefficient where 0 <= m <= n, any number elsewhere."""
    n, m = n.double(), m.double()
    return torch.lgamma(n + 1) - torch.lgamma(m + 1) - torch.lgamma((n - m).clamp(min=0) + 1)
