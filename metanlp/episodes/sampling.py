"""Episodes by number: episode i is a pure function of (seed, i), on any machine and with any number of processes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from reprlib import repr as brief
from typing import TypeVar

import numpy as np

from metanlp.backbone.packing import join
from metanlp.core.errors import InputError
from metanlp.core.types import Episode, Pass, Task
from metanlp.episodes.pool import Encode, Pool, counts_of
from metanlp.forms import FORMS
from metanlp.tasks.leaks import seen_of

T = TypeVar("T")
OPEN = 4_096  # most tasks whose rows and tokens are kept in memory
BYTES_A_TOKEN = 3  # of text. English word pieces of GLUE, LEOPARD and mini: 3.4 to 4.7 a token; no script has far fewer
SPECIAL = 3  # special tokens added to one text or two


@dataclass(frozen=True)
class Sampling:
    """How an episode is drawn. Where there are no classes, as in regression, shots are rows in all."""

    shots: tuple[int, int] = (4, 8)  # fewest and most support rows a class; drawn evenly between them
    queries: int = 8  # query rows a class, fewer where a class runs out; without classes twice as many rows
    ways: int = 5  # most classes; a task with more gives a random choice of them
    mix: float = 0.3  # share of the episodes from tasks that no people labelled, where there are others too

    def __post_init__(self) -> None:
        low, high = self.shots
        if not 1 <= low <= high or self.queries < 1 or self.ways < 2 or not 0 <= self.mix <= 1:
            raise InputError(f"{self} is not possible: shots and queries from 1 up, ways at least 2, mix a share")


def episode_rng(seed: int, number: int) -> np.random.Generator:
    """The random stream of episode `number`: a function of (seed, number) alone."""
    return np.random.default_rng([seed, number])


def draw(task: str, pool: Pool, rng: np.random.Generator, sampling: Sampling, number: int) -> Episode:
    """One episode of the task of that name: classes, shots, support and query rows, all from `rng`."""
    low, high = sampling.shots
    able = [label for label, rows in enumerate(pool.by_class) if len(rows) > low]
    chosen = np.sort(rng.choice(able, min(sampling.ways, len(able)), replace=False))
    high = min(high, min(len(pool.by_class[label]) for label in chosen) - 1)
    shots = int(rng.integers(low, high + 1))
    orders = [rng.permutation(pool.by_class[label]) for label in chosen]
    support = taken(pool, chosen, orders, shots)
    # Where a row is a shot of one class only, those taken are the first of its order.
    rest = [order[shots:] if pool.form.one_class else order[~np.isin(order, support)] for order in orders]
    # A form without classes gets as many query rows as two classes.
    query = taken(pool, chosen, rest, sampling.queries if pool.form.by_class else 2 * sampling.queries)
    if not len(query):  # possible where rows have many classes; then the last support row becomes the query row
        support, query = support[:-1], support[-1:]
    classes = pool.form.episode_classes(chosen)
    return Episode(
        task=task,
        number=number,
        classes=tuple(classes.tolist()),
        support_rows=tuple(support.tolist()),
        query_rows=tuple(query.tolist()),
        support=pool.pack(support, classes),
        query=pool.pack(query, classes),
    )


def taken(pool: Pool, classes: Sequence[int] | np.ndarray, orders: Sequence[np.ndarray], shots: int) -> np.ndarray:
    """Takes rows from each class's order until the class has `shots`, or runs out. A row that is a shot of several
    classes counts for all of them, so rare classes are filled first (Yang & Katiyar 2020, §4.1)."""
    if pool.form.one_class:
        return np.concatenate([order[:shots] for order in orders])
    had, found = Counter[int](), dict[int, None]()
    for label, order in sorted(zip(classes, orders, strict=True), key=lambda item: len(item[1])):
        for row in order.tolist():
            if had[label] >= shots:
                break
            if row not in found:
                found[row] = None
                had.update(pool.shots[row])
    return np.array(list(found), dtype=np.int64)


class Episodes:
    """An endless sequence of episodes over training tasks, each drawn with probability ∝ √size, unlabelled ones as
    `Sampling.mix` says."""

    def __init__(self, tasks: Sequence[Task], encode: Encode, sampling: Sampling, seed: int) -> None:
        """Raises InputError for a task in which fewer than two classes have enough rows."""
        self.tasks, self.sampling, self.seed = tuple(tasks), sampling, seed
        # Of very many tasks, those drawn longest ago free their rows and tokens.
        self._open = lru_cache(maxsize=OPEN)(lambda number: Pool.of(self.tasks[number], encode))
        self.counts = [counts_of(task, lambda n=n: self._open(n)) for n, task in enumerate(tasks)]
        for task, counts in zip(tasks, self.counts, strict=True):
            _check_rows(task, counts, sampling.shots[0])
        if not tasks:
            raise InputError("there is no training task; name some with --data")
        shares = _shares(self.tasks, np.sqrt([sum(counts) for counts in self.counts]), sampling.mix).cumsum()
        self._up_to = shares / shares[-1]  # how probable a task or one before it is

    def __getitem__(self, number: int) -> Episode:
        rng = episode_rng(self.seed, number)
        task = self._task(rng)
        return draw(self.tasks[task].name, self._open(task), rng, self.sampling, number)

    def checksum(self, start: int, count: int) -> str:
        """sha256 over the tokens and targets of `count` episodes: other rows, seeds or tokenizers give another one."""
        return checksum_of(self[n] for n in range(start, start + count))

    def seen(self) -> np.ndarray:
        """The rows that may be drawn, as a learner keeps them: (R,) uint64."""
        return seen_of(self.tasks)

    def drawn(self, start: int, count: int) -> dict[str, int]:
        """Names of the tasks of these episodes, none of which is built, and of each its scores a unit."""
        tasks = [self.tasks[self._task(episode_rng(self.seed, number))] for number in range(start, start + count)]
        return {task.name: FORMS[task.form].outputs(task.meaning) for task in tasks}

    def passes(self, start: int, count: int, size: int) -> list[Callable[[], Pass]]:
        """Episodes `start` to `start + count` in fixed groups of `size`; a pass is built when its function is called.
        A group with tasks of several forms is split into one pass a form."""
        numbers = range(start, start + count)
        groups = [numbers[at : at + size] for at in range(0, count, size)]
        parts = [part for group in groups for part in self._of_one_form(group)]
        return [lambda part=part: group([self[n] for n in part]) for part in parts]

    def _of_one_form(self, numbers: Sequence[int]) -> list[list[int]]:
        if len(numbers) == 1:
            return [list(numbers)]
        by_form = dict[str, list[int]]()
        for number in numbers:
            by_form.setdefault(self.tasks[self._task(episode_rng(self.seed, number))].form, []).append(number)
        return list(by_form.values())

    def _task(self, rng: np.random.Generator) -> int:
        """As `rng.choice` draws it, whose checks and sums over all tasks would take longer than the rest of it."""
        return int(self._up_to.searchsorted(rng.random(), side="right"))


def checksum_of(episodes: Iterable[Episode]) -> str:
    """sha256 over tokens and targets."""
    digest = hashlib.sha256()
    for batch in (side for each in episodes for side in (each.support, each.query)):
        digest.update(batch.ids.cpu().numpy().tobytes() + batch.targets.cpu().numpy().tobytes())
    return digest.hexdigest()


def _shares(tasks: Sequence[Task], sizes: np.ndarray, mix: float) -> np.ndarray:
    """How probable each task is, in proportion to `sizes`; beside labelled ones, the unlabelled make up `mix`."""
    labelled = np.array([task.labelled for task in tasks])
    if labelled.all() or not labelled.any():
        return sizes / sizes.sum()
    parts = np.where(labelled, (1 - mix) / sizes[labelled].sum(), mix / sizes[~labelled].sum())
    return sizes * parts / (sizes * parts).sum()


def group(episodes: Sequence[Episode]) -> Pass:
    """Joins episodes of one form into one pass."""
    sides = [e.support for e in episodes], [e.query for e in episodes]
    # Counted before the tasks are joined: afterwards only the device knows the numbers.
    most = [max(len(batch.targets) for batch in side) for side in sides]
    support, query = (replace(join(side), max_units=units) for side, units in zip(sides, most, strict=True))
    return Pass(tuple(episodes), support, query)


def largest_pass(train: Sequence[Task], test: Sequence[Task], sampling: Sampling, shots: int, most: int) -> int:
    """Estimated tokens of the largest pass with gradients: support and query rows of a training episode, or support
    rows of a test task at `shots`. A row counts with its task's mean length, a text with at most `most` tokens. Of more
    than a hundred tasks about a hundred are measured."""
    drawn = sampling.shots[1] + sampling.queries
    passes = [(task, min(sampling.ways, len(task.labels) or 2) * drawn) for task in evenly(train)]
    passes += [(task, (len(task.labels) or 1) * shots) for task in evenly(test)]
    return max((round(rows * row_length(task, most)) for task, rows in passes), default=0)


def all_texts(tasks: Sequence[Task], most: int) -> tuple[int, int]:
    """Estimated texts of all training rows, and their tokens. Of more than a hundred tasks about a hundred are
    measured."""
    texts = tokens = 0.0
    for task in (measured := evenly(tasks)):
        rows = task.pools["train"]
        texts += len(rows) * len(FORMS[task.form].texts(rows[0]))
        tokens += len(rows) * row_length(task, most)
    return round(texts * len(tasks) / max(1, len(measured))), round(tokens * len(tasks) / max(1, len(measured)))


def row_length(task: Task, most: int) -> float:
    """Mean tokens of a row, estimated from the bytes of the texts of about a hundred rows."""
    form, rows = FORMS[task.form], evenly(task.pools["train"])
    sizes = [
        min(most, SPECIAL + len("".join(text).encode()) / BYTES_A_TOKEN) for row in rows for text in form.texts(row)
    ]
    return sum(sizes) / len(rows)


def evenly(items: Sequence[T]) -> Sequence[T]:
    """About a hundred items, evenly spread over the sequence."""
    return [items[place] for place in range(0, len(items), 1 + len(items) // 100)]


def _check_rows(task: Task, counts: tuple[int, ...], shots: int) -> None:
    form = FORMS[task.form]
    if sum(count > shots for count in counts) >= form.least:
        return
    sizes = dict(zip(task.labels or ("rows",), counts, strict=True))
    kind = "a class" if form.by_class else "in all"
    where = "in at least two classes" if form.least == 2 else "of them"
    raise InputError(
        f"task {task.name!r} has {brief(sizes)} different rows {kind} in {task.source}, but {shots} shots and 1 query "
        f"row need {shots + 1} {where}; add rows, or leave the task out"
    )
