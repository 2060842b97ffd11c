"""Episodes by number: episode i is a pure function of (seed, i), on any machine and with any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from reprlib import repr as brief

import numpy as np

from metanlp.backbone.packing import join, pack
from metanlp.errors import InputError
from metanlp.forms import classify
from metanlp.types import Batch, Episode, Pass, Row, Task, Tokens

Encode = Callable[[Sequence[tuple[str, ...]]], Tokens]


@dataclass(frozen=True)
class Sampling:
    """How an episode is drawn."""

    shots: tuple[int, int] = (4, 8)  # fewest and most support rows a class; drawn evenly between them
    queries: int = 8  # query rows a class, fewer where a class runs out
    ways: int = 5  # most classes; a task with more gives a random choice of them

    def __post_init__(self) -> None:
        low, high = self.shots
        if not 1 <= low <= high or self.queries < 1 or self.ways < 2:
            raise InputError(f"{self} is not possible: shots from 1 up, queries at least 1, ways at least 2")


def episode_rng(seed: int, number: int) -> np.random.Generator:
    """The same stream for the same (seed, number), whoever asks."""
    return np.random.default_rng([seed, number])


class Pool:
    """The rows of one task, tokenised at first use; a row whose text came before in the pool is left out."""

    def __init__(self, name: str, rows: Sequence[Row], ways: int, encode: Encode) -> None:
        self.name, self.ways, self._encode = name, ways, encode
        self.rows = distinct(rows)
        self.targets = np.array([row["label"] for row in self.rows], dtype=np.int64)
        self.by_class = [np.flatnonzero(self.targets == label) for label in range(ways)]

    @cached_property
    def tokens(self) -> Tokens:
        return self._encode([classify.texts(row) for row in self.rows])

    def draw(self, rng: np.random.Generator, sampling: Sampling, number: int) -> Episode:
        """One episode: classes, shots, support and query rows, all from `rng`."""
        low, high = sampling.shots
        able = [label for label, rows in enumerate(self.by_class) if len(rows) > low]
        classes = np.sort(rng.choice(able, min(sampling.ways, len(able)), replace=False))
        high = min(high, min(len(self.by_class[label]) for label in classes) - 1)
        shots = int(rng.integers(low, high + 1))
        chosen = [rng.permutation(self.by_class[label])[: shots + sampling.queries] for label in classes]
        support, query = (
            np.concatenate([rows[part] for rows in chosen]) for part in (slice(shots), slice(shots, None))
        )
        return self.episode(number, classes, support, query)

    def episode(self, number: int, classes: np.ndarray, support: np.ndarray, query: np.ndarray) -> Episode:
        place = np.searchsorted(classes, self.targets)
        return Episode(
            task=self.name,
            number=number,
            classes=tuple(classes.tolist()),
            support_rows=tuple(support.tolist()),
            query_rows=tuple(query.tolist()),
            support=pack(self.tokens, support, place[support], len(classes)),
            query=pack(self.tokens, query, place[query], len(classes)),
        )


class Episodes:
    """An endless sequence of episodes over training tasks, each task drawn with probability ∝ √size."""

    def __init__(self, tasks: Sequence[Task], encode: Encode, sampling: Sampling, seed: int) -> None:
        """Raises InputError for a task in which fewer than two classes have enough rows."""
        self.sampling, self.seed = sampling, seed
        self.pools = [Pool(task.name, task.pools["train"], len(task.labels), encode) for task in tasks]
        for task, pool in zip(tasks, self.pools, strict=True):
            _check_rows(task, pool, sampling.shots[0])
        if not tasks:
            raise InputError("there is no training task; name some with --data")
        sizes = np.sqrt([len(pool.rows) for pool in self.pools])
        self._shares = sizes / sizes.sum()

    def __getitem__(self, number: int) -> Episode:
        rng = episode_rng(self.seed, number)
        pool = self.pools[int(rng.choice(len(self.pools), p=self._shares))]
        return pool.draw(rng, self.sampling, number)

    def passes(self, start: int, count: int, size: int) -> list[Callable[[], Pass]]:
        """Episodes `start` to `start + count` in fixed groups of `size`, each built when it is called for."""
        numbers = range(start, start + count)
        return [lambda part=numbers[at : at + size]: group([self[n] for n in part]) for at in range(0, count, size)]


def distinct(rows: Sequence[Row]) -> list[Row]:
    """The rows in their order, without those whose texts came before."""
    first = dict[tuple[str, ...], Row]()
    for row in rows:
        first.setdefault(classify.key(row), row)
    return list(first.values())


def pack_rows(rows: Sequence[Row], ways: int, encode: Encode) -> Batch:
    """Labelled rows as one batch, tokenised here."""
    tokens = encode([classify.texts(row) for row in rows])
    return pack(tokens, range(len(rows)), [row["label"] for row in rows], ways)


def group(episodes: Sequence[Episode]) -> Pass:
    """Episodes as one pass through the model."""
    return Pass(tuple(episodes), join([e.support for e in episodes]), join([e.query for e in episodes]))


def _check_rows(task: Task, pool: Pool, shots: int) -> None:
    enough = sum(len(rows) > shots for rows in pool.by_class)
    if enough < 2:
        sizes = {label: len(rows) for label, rows in zip(task.labels, pool.by_class, strict=True)}
        raise InputError(
            f"task {task.name!r} has {brief(sizes)} different rows a class in {task.source}, but {shots} shots and 1 "
            f"query row need {shots + 1} in at least two classes; add rows, or leave the task out"
        )
