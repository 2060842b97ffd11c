"""What the tests of gradients share: a small net in float64, θ off its beginning, distances."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metanlp.algorithms import Maml, ProtoNet
from metanlp.algorithms.inner import Inner
from metanlp.backbone.packing import pack
from metanlp.core import weights
from metanlp.core.types import Batch, Episode, Pass, Tokens, Weights

FREE = Inner(steps=3, lr=0.5, head_lr=0.3, clip=1e9)
CLIPPED = replace(FREE, clip=0.05)  # binds on every task, at every step
ADAM = Inner(steps=3, lr=0.02, head_lr=0.01, clip=0.3, optimiser="adam")


def inner_product(a: Weights, b: Weights) -> float:
    return sum(float((a[key] * b[key]).sum()) for key in b)


# In float64.


class Toy:
    """Mean token vectors through a layer with an adapter of rank 2, and a second one: all that a method asks of a
    backbone."""

    width, view_names, wide, rank = 6, ("adapted.1.all", "adapted.2.all"), 5, 2

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        sizes = ((40, self.wide), (self.width, self.wide), (self.width, self.width))
        self.table, self.first, self.second = (torch.randn(size, generator=generator) for size in sizes)

    def init(self, generator: torch.Generator) -> Weights:
        down = torch.rand(self.rank, self.wide, generator=generator) - 0.5
        return {"lora/down": down, "lora/up": torch.zeros(self.width, self.rank)}

    def with_trunk(self, batch: Batch) -> Batch:
        return batch

    def features(self, w: Weights, batch: Batch) -> Tensor:
        shared = w["lora/down"].dim() == 2
        down, up = (w[key] if shared else w[key][batch.task_of] for key in ("lora/down", "lora/up"))
        sums = torch.zeros(len(batch.lengths), self.wide).index_add(0, batch.example_of, self.table[batch.ids])
        x = sums / batch.lengths[:, None]
        hidden = torch.tanh(x @ self.first.T + (up @ (down @ x[..., None]))[..., 0])
        return torch.stack([hidden, torch.tanh(hidden @ self.second.T)], 1)

    def work(self, batch: Batch, passes: int) -> int:
        return batch.count_tokens * passes


def toy_episode(number: int, ways: int, shots: int) -> Episode:
    rng = np.random.default_rng(number)
    rows = ways * (shots + 2)
    lengths = rng.integers(2, 5, rows)
    total, starts = int(lengths.sum()), np.cumsum([0, *lengths])
    tokens = Tokens(rng.integers(0, 40, total), np.zeros(total, np.int64), np.ones(total, np.int64), starts)
    support, query = np.arange(ways * shots), np.arange(ways * shots, rows)
    sides = [pack(tokens, side, side % ways, ways) for side in (support, query)]
    return Episode(f"toy/{number}", number, tuple(range(ways)), tuple(support), tuple(query), *sides)


def outer_loss(algorithm: Maml | ProtoNet, net: Any, theta: Weights, given: Pass) -> Tensor:
    """What the outer loop minimises, by adapting and answering alone, summed over tasks: ()."""
    total = torch.zeros(())
    for steps, share in enumerate(algorithm.shares() if isinstance(algorithm, Maml) else (1.0,)):
        if not share:
            continue
        fewer = replace(algorithm, inner=replace(algorithm.inner, steps=steps))
        phi = fewer.adapt(net, theta, given.support)
        seen, asked = (net.features(phi, side) for side in (given.support, given.query))
        total = total + share * fewer.outer_loss(theta, phi, seen, asked, given)[1].sum()
    return total


def slopes(
    algorithm: Maml | ProtoNet, net: Any, theta: Weights, given: Pass, ways: list[Weights], size: float
) -> list[float]:
    """Of the outer loss along each of `ways`, by central differences of fourth order."""
    found: list[float] = []
    for way in ways:
        ends = [weights.add(theta, way, by * size) for by in (2, 1, -1, -2)]
        far_up, up, down, far_down = (float(outer_loss(algorithm, net, end, given).double()) for end in ends)
        found.append((8 * (up - down) - (far_up - far_down)) / (12 * size))
    return found
