"""The contract of a head, and what heads share: linear scores, and weights over views.

Letters: N units that get scores, V views, D features, K classes or other scores a unit, T tasks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn.functional import normalize

from metanlp.core.types import Batch, Weights


class Head(ABC):
    """From a support set, in closed form, to a linear layer on normalised features; a residual that starts at zero is
    what inner steps move. θ is passed in as the head's own part, without the name of a form in front."""

    @abstractmethod
    def init(self, views: int, width: int) -> Weights:
        """The head's part of θ, for `width` features a view."""

    def residual(self, width: int, batch: Batch) -> Weights:
        """Zeros for features of `width` = V·D: `head/weight` (T, K, V·D), `head/bias` (T, K)."""
        tasks, ways, device = batch.count_tasks, batch.max_ways, batch.ways.device
        return {
            "head/weight": torch.zeros(tasks, ways, width, device=device),
            "head/bias": torch.zeros(tasks, ways, device=device),
        }

    @abstractmethod
    def evidence(self, theta: Weights, features: Tensor, batch: Batch) -> Weights:
        """`views/loss` (T, V): √n times the mean left-out loss of each view over n rows, because the doubt about that
        mean shrinks with √n."""

    @abstractmethod
    def left_out(self, theta: Weights, moved: Weights, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Support units scored by a head that has not seen them: (N, K), and which of them count: (N,).

        `moved` holds the residual, and `evidence` where that is not to be read off these features."""

    @abstractmethod
    def finish(self, theta: Weights, moved: Weights, features: Tensor, batch: Batch) -> Weights:
        """φ's head, closed form and residual in one: `head/weight` (T, K, V·D), `head/bias` (T, K)."""

    def known(self, theta: Weights, features: Tensor, batch: Batch) -> Tensor | float:
        """What θ alone says of units, before any support set: (N, K); nothing where classes are each task's own."""
        return 0.0

    def scores(self, phi: Weights, features: Tensor, batch: Batch) -> Tensor:
        """(N, V, D) -> (N, K); −inf beyond a task's own classes."""
        return linear_scores(phi["head/weight"], phi["head/bias"], features, batch)


def view_weights(theta: Weights, loss: Tensor) -> Tensor:
    """Softmax of prior less what the evidence says against each view: (T, V) -> (T, V)."""
    return torch.softmax(theta["views/prior"] - theta["views/trust"].exp() * loss, dim=-1)


def normalized(features: Tensor) -> Tensor:
    """Each view to length one, then end to end: (N, V, D) -> (N, V·D)."""
    return normalize(features, dim=-1).flatten(1)


def linear_scores(weight: Tensor, bias: Tensor, features: Tensor, batch: Batch) -> Tensor:
    """Scores of normalised features under each task's own linear head: (T, K, V·D), (T, K), (N, V, D) -> (N, K)."""
    x = normalized(features)
    return (products(x, weight, batch) + bias.index_select(0, batch.task_of)).masked_fill(beyond(batch), -math.inf)


def products(x: Tensor, keys: Tensor, batch: Batch) -> Tensor:
    """Products of each unit with the vectors of its own task: (N, F), (T, M, F) -> (N, M)."""
    if len(keys) == 1:
        return x @ keys[0].T
    # With the vectors of all tasks: picking each unit's own first would copy M vectors for every unit.
    return of_own_task(torch.einsum("nf,tmf->tnm", x, keys), batch)


def of_own_task(each: Tensor, batch: Batch) -> Tensor:
    """Of the results for every task, those of each unit's own task: (T, N, …) -> (N, …)."""
    return each[batch.task_of, torch.arange(len(batch.task_of), device=each.device)]


def beyond(batch: Batch) -> Tensor:
    """True at the classes that a row's task does not have: (N, K)."""
    classes = torch.arange(batch.max_ways, device=batch.ways.device)
    return classes >= batch.ways[batch.task_of][:, None]


def class_sizes(batch: Batch, of: Tensor | None = None) -> Tensor:
    """Units of each class, or the sum over them of the values `of` (N,): (T, K)."""
    values = torch.ones(len(batch.targets), device=batch.targets.device) if of is None else of
    sums = values.new_zeros(batch.count_tasks * batch.max_ways)
    return sums.index_add(0, batch.task_of * batch.max_ways + batch.targets, values).view(-1, batch.max_ways)


def balanced(scores: Tensor, usable: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Left-out scores (N, K, …), and the weights of their units in a mean loss (N,), by which every class counts alike:
    1 for usable units where classes are equally large, 0 for others. Units of a background class count 1.

    A class without usable units gets −∞ there: no unit speaks for it, so the others would only learn to avoid it.
    Where answers are no classes, both stay as they are.
    """
    if batch.targets.is_floating_point():
        return scores, usable
    sizes, named = class_sizes(batch, usable), slice(int(batch.background), None)
    silent = (sizes == 0)[batch.task_of] & (usable > 0)[:, None]
    mean = sizes[:, named].sum(1) / (sizes[:, named] > 0).sum(1).clamp(min=1)
    sizes = with_background(sizes, mean, batch)
    weight = usable * mean[batch.task_of] / sizes[batch.task_of, batch.targets].clamp(min=1)
    return scores.masked_fill(silent.view(*silent.shape, *[1] * (scores.dim() - 2)), -math.inf), weight


def votes(batch: Batch) -> Tensor:
    """How much each support unit counts where units vote for their class, so that all classes of a task have as many
    votes as its largest: (N,), 1 where classes are equally large or answers are no classes."""
    if batch.targets.is_floating_point():
        return torch.ones(len(batch.targets), device=batch.targets.device)
    sizes, largest = compared_sizes(batch)
    return largest[batch.task_of, 0] / sizes[batch.task_of, batch.targets]


def compared_sizes(batch: Batch) -> tuple[Tensor, Tensor]:
    """Rows of each class (T, K), and those of the largest class of each task (T, 1). A background class, which is
    common by nature, counts as no larger than the largest of the others."""
    sizes = class_sizes(batch)
    largest = sizes[:, int(batch.background) :].amax(1)
    return with_background(sizes, largest, batch), largest[:, None]


def with_background(sizes: Tensor, value: Tensor, batch: Batch) -> Tensor:
    """The sizes (T, K) with `value` (T,) at the background class, where the form has one."""
    return torch.cat([value[:, None], sizes[:, 1:]], 1) if batch.background else sizes


def per_task(values: Tensor, batch: Batch) -> Tensor:
    """Sum over the rows of each task: (N, …) -> (T, …)."""
    return values.new_zeros(batch.count_tasks, *values.shape[1:]).index_add(0, batch.task_of, values)
