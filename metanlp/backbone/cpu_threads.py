"""Passes, or parts of one, side by side on the cores of a CPU, one thread each.

With all cores inside every operation, a pass waits for the slowest core thousands of times. Here they meet twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from threading import Barrier
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metanlp.core.types import Batch, Weights

T = TypeVar("T")
Read = Callable[[Weights, Batch], Tensor]
"""Values of a part of a batch, zeros for the rest, so that parts add up."""


def whole_passes(calls: Sequence[Callable[[], T]], device: torch.device, total: int) -> list[T]:
    """Results of calls that each run a model; all processes together make `total` of them."""
    return _spread(calls) if at_a_time(device, total) > 1 else [call() for call in calls]


def at_a_time(device: torch.device, total: int) -> int:
    """How many passes a process runs at once: one a thread where `total` passes would keep all cores of a CPU busy,
    else one. Each way rounds differently, so the choice depends on the passes of all processes, not on its own."""
    return torch.get_num_threads() if device.type == "cpu" and total >= (os.cpu_count() or 1) else 1


def side_by_side(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Results of the calls, one thread each, also of a single one: how threads share a product changes its bits."""
    return _spread(calls) if torch.get_num_threads() > 1 else [call() for call in calls]


def _spread(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Each call in a thread, with gradients on or off as here. Raises the first error."""
    grads = torch.is_grad_enabled()

    def as_here(call: Callable[[], T]) -> T:
        with torch.set_grad_enabled(grads):
            return call()

    return list(_threads(torch.get_num_threads()).map(as_here, calls))


def summed(read: Read, w: Weights, parts: Sequence[Batch]) -> Tensor:
    """The sum of `read` over the parts, computed side by side, as are its first derivatives; it has no second ones."""
    if not torch.is_grad_enabled():
        return torch.stack(side_by_side([partial(read, w, part) for part in parts])).sum(0)
    moving = [key for key, value in w.items() if value.requires_grad]
    found: Any = _Summed.apply(read, w, parts, moving, *(w[key] for key in moving))
    return found


class _Summed(torch.autograd.Function):
    """Every part has its own graph from its own leaves; each thread goes back through one of them."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, read: Read, w: Weights, parts: Sequence[Batch], moving: Sequence[str], *values: Tensor
    ) -> Tensor:
        def run(part: Batch) -> tuple[list[Tensor], Tensor]:
            leaves = [value.detach().requires_grad_() for value in values]
            with torch.enable_grad():
                return leaves, read(w | dict(zip(moving, leaves, strict=True)), part)

        ctx.graphs = side_by_side([partial(run, part) for part in parts])
        return torch.stack([out.detach() for _, out in ctx.graphs]).sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        back = partial(torch.autograd.grad, grad_outputs=grad, materialize_grads=True)
        found = side_by_side([partial(back, out, leaves) for leaves, out in ctx.graphs])
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
    torch.set_num_threads(cores)  # for threads that others start
    return executor


def _begin_child() -> None:
    """A forked child has none of these threads, nor torch's own, for which it would wait forever."""
    _threads.cache_clear()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_child)
