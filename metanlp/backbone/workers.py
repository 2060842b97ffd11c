"""Passes, or parts of one, side by side on the cores of a CPU, one thread each.

The usual way, many cores inside every operation, waits for the slowest core thousands of times a pass and leaves small
operations to one. Here the cores meet twice a pass, or only when all passes are done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metanlp.types import Batch, Weights

T = TypeVar("T")
Read = Callable[[Weights, Batch], Tensor]
"""What is read off a part of a batch, zeros for what is elsewhere, so that parts add up."""


def whole_passes(calls: Sequence[Callable[[], T]], device: torch.device, total: int) -> list[T]:
    """What calls give that each run a model, out of `total` that all processes make."""
    return _spread(calls) if at_a_time(device, total) > 1 else [call() for call in calls]


def at_a_time(device: torch.device, total: int) -> int:
    """How many of `total` passes a process runs at once. Where they would keep all cores of a CPU busy, every pass has
    one thread for itself; else, and on other devices, they follow each other. Either way has its own roundings, so how
    many of the passes are this process's own plays no part."""
    return torch.get_num_threads() if device.type == "cpu" and total >= (os.cpu_count() or 1) else 1


def side_by_side(calls: Sequence[Callable[[], T]]) -> list[T]:
    """What the calls give, as many at a time as there are threads; a single one has them all."""
    return _spread(calls) if calls[1:] and torch.get_num_threads() > 1 else [call() for call in calls]


def _spread(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Each call in a thread, with gradients as here. The first error is raised."""
    grads = torch.is_grad_enabled()

    def as_here(call: Callable[[], T]) -> T:
        with torch.set_grad_enabled(grads):
            return call()

    return list(_threads(torch.get_num_threads()).map(as_here, calls))


def summed(read: Read, w: Weights, parts: Sequence[Batch]) -> Tensor:
    """The sum of what `read` gives for the parts, side by side, and so are its gradients. They can't be differentiated
    again."""
    if not torch.is_grad_enabled():
        return torch.stack(side_by_side([lambda part=part: read(w, part) for part in parts])).sum(0)
    moving = [key for key, value in w.items() if value.requires_grad]
    found: Any = _Summed.apply(read, w, parts, moving, *(w[key] for key in moving))
    return found


class _Summed(torch.autograd.Function):
    """Every part has its own graph from its own leaves; going back, each thread walks one of them."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, read: Read, w: Weights, parts: Sequence[Batch], moving: Sequence[str], *values: Tensor
    ) -> Tensor:
        def run(part: Batch) -> tuple[list[Tensor], Tensor]:
            leaves = [value.detach().requires_grad_() for value in values]
            with torch.enable_grad():
                return leaves, read(w | dict(zip(moving, leaves, strict=True)), part)

        ctx.graphs = side_by_side([lambda part=part: run(part) for part in parts])
        return torch.stack([out.detach() for _, out in ctx.graphs]).sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        def back(leaves: list[Tensor], out: Tensor) -> tuple[Tensor, ...]:
            return torch.autograd.grad(out, leaves, grad, materialize_grads=True)

        found = side_by_side([lambda graph=graph: back(*graph) for graph in ctx.graphs])
        return None, None, None, None, *(torch.stack(each).sum(0) for each in zip(*found, strict=True))


@lru_cache(maxsize=1)
def _threads(count: int) -> ThreadPoolExecutor:
    """Threads that compute with one core each."""
    cores, all_there = torch.get_num_threads(), Barrier(count + 1)

    def begin() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # a thread that has not asked takes the number said last, when it first computes
        all_there.wait()

    executor = ThreadPoolExecutor(count, "metanlp", begin)
    for _ in range(count):
        executor.submit(int)
    all_there.wait()
    torch.set_num_threads(cores)  # said again, for threads that others start
    return executor


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # a child has none of these threads
