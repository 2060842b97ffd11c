"""Siamese networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from metanlp.algorithms.direct import Direct
from metanlp.algorithms.sets import Sets, of_own_task, shared
from metanlp.errors import InputError
from metanlp.heads import normalized
from metanlp.heads.base import per_task
from metanlp.types import Batch, Weights


@dataclass(frozen=True)
class Siamese(Direct):
    """Koch, Zemel & Salakhutdinov 2015: are two rows of the same class? Pairs of any class answer alike, so that new
    classes need no training.

    The logarithm of the odds is b − Σ α |x − x′| over the normalised features of all views (§3.1, with α > 0, which
    makes it a weighted L1 distance). θ lowers the binary cross-entropy over pairs of an episode (§3.2): of each support
    row with each query row and with each support row after it. Pairs of one class count half in all, pairs of two
    classes, of which there are many more, the other half. The score of a class is the mean of a row's log-odds with
    its support rows, or the best of them (§4.3).
    """

    match: Literal["mean", "best"] = "mean"  # what the support rows of a class say together

    def __post_init__(self) -> None:
        if self.match not in ("mean", "best"):
            raise InputError(f"{self} is not possible: match is mean or best")

    def network(self, width: int, generator: torch.Generator) -> Weights:
        """`siamese/weight` (V·D,), the logarithm of α, and `siamese/bias` (), b."""
        # Unit vectors of D numbers at the distance d are about √D · d apart in all. So 10 d on the mean of views.
        return {"siamese/weight": torch.full((width,), 10 * width**-0.5).log(), "siamese/bias": torch.tensor(5.0)}

    def loss(self, theta: Weights, seen: Tensor, asked: Tensor, support: Batch, query: Batch) -> Tensor:
        """Of pairs, as above: (T,)."""
        weight, bias = theta["siamese/weight"].exp(), theta["siamese/bias"]
        rows, others = normalized(seen) * weight, normalized(torch.cat([seen, asked])) * weight
        odds = bias - torch.cdist(rows, others, p=1)  # (support, support + query)
        task = torch.cat([support.task_of, query.task_of])
        same = support.targets[:, None] == torch.cat([support.targets, query.targets])
        paired = (support.task_of[:, None] == task).triu(1)  # each support row with those after it, and all query rows
        each = softplus(torch.where(same, -odds, odds))
        halves = [mean_of_pairs(each, paired & kind, support) for kind in (same, ~same)]
        return 0.5 * halves[0] + 0.5 * halves[1]

    def condition(self, theta: Weights, features: Tensor, support: Batch) -> Weights:
        """`siamese/keys` (T, n, V·D), features times α, `siamese/classes` (T, n, K), one-hot, zeros where a set has
        ended, `siamese/weight` (T, V·D) and `siamese/bias` (T,)."""
        sets, x = Sets.of(support), normalized(features) * theta["siamese/weight"].exp()
        own = {"siamese/keys": sets.stack(x), "siamese/classes": sets.classes(support, x)}
        return own | shared({key: theta[key] for key in ("siamese/weight", "siamese/bias")}, support.count_tasks)

    def answer(self, phi: Weights, features: Tensor, batch: Batch) -> Tensor:
        x = normalized(features) * phi["siamese/weight"][batch.task_of].exp()
        apart = of_own_task(torch.cdist(x, phi["siamese/keys"], p=1), batch)  # (N, n)
        odds, theirs = phi["siamese/bias"][batch.task_of, None] - apart, phi["siamese/classes"][batch.task_of]
        lowest = odds.detach().amin(1, keepdim=True)  # for a class without support rows
        if self.match == "best":
            return torch.where(theirs > 0, odds[..., None], lowest[..., None]).amax(1)
        count = theirs.sum(1)
        return torch.where(count > 0, torch.einsum("nm,nmk->nk", odds, theirs) / count.clamp(min=1), lowest)


def mean_of_pairs(each: Tensor, counted: Tensor, support: Batch) -> Tensor:
    """Mean over the pairs of each task that count, 0 where there are none: (S, M), (S, M) -> (T,)."""
    sums, counts = (per_task(x.sum(1), support) for x in (each * counted, counted.to(each.dtype)))
    return sums / counts.clamp(min=1)
