"""Very many indexed tasks: the set opens in two seconds, episodes are drawn from it at 2,000 a second in a gigabyte,
and 1,000 ranks deal a step of a million passes among them by counting alone."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import psutil
import torch
from case import Cases
from kinds import one_token_each

from metanlp.episodes.sampling import Episodes, Sampling
from metanlp.tasks.index.build import build_index
from metanlp.tasks.taskset import TaskSet
from metanlp.training.processes import Ranks

ROWS, DRAWN, PASSES, RANKS = 12, 4_000, 1_000_000, 1_000
OPENS, A_SECOND, MEGABYTES, DEALS = 2.0, 2_000, 1_000, 1.0  # seconds, episodes, megabytes, seconds


def cases(count: int, folder: Path) -> Cases:
    """A set of so many tasks, whatever their number four cases."""
    write(folder / "tasks", count)
    build_index(folder / "tasks")
    before, busy = megabytes(), time.process_time()
    tasks = TaskSet.from_files(folder / "tasks").tasks
    yield within("seconds to open", time.process_time() - busy, OPENS)
    episodes = Episodes(tasks, one_token_each, Sampling(shots=(1, 2), queries=2), seed=0)
    _ = episodes[0]
    busy = time.process_time()
    for number in range(DRAWN):
        _ = episodes[number]
    yield within("seconds of 2,000 episodes", (time.process_time() - busy) * A_SECOND / DRAWN, 1.0)
    yield within("megabytes", megabytes() - before, MEGABYTES)
    yield dealt()


def within(what: str, found: float, most: float) -> str:
    print(f"  {what}: {found:.2f}, at most {most:g}")
    return "" if found <= most else f"{what}: {found:.2f}, more than {most:g}"


def write(folder: Path, count: int) -> None:
    chance = random.Random(0)
    for number in range(count):
        place = folder / f"{number // 1000:03d}"
        place.mkdir(parents=True, exist_ok=True)
        rows = ({"text": f"t{number} row {row} {chance.random()}", "label": "ab"[row % 2]} for row in range(ROWS))
        (place / f"t{number:06d}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def dealt() -> str:
    """Every pass is some rank's, and no rank holds more than the bounds of its own."""
    busy = time.process_time()
    mine = [Ranks(rank, RANKS, torch.device("cpu")).mine(PASSES) for rank in range(RANKS)]
    each = sum(map(len, mine)) == PASSES and {passes[0] for passes in mine} == {*range(RANKS)}
    return (
        within("seconds to deal", time.process_time() - busy, DEALS) if each else "a pass is dealt twice, or to nobody"
    )


def megabytes() -> float:
    return psutil.Process().memory_info().rss / 2**20
