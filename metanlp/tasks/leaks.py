"""Leaks: rows that both teach and judge. They are found by their identities, and training goes on without them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from metanlp.core.errors import InputError
from metanlp.core.hub import HubName
from metanlp.core.types import Roles, Task
from metanlp.forms import FORMS
from metanlp.tasks.rowset import KEY, counts_of, pool_keys, ways_of, where
from metanlp.tasks.sources.table import SOURCES

SEEN_BITS = 40  # of an identity in a learner's file: of a million new rows one is taken for one of 100,000 seen


@dataclass(frozen=True)
class Overlap:
    """The rows that one task is judged by and that one training task teaches."""

    evaluation: str  # name of the validation or test task
    pool: str  # of that task, by whose rows it is judged
    training: str  # name of the training task, or the same name where a task's own pools share rows
    rows: tuple[tuple[int, int], ...]  # every pair of the same row: its number, from 0, in that pool and in "train"
    published: bool  # whether the evaluation rows are fixed by others, so that this is reported and not refused

    @property
    def count(self) -> int:
        """Rows of the evaluation pool that also stand in the training pool."""
        return len({row for row, _ in self.rows})


@dataclass(frozen=True)
class Leakage:
    """All overlaps between training and evaluation. It holds no text, only where rows stand."""

    overlaps: tuple[Overlap, ...]

    @property
    def count(self) -> int:
        """Rows, over all pairs of tasks."""
        return sum(overlap.count for overlap in self.overlaps)

    def first(self, count: int = 3) -> tuple[str, ...]:
        """For people, who count rows from 1: the first pair of rows of each of the first overlaps, `task pool row =
        task pool row`."""
        return tuple(
            f"{each.evaluation} {each.pool} {each.rows[0][0] + 1} = {each.training} train {each.rows[0][1] + 1}"
            for each in self.overlaps[:count]
        )


def query_pool(task: Task) -> str:
    """The pool by whose rows a task is judged: "test" where there is one."""
    return "test" if "test" in task.pools else "train"


def leakage(roles: Roles) -> Leakage:
    """Finds every evaluation row that is also a training row, of another task or of the task's own "train" pool."""
    judged = _judged(roles)
    training = [(task.name, places) for task in roles.train if (places := _places(task, judged))]
    return Leakage(tuple(overlap for task in (*roles.validation, *roles.test) for overlap in _overlaps(task, training)))


Places = dict[int, list[int]]
"""Identity of a row -> its numbers in its pool."""


def _places(task: Task, asked: Set[int]) -> Places:
    """Where the training rows stand whose identity is asked for."""
    places: Places = {}
    for number, identity in enumerate(pool_keys(task, "train").tolist()):
        if identity in asked:
            places.setdefault(identity, []).append(number)
    return places


def _overlaps(task: Task, training: Sequence[tuple[str, Places]]) -> Iterator[Overlap]:
    pool = query_pool(task)
    judged = pool_keys(task, pool).tolist()
    own = [(task.name, _places(task, {*judged}))] if pool != "train" else []
    fixed = bool(task.supports) or task.source in SOURCES or HubName.parse(task.source) is not None
    for name, places in (*own, *training):
        if rows := tuple((row, other) for row, identity in enumerate(judged) for other in places.get(identity, ())):
            yield Overlap(task.name, pool, name, rows, fixed)


def _judged(roles: Roles) -> set[int]:
    """The identities of all rows that judge."""
    judging = (*roles.validation, *roles.test)
    return set[int]().union(*(pool_keys(task, query_pool(task)).tolist() for task in judging))


def drop_leaks(roles: Roles) -> tuple[Roles, dict[str, int]]:
    """The same roles without training rows that stand in an evaluation pool, and how many were dropped, by task.

    Rows of a task's "train" pool that stand in its own "test" pool go too; fixed support sets stay as published.
    Raises InputError where that leaves a task with fewer than two classes, or with no row."""
    judged, dropped = _judged(roles), dict[str, int]()

    def clean(task: Task, judged: Set[int]) -> Task:
        short = _without(task, judged)
        if lost := len(task.pools["train"]) - len(short.pools["train"]):
            dropped[task.name] = lost
        return short

    train = tuple(clean(task, judged) for task in roles.train)
    validation, test = (tuple(clean(task, set()) for task in tasks) for tasks in (roles.validation, roles.test))
    return Roles(train, validation, test), dropped


def _without(task: Task, judged: Set[int]) -> Task:
    """The task without training rows that are `judged`, or stand in its own "test" pool. Raises InputError."""
    own, form = {*pool_keys(task, "test").tolist()}, FORMS[task.form]
    keep = [key not in judged and key not in own for key in pool_keys(task, "train").tolist()]
    if all(keep):
        return task
    rows = where(task.pools["train"], np.array(keep), form)
    if not rows or sum(count > 0 for count in counts_of(rows, form, ways_of(task))) < form.least:
        few = "no row is" if form.least < 2 else "fewer than two classes are"
        raise InputError(f"task {task.name!r}: without its leaked rows {few} left; leave it out")
    return replace(task, pools={**task.pools, "train": rows})


def seen_of(tasks: Iterable[Task]) -> np.ndarray:
    """The rows that the tasks teach from, as a learner keeps them: 40 bits of each identity, sorted, (R,) uint64."""
    keys = [pool_keys(task, "train") for task in tasks]
    return np.unique(np.concatenate([np.zeros(0, KEY), *keys]) >> np.uint64(64 - SEEN_BITS))


def without_seen(tasks: Sequence[Task], seen: np.ndarray) -> tuple[tuple[Task, ...], dict[str, int]]:
    """The tasks without the rows that judge them and that a learner has `seen`, and how many these were, by task.
    Raises InputError for a task of which none is left."""
    kept, counts = list[Task](), dict[str, int]()
    for task in tasks:
        pool = query_pool(task)
        known = np.isin(pool_keys(task, pool) >> np.uint64(64 - SEEN_BITS), seen)
        if known.all() and len(known):
            raise InputError(
                f"task {task.name!r}: the learner was trained on every row that judges; take another task, or learner"
            )
        if known.any():
            counts[task.name] = int(known.sum())
            task = replace(task, pools={**task.pools, pool: where(task.pools[pool], ~known, FORMS[task.form])})
        kept.append(task)
    return tuple(kept), counts
