"""What methods that look at support rows side by side share.

Letters: N units, T tasks, n the length of a line, K classes, F numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from metanlp.heads.base import per_task
from metanlp.types import Batch, Weights


@dataclass(frozen=True)
class Sets:
    """Where units stand once each task has a line of its own: (N, …) -> (T, n, …); shorter lines end in zeros. In a
    line classes take turns, each spread evenly over it, and the rows of a class keep the order that they have in the
    batch: a batch is always read in the same order, and no class is long past at the end."""

    place: Tensor  # (N,) task · n + place in its line
    back: Tensor  # (N,) the same with every line read backwards
    ends: Tensor  # (T,) place of the last unit of each task in its line
    tasks: int  # T
    longest: int  # n: units of the largest task; N, where the batch does not know how many that has

    @staticmethod
    def of(batch: Batch) -> Sets:
        counts = per_task(torch.ones_like(batch.task_of), batch)
        longest = batch.max_units or len(batch.task_of)  # `counts` would have to be asked of the device
        spot = places(batch) - (counts.cumsum(0) - counts)[batch.task_of]
        start = batch.task_of * longest
        return Sets(start + spot, start + counts[batch.task_of] - 1 - spot, counts - 1, batch.count_tasks, longest)

    def stack(self, x: Tensor, place: Tensor | None = None) -> Tensor:
        """(N, …) -> (T, n, …)"""
        lines = x.new_zeros(self.tasks * self.longest, *x.shape[1:])
        return lines.index_copy(0, self.place if place is None else place, x).view(self.tasks, -1, *x.shape[1:])

    def last(self, lines: Tensor) -> Tensor:
        """What stands at the end of each line: (T, n, …) -> (T, …)."""
        return lines[torch.arange(self.tasks, device=lines.device), self.ends]

    def classes(self, batch: Batch, like: Tensor) -> Tensor:
        """One-hot targets: (T, n, K); all zeros where a line has ended."""
        return self.stack(one_hot(batch.targets, batch.max_ways).to(like))


def places(batch: Batch) -> Tensor:
    """Where each unit comes in the order of reading, tasks one after the other: (N,)."""
    own = batch.task_of * batch.max_ways + batch.targets
    member = one_hot(own, batch.count_tasks * batch.max_ways)
    turn = ((member.cumsum(0) * member).sum(1) - 0.5) / member.sum(0)[own]
    order = torch.argsort(turn, stable=True)
    order = order[torch.argsort(batch.task_of[order], stable=True)]
    return torch.argsort(order)


def of_own_task(each: Tensor, batch: Batch) -> Tensor:
    """From what units are to every task, what they are to their own: (T, N, …) -> (N, …)."""
    return each[batch.task_of, torch.arange(len(batch.task_of), device=each.device)]


def products(x: Tensor, keys: Tensor, batch: Batch) -> Tensor:
    """Of each unit with the rows of its own task: (N, F), (T, n, F) -> (N, n)."""
    return of_own_task(torch.einsum("nf,tmf->tnm", x, keys), batch)


def attended(near: Tensor, values: Tensor, batch: Batch) -> Tensor:
    """Mean of the rows of its own task, with the softmax of `near` as weights: (N, n), (T, n, F) -> (N, F)."""
    return of_own_task(torch.einsum("nm,tmf->tnf", near.softmax(-1), values), batch)


def shared(w: Weights, tasks: int) -> Weights:
    """Weights that all tasks have in common as a part of φ: views, not copies. (…) -> (T, …)"""
    return {key: value.expand(tasks, *value.shape) for key, value in w.items()}


def recurrent(name: str, gates: int, inputs: int, hidden: int, generator: torch.Generator) -> Weights:
    """The weights of an LSTM (four gates) or a GRU (three), as torch's own layers start, below `name`."""
    shapes = {"w_ih": (inputs,), "w_hh": (hidden,), "b_ih": (), "b_hh": ()}
    scale = hidden**-0.5
    return {
        f"{name}/{key}": (torch.rand(gates * hidden, *rest, generator=generator) * 2 - 1) * scale
        for key, rest in shapes.items()
    }


def in_order(w: Weights, name: str) -> list[Tensor]:
    """What `recurrent` made, in the order in which torch wants it."""
    return [w[f"{name}/{key}"] for key in ("w_ih", "w_hh", "b_ih", "b_hh")]
