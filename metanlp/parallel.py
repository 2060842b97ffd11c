"""Many processes as one: the only code that knows that others exist, and the only door of accelerate.

Start them with `torchrun --standalone --nproc_per_node N …` or `accelerate launch`, with
TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 where restarts are wanted. `accelerate launch --cpu --num_processes 2` runs one
process and says nothing, so print `Ranks.size`. Nothing is wrapped in DistributedDataParallel: its hooks do not see
`autograd.grad`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from metanlp import weights
from metanlp.errors import EXIT_CODES, InputError
from metanlp.types import Weights

T = TypeVar("T")
Part = tuple[int, Weights, float | Tensor, int]
"""What one pass brings: its number, its gradient, its summed loss, its tokens."""

# Tokens travel in two float32 numbers, high · BASE + low. Both stay whole (below 2²⁴) for up to 4,096 processes and
# 2³⁶ tokens a step.
BASE = 4096
LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")  # by these, launchers tell libraries of others


@dataclass(frozen=True)
class Ranks:
    """This process among all of them. What a method returns is the same on every rank unless it says otherwise."""

    index: int  # 0 … size − 1
    size: int  # number of processes
    device: torch.device  # where this rank computes

    @staticmethod
    def start(cpu: bool = False, threads: int | None = None) -> Ranks:
        """Join the processes that the launcher started, or be the only one. `cpu` leaves GPUs alone. `threads` is what
        each process computes with, by default its share of the cores or OMP_NUM_THREADS.

        Raises InputError if accelerate sees fewer processes than the launcher started.
        """
        from accelerate import PartialState

        if wanted := threads or threads_each(os.environ):
            torch.set_num_threads(wanted)
        # Without a GPU and without being told so, accelerate takes every process for the only one, and says nothing.
        state = PartialState(cpu=cpu or not torch.accelerator.is_available())
        if state.num_processes != (started := int(os.environ.get("WORLD_SIZE", "1"))):
            raise InputError(
                f"the launcher started {started} processes but accelerate joins {state.num_processes}: each would "
                "train alone; start one process, or call `Ranks.start` before anything else starts accelerate"
            )
        device = state.device or torch.device("cpu")
        # accelerate numbers CPUs, tensors do not.
        return Ranks(state.process_index, state.num_processes, torch.device("cpu") if device.type == "cpu" else device)

    @staticmethod
    def alone() -> Ranks:
        """One process, on a GPU if there is one; for notebooks and tests."""
        return Ranks(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    @property
    def main(self) -> bool:
        """Whether this rank writes files and talks to people."""
        return self.index == 0

    def mine(self, count: int) -> range:
        """The passes dealt to this rank, out of `count`."""
        return range(self.index, count, self.size)

    def total(self, parts: Iterable[Part], like: Weights, count: int, *, exact: bool) -> tuple[Weights, float, int]:
        """Gradient (float32), loss and tokens, summed over all `count` passes of all ranks, by one collective.

        `parts` are this rank's passes, numbered as `mine(count)` deals them, in that order; a rank without any joins
        all the same. `like` gives keys and shapes; a key that a gradient lacks counts as zero. `exact` gathers every
        pass and adds in the order of the numbers: bitwise the same for any number of processes, at the price of
        moving and holding all of them. Otherwise each rank adds its own first: the same to about 1e-6.
        """
        width = sum(value.numel() for value in like.values())
        rows = (_join(_vector(grad, like), loss, tokens) for _, grad, loss, tokens in self._checked(parts, count))
        if exact and self.size > 1 and count:
            rows = self._gathered(rows, count, width)
        vector, loss, tokens = _added(rows, width, self.device)
        if not exact and self.size > 1:
            from accelerate.utils import reduce

            summed: Any = reduce(_join(vector, loss, tokens), reduction="sum")
            vector, loss, tokens = _split(summed)
        return weights.unflatten(vector, like), loss, tokens

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value: numbers, strings, lists and dictionaries of them."""
        if self.size == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def on_main(self, work: Callable[[], T]) -> T:
        """What `work` gives on rank 0, which alone does it. An error of ours is raised on every rank: the others would
        wait for a rank that is gone."""
        if self.size == 1:
            return work()
        found: Any = None
        if self.main:
            try:
                found = work()
            except tuple(EXIT_CODES) as error:
                found = error
        found = self.broadcast(found)
        if isinstance(found, tuple(EXIT_CODES)):
            raise found
        return found

    def gather(self, values: list[Any]) -> list[Any]:
        """The lists of all ranks end to end, in the order of the ranks."""
        if self.size == 1:
            return list(values)
        from accelerate.utils import gather_object

        return gather_object(values)

    def same(self, checksum: str) -> bool:
        """Whether all ranks hold the same string."""
        return len(set(self.gather([checksum]))) == 1

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on some rank."""
        if self.size == 1:
            return flag
        from accelerate.utils import reduce

        raised: Any = reduce(torch.tensor(float(flag), device=self.device), reduction="sum")
        return bool(raised > 0)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            from accelerate.utils import wait_for_everyone

            wait_for_everyone()

    def close(self) -> None:
        """Leave together: a rank that leaves first may abort the others after their work is done."""
        if self.size > 1:
            from accelerate import PartialState

            self.barrier()
            PartialState().destroy_process_group()

    def _checked(self, parts: Iterable[Part], count: int) -> Iterator[Part]:
        """The same parts. ValueError for a pass out of turn: it would be added in the wrong place."""
        dealt = iter(self.mine(count))
        for part in parts:
            if part[0] != next(dealt, None):
                raise ValueError(f"pass {part[0]} came out of turn; rank {self.index} holds {list(self.mine(count))}")
            yield part
        if (missing := next(dealt, None)) is not None:
            raise ValueError(f"pass {missing} of rank {self.index} is missing; every pass dealt by `mine` must come")

    def _gathered(self, rows: Iterable[Tensor], count: int, width: int) -> Iterator[Tensor]:
        """The rows of all ranks in the order of the pass numbers; ranks with fewer passes pad."""
        from accelerate.utils import gather

        most = -(-count // self.size)
        held = torch.zeros(most, width + 3, device=self.device)
        for place, row in enumerate(rows):
            held[place] = row
        every: Any = gather(held)
        return (every[number % self.size * most + number // self.size] for number in range(count))


def threads_each(environ: Mapping[str, str]) -> int | None:
    """The share of a process in the cores of its machine; None where OMP_NUM_THREADS says how many threads.

    Where nobody set it the launchers set it to 1, and a single process would use one core and say nothing; so a 1 under
    a launcher counts as not set.
    """
    from joblib import cpu_count

    launched = bool(environ.keys() & {"ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"})
    given = environ.get("OMP_NUM_THREADS")
    if given and not (launched and given == "1"):
        return None
    return max(1, cpu_count(only_physical_cores=True) // int(environ.get("LOCAL_WORLD_SIZE", "1")))


@contextmanager
def alone() -> Generator[None]:
    """In this block no library learns that there were other processes, and waits for them; after `Ranks.close`."""
    told = {name: os.environ.pop(name) for name in LAUNCHED if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(told)


def _vector(grad: Weights, like: Weights) -> Tensor:
    """float32, in the order of the sorted keys: (D,)."""
    return weights.flatten({key: grad.get(key, torch.zeros_like(like[key])).detach().float() for key in like})


def _join(vector: Tensor, loss: float | Tensor, tokens: int) -> Tensor:
    """(D,) -> (D + 3,). Nothing is asked of the device."""
    own = torch.as_tensor(loss, dtype=vector.dtype, device=vector.device).detach().reshape(1)
    return torch.cat([vector, own, vector.new_tensor(divmod(tokens, BASE))])


def _split(row: Tensor) -> tuple[Tensor, float, int]:
    loss, high, low = row[-3:].tolist()
    return row[:-3], loss, int(high) * BASE + int(low)


def _added(rows: Iterable[Tensor], width: int, device: torch.device) -> tuple[Tensor, float, int]:
    vector, loss, tokens = torch.zeros(width, device=device), 0.0, 0
    for row in rows:
        part, one_loss, one_tokens = _split(row)
        vector, loss, tokens = vector + part, loss + one_loss, tokens + one_tokens
    return vector, loss, tokens
