"""What networks over a support set share: rows on a common scale, and attention that is called with weights.

Nothing here depends on the order of rows or the numbers of classes: classes enter as which rows are alike.
Letters: N rows, M rows that are looked at, V views, D features, F = V·D, T tasks, W width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, normalize, scaled_dot_product_attention

from metanlp.core.types import Batch, Weights
from metanlp.core.weights import pick_inside
from metanlp.forms.heads.base import per_task, votes

HEADS = 4  # of every attention
FLOOR = 1e-4  # added to the variance of a view's features, whose lengths are one: all rows may be alike


def matrix(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """A linear layer that keeps the scale of its input: (rows, columns)."""
    return torch.randn(rows, columns, generator=generator) / math.sqrt(columns)


def set_weights(inputs: int, width: int, blocks: Iterable[str], generator: torch.Generator) -> Weights:
    """Of `rows` and of blocks, below their names. `alike` (HEADS,) is how much more a row looks at rows alike than at
    others, in nats; half of the heads begin with their own class, half with the others."""
    made = {"embed": matrix(width, inputs, generator), "agree": matrix(width, width, generator)}
    sizes = {"query": 1, "key": 1, "value": 1, "out": 1, "up": 2}
    for name in blocks:
        made |= {f"{name}/{key}": matrix(size * width, width, generator) for key, size in sizes.items()}
        made[f"{name}/down"] = matrix(width, 2 * width, generator)
        made[f"{name}/alike"] = torch.linspace(-2, 2, HEADS)
    return made


def block(w: Weights, x: Tensor, seen: Tensor, bias: Tensor) -> Tensor:
    """Each of x looks at what is seen, then at itself: (…, N, W), (…, M, W), (…, HEADS or 1, N or 1, M) -> (…, N, W).

    The multihead attention block of Lee et al. 2019, arXiv 1810.00825, eq. 6-7, normed before and not after; `bias` is
    added to the logits of attention, −∞ at what is not to be seen.
    """
    query, seen = heads(norm(x) @ w["query"].T), norm(seen)
    found = scaled_dot_product_attention(query, heads(seen @ w["key"].T), heads(seen @ w["value"].T), attn_mask=bias)
    x = x + found.transpose(-3, -2).flatten(-2) @ w["out"].T
    return x + gelu(norm(x) @ w["up"].T) @ w["down"].T


def heads(x: Tensor) -> Tensor:
    """(…, N, W) -> (…, HEADS, N, W / HEADS)"""
    return x.unflatten(-1, (HEADS, -1)).transpose(-3, -2)


def norm(x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:])


def unseen(visible: Tensor) -> Tensor:
    """What to add to the logits of attention: 0 where `visible`, else −∞."""
    return torch.zeros_like(visible, dtype=torch.float32).masked_fill(~visible, -math.inf)


def rows(w: Weights, x: Tensor, support: Batch) -> Tensor:
    """Support rows as a network first sees them: (N, F) -> (N, W). To each row is added its product with the mean of
    the other rows alike; averaged, these products tell in which directions classes differ. Without them attention did
    not learn in hundreds of steps which words tell the classes of a task apart."""
    e = x @ w["embed"].T
    others = alike(support) * (support.task_of[:, None] == support.task_of)
    others = others - torch.diag(others.diag())
    rest = others / others.sum(1, keepdim=True).clamp(min=1e-6) @ e
    return e + (e * rest) @ w["agree"].T


def encoded(w: Weights, x: Tensor, support: Batch, layers: int) -> list[Tensor]:
    """Support rows before each layer and after the last, from standard features (N, F): layers + 1 of (N, W)."""
    states = [rows(w, x, support)]
    for number in range(layers):
        layer = pick_inside(w, f"{number}/")
        states.append(block(layer, states[-1], states[-1], among(layer, support)))
    return states


def among(w: Weights, support: Batch) -> Tensor:
    """The bias with which support rows look at those of their own task, at every class as much as if it were as large
    as the largest: (HEADS, N, N)."""
    same_task = unseen(support.task_of[:, None] == support.task_of)
    return w["alike"][:, None, None] * alike(support) + same_task + votes(support).log()


def alike(support: Batch) -> Tensor:
    """1 for rows with the same answer, 0 for different classes, in between for numbers and sets of labels: 1 less their
    mean difference. (N, N)"""
    y = support.targets
    if not y.is_floating_point():
        return (y[:, None] == y).float()
    y = y.view(len(y), -1)
    return 1 - torch.cdist(y, y, p=1) / support.ways[support.task_of]


def moments(features: Tensor, support: Batch) -> tuple[Tensor, Tensor]:
    """Mean of each task's normalised support features (T, V, D), and their standard deviation view by view (T, V);
    every class counts alike."""
    x, weight = normalize(features, dim=-1), votes(support).to(features.dtype)[:, None]
    counts = per_task(weight, support).clamp(min=1)
    mean = per_task(x * weight[..., None], support) / counts[..., None]
    apart = (x - mean.index_select(0, support.task_of)).square().sum(-1)
    return mean, (per_task(apart * weight, support) / counts + FLOOR).sqrt()


def standard(features: Tensor, mean: Tensor, spread: Tensor, batch: Batch) -> Tensor:
    """Features less their mean, over their deviation, entries about one: (N, V, D) -> (N, F). What all texts have in
    common is most of a feature, and says nothing."""
    x = normalize(features, dim=-1) - mean.index_select(0, batch.task_of)
    return (x / spread.index_select(0, batch.task_of)[..., None] * math.sqrt(x.shape[-1])).flatten(1)
