"""A long run of a tiny model: after its first tenth neither memory, nor open files, nor threads, nor the time of a step
grow. A case is a tenth of the run."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from case import Cases
from tiny_learner import shared

from metanlp.core.types import Weights

GROWTH, SLOWER = 1.01, 1.5
SHORT, SHORT_GROWTH, SHORT_SLOWER = 1_000, 1.05, 5.0  # of fewer steps, in which a look at the clock sees other programs
LOOKS = 10


@dataclass(frozen=True)
class Look:
    """What the process holds after some steps."""

    megabytes: float
    files: int
    threads: int
    seconds: float  # of processor time since the look before


def cases(count: int, folder: Path) -> Cases:
    """`count` meta-steps; each tenth, from the second on, is a case against the second."""
    looks, process, busy = list[Look](), psutil.Process(), [time.process_time()]

    def look(theta: Weights) -> list[float]:
        gc.collect()
        now = time.process_time()
        held = process.memory_info().rss / 2**20, process.num_fds(), threading.active_count()
        looks.append(Look(*held, now - busy[0]))
        busy[0] = now
        return [float(len(looks))]

    plan = {"validations": LOOKS, "checkpoints": LOOKS, "meta_batch": 1}
    shared().trained(folder / "run", count, validate=look, plan=plan)
    print(*looks, sep="\n")
    first, growth, slower = looks[1], *((SHORT_GROWTH, SHORT_SLOWER) if count < SHORT else (GROWTH, SLOWER))
    for each in looks[1:]:
        same = (each.files, each.threads) == (first.files, first.threads)
        ok = same and each.megabytes < first.megabytes * growth and each.seconds < first.seconds * slower
        yield "" if ok else f"{first} became {each}"
