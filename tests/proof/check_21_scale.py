"""Very many indexed tasks of 100 kB each: the set opens in two seconds, episodes are drawn from it at 2,000 a second in
a gigabyte, a training on them takes no more, and 1,000 ranks deal a step of a million passes among them by counting."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
from case import Cases
from kinds import one_token_each
from tiny_learner import shared

from metanlp.algorithms import ProtoNet
from metanlp.core.types import Task
from metanlp.episodes.sampling import Episodes, Sampling
from metanlp.tasks.index.build import build_index
from metanlp.tasks.taskset import TaskSet
from metanlp.training.meta_train import Plan, meta_train
from metanlp.training.processes import Ranks

ROWS, WORDS, DRAWN, STEPS, FEW, PASSES, RANKS = 12, 1_850, 20_000, 30, 2, 1_000_000, 1_000
OPENS, A_SECOND, MEGABYTES, DEALS = 2.0, 2_000, 1_000, 1.0  # seconds, episodes, megabytes, seconds
SHORT = Sampling(shots=(1, 2), queries=2)
MANY, CROWDED = 10_000, 5.0  # tasks from which seconds are held; in a short version other tests run beside


def cases(count: int, folder: Path) -> Cases:
    """A set of so many tasks, whatever their number five cases. Seconds are those of the processor."""
    drawn, steps, crowded = (DRAWN, STEPS, 1.0) if count >= MANY else (5 * count, FEW, CROWDED)
    write(folder / "tasks", count)
    build_index(folder / "tasks")
    before, busy = megabytes(), time.process_time()
    tasks = TaskSet.from_files(folder / "tasks").tasks
    yield within("seconds to open", time.process_time() - busy, OPENS)
    episodes = Episodes(tasks, one_token_each, SHORT, seed=0)
    _ = episodes[0]
    busy = time.process_time()
    for number in range(1, drawn):
        _ = episodes[number]
    yield within("seconds of 2,000 episodes", (time.process_time() - busy) * A_SECOND / (drawn - 1), crowded)
    yield within("megabytes", megabytes() - before, MEGABYTES)
    del episodes
    yield from trained(tasks, steps)
    yield dealt()


def within(what: str, found: float, most: float) -> str:
    print(f"  {what}: {found:.2f}, at most {most:g}")
    return "" if found <= most else f"{what}: {found:.2f}, more than {most:g}"


def write(folder: Path, count: int) -> None:
    """Tasks of two classes that a word tells apart, and much else to read."""
    chance = random.Random(0)
    words = ["a", "row", "of", "words", "that", "say", "nothing", "else"]
    fill = [" ".join(chance.choices(words, k=WORDS)) for _ in range(99)]
    for number in range(count):
        place = folder / f"{number // 1000:03d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"t{number:06d}.jsonl").write_text("".join(lines(number, chance, fill)))


def lines(number: int, chance: random.Random, fill: list[str]) -> Iterator[str]:
    for row in range(ROWS):
        text = f"t{number} row {row} {chance.random()} {chance.choice(fill)}"
        yield json.dumps({"text": text, "label": "ab"[row % 2]}) + "\n"


def trained(tasks: tuple[Task, ...], steps: int) -> Cases:
    """Steps of eight episodes, with a tokenizer that reads the texts."""
    net, looks = shared().net, list[float]()
    plan = Plan(steps=steps, meta_batch=8, patience=0, validations=min(10, steps))
    before = megabytes()

    def look(_: object) -> list[float]:
        looks.append(megabytes())
        return [0.0]

    meta_train(ProtoNet(), net, Episodes(tasks, net.encode, SHORT, seed=0), plan, validate=look, ranks=Ranks.alone())
    yield within("megabytes of a training", max(looks) - before, MEGABYTES)


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
