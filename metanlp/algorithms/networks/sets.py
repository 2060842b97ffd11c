"""What methods that look at support rows side by side share.

Letters: N units, T tasks, n the length of a line, K classes, F numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from metanlp.core.types import Batch, Weights
from metanlp.forms.heads.base import of_own_task, per_task, votes


@dataclass(frozen=True)
class Sets:
    """A line of units for each task: (N, …) -> (T, n, …); shorter lines end in zeros. Classes are spread evenly over
    the line, and the rows of a class keep the order of the batch: the order is a function of the batch, and no class is
    long past at the end."""

    place: Tensor  # (N,) task · n + place in its line
    back: Tensor  # (N,) the same with every line read backwards
    ends: Tensor  # (T,) place of the last unit in each line
    tasks: int  # T
    longest: int  # n: units of the largest task; N where the batch does not know that

    @staticmethod
    def of(batch: Batch) -> Sets:
        own = batch.task_of * batch.max_ways + batch.targets
        member = one_hot(own, batch.count_tasks * batch.max_ways)
        turn = ((member.cumsum(0) * member).sum(1) - 0.5) / member.sum(0)[own]
        order = torch.argsort(turn, stable=True)
        order = order[torch.argsort(batch.task_of[order], stable=True)]  # of reading, tasks one after the other
        counts = per_task(torch.ones_like(batch.task_of), batch)
        longest = batch.max_units or len(batch.task_of)  # `counts` would have to be asked of the device
        spot = torch.argsort(order) - (counts.cumsum(0) - counts)[batch.task_of]
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
        """The votes of each unit at its class, 0 at the others: (T, n, K); all zeros where a line has ended."""
        return self.stack(one_hot(batch.targets, batch.max_ways).to(like) * votes(batch).to(like)[:, None])


def kinds(classes: Tensor, batch: Batch) -> Tensor:
    """For each unit the class numbers of its task's line, from `Sets.classes`: (T, n, K) -> (N, n); K where the line
    has ended."""
    there = classes.sum(-1) > 0
    return torch.where(there, classes.argmax(-1), classes.shape[2])[batch.task_of]


def sum_by_kind(values: Tensor, kind: Tensor, ways: int) -> Tensor:
    """Sum over a line by class number: (N, n), (N, n) -> (N, K), without kind K."""
    return values.new_zeros(len(values), ways + 1).scatter_add(1, kind, values)[:, :ways]


def attended(near: Tensor, values: Tensor, batch: Batch) -> Tensor:
    """For each unit the mean of its task's rows, weighted by the softmax of `near`: (N, n), (T, n, F) -> (N, F)."""
    return of_own_task(torch.einsum("nm,tmf->tnf", near.softmax(-1), values), batch)


def shared(w: Weights, tasks: int) -> Weights:
    """Weights of θ as a part of φ: views, not copies. (…) -> (T, …)"""
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
    """The weights of `recurrent`, in the order of torch's functions."""
    return [w[f"{name}/{key}"] for key in ("w_ih", "w_hh", "b_ih", "b_hh")]
