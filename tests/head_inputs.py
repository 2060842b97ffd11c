"""Batches and features for heads, which read no tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metanlp.core.types import Batch


def labelled(tasks: Sequence[Sequence[int]], ways: Sequence[int] | None = None) -> Batch:
    """A batch of one-token rows: a head reads no tokens."""
    counts = [len(targets) for targets in tasks]
    ways = ways or [max(targets) + 1 for targets in tasks]
    n = sum(counts)
    zeros = torch.zeros(n, dtype=torch.long)
    return Batch(
        ids=zeros,
        positions=zeros,
        types=zeros,
        segments=zeros,
        example_of=torch.arange(n),
        lengths=zeros + 1,
        task_of=torch.repeat_interleave(torch.arange(len(tasks)), torch.tensor(counts)),
        targets=torch.tensor([target for targets in tasks for target in targets]),
        group=torch.arange(n),
        ways=torch.tensor(ways),
        ends=torch.tensor(counts).cumsum(0).int(),
        runs=((n, 1),),
        max_ways=max(ways),
    )


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
