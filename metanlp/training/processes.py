"""Many processes as one, by accelerate.

Start them with `torchrun --standalone --nproc_per_node N …` or `accelerate launch`, with
TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for restarts; `accelerate launch --cpu --num_processes 2` silently runs one.
DistributedDataParallel is not used: its hooks do not see `autograd.grad`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from metanlp.core import weights
from metanlp.core.errors import EXIT_CODES, InputError
from metanlp.core.launched import ELASTIC, threads_each, timeout
from metanlp.core.signals import stop_with_launcher
from metanlp.core.types import MetaGrad, Weights
from metanlp.core.versions import versions

T = TypeVar("T")

# Tokens travel as two float32 numbers, high · BASE + low, each whole (below 2²⁴) for up to 4,096 processes and 2³⁶
# tokens a step.
BASE = 4096


@dataclass(frozen=True)
class Ranks:
    """This process among all of them. What a method returns is the same on every rank unless it says otherwise."""

    index: int  # 0 … size − 1
    size: int  # number of processes
    device: torch.device  # where this rank computes

    @staticmethod
    def start(cpu: bool = False, threads: int | None = None) -> Ranks:
        """Join the processes that the launcher started, or be the only one, on the CPU with `cpu`. `threads` a process
        are by default OMP_NUM_THREADS or its share of the cores; METANLP_TIMEOUT is how many seconds it waits for the
        others. Raises InputError if accelerate sees fewer processes than the launcher started."""
        from accelerate import PartialState

        if wanted := threads or threads_each(os.environ):
            torch.set_num_threads(wanted)
        # Without a GPU and without being told so, accelerate takes every process for the only one, and says nothing.
        if ELASTIC in os.environ:
            stop_with_launcher()
        waits: dict[str, Any] = {"timeout": patience} if (patience := timeout(os.environ)) else {}
        state = PartialState(cpu=cpu or not torch.accelerator.is_available(), **waits)
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

    def total(self, parts: Iterable[MetaGrad], like: Weights, count: int, *, exact: bool) -> tuple[Weights, float, int]:
        """Gradient (float32), loss and tokens, summed over all `count` passes of all ranks, by one collective.

        `parts` are this rank's passes, in the order of `mine(count)`. `like` gives keys and shapes; a key that a
        gradient lacks counts as zero. `exact` gathers every pass and adds in the order of their numbers: bitwise the
        same for any number of processes. Otherwise each rank adds its own first: less to move, the same to about 1e-6.
        """
        width = sum(value.numel() for value in like.values())
        rows = (
            _join(weights.flatten(weights.zeros(like) | weights.detach(part.grad)), part.loss.sum(), part.tokens)
            for part in parts
        )
        if exact and self.size > 1 and count:
            rows = self._gathered(rows, count, width)
        vector, loss, tokens = torch.zeros(width, device=self.device), 0.0, 0
        for row in rows:
            part, one_loss, one_tokens = _split(row)
            vector, loss, tokens = vector + part, loss + one_loss, tokens + one_tokens
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
        """What `work` gives on rank 0, which alone does it. An error of ours is raised on every rank, as the others
        would wait for a rank that is gone."""
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

    def require_same(self, when: str, facts: Callable[[], Mapping[str, object]]) -> None:
        """Raises InputError on every rank where facts of one differ from rank 0's. Alone, `facts` is not called."""
        if self.size == 1:
            return
        first, *others = self.gather([dict(facts())])
        for key in sorted(first.keys() | set().union(*others)):
            wrong = [rank for rank, other in enumerate(others, start=1) if other.get(key) != first.get(key)]
            if wrong:
                found, expected = others[wrong[0] - 1].get(key), first.get(key)
                raise InputError(
                    f"{when} rank {', '.join(map(str, wrong))} of {self.size} differs from rank 0: {key} is {found} "
                    f"there and {expected} on rank 0; start every process with the same command, code and data"
                )

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on some rank."""
        if self.size == 1:
            return flag
        from accelerate.utils import reduce

        raised: Any = reduce(torch.tensor(float(flag), device=self.device), reduction="sum")
        return bool(raised > 0)

    def close(self) -> None:
        """Leave together: a rank that leaves first may abort the others after their work is done."""
        if self.size > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()
            PartialState().destroy_process_group()

    def _gathered(self, rows: Iterable[Tensor], count: int, width: int) -> Iterator[Tensor]:
        """The rows of all ranks in the order of the pass numbers; ranks with fewer passes pad."""
        from accelerate.utils import gather

        most = -(-count // self.size)
        held = torch.zeros(most, width + 3, device=self.device)
        for place, row in enumerate(rows):
            held[place] = row
        every: Any = gather(held)
        return (every[number % self.size * most + number // self.size] for number in range(count))


def program() -> dict[str, str]:
    """What computes: versions of libraries, and a sha256 of metanlp's own files."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return {**{f"version of {name}": found for name, found in versions().items()}, "code": digest.hexdigest()}


def _join(vector: Tensor, loss: float | Tensor, tokens: int) -> Tensor:
    """(D,) -> (D + 3,). Nothing is asked of the device."""
    own = torch.as_tensor(loss, dtype=vector.dtype, device=vector.device).detach().reshape(1)
    return torch.cat([vector, own, vector.new_tensor(divmod(tokens, BASE))])


def _split(row: Tensor) -> tuple[Tensor, float, int]:
    loss, high, low = row[-3:].tolist()
    return row[:-3], loss, int(high) * BASE + int(low)
