"""The contract of a head, and what heads share: linear scores, and weights over views.

Letters: N units that get scores, V views, D features, K classes or other scores a unit, T tasks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn.functional import normalize

from metanlp.types import Batch, Weights


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
    if weight.shape[0] == 1:
        scores = x @ weight[0].T + bias[0]
    else:
        scores = torch.einsum("nf,nkf->nk", x, weight[batch.task_of]) + bias[batch.task_of]
    return scores.masked_fill(beyond(batch), -math.inf)


def beyond(batch: Batch) -> Tensor:
    """True at the classes that a row's task does not have: (N, K)."""
    classes = torch.arange(batch.max_ways, device=batch.ways.device)
    return classes >= batch.ways[batch.task_of][:, None]


def per_task(values: Tensor, batch: Batch) -> Tensor:
    """Sum over the rows of each task: (N, …) -> (T, …)."""
    return values.new_zeros(batch.count_tasks, *values.shape[1:]).index_add(0, batch.task_of, values)
