"""What training has seen of evaluation: rows that stand on both sides, by their place, and training without them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, compress
from textwrap import shorten

import numpy as np

from metanlp.errors import InputError
from metanlp.forms import FORMS
from metanlp.tasks import published
from metanlp.tasks.hub_client import HubName
from metanlp.tasks.index import IndexedRows, counts_of, ways_of
from metanlp.tasks.index import keys_of as keys_of_rows
from metanlp.types import Roles, Task


@dataclass(frozen=True)
class Overlap:
    """Rows by which one evaluation task is judged and from which one training task teaches."""

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
    """What training has seen of evaluation; no text of anybody's data, only where it stands."""

    overlaps: tuple[Overlap, ...]

    @property
    def count(self) -> int:
        """Rows, over all pairs of tasks."""
        return sum(overlap.count for overlap in self.overlaps)

    def first(self, count: int = 3) -> tuple[str, ...]:
        """The first pairs of rows, for people: of each pair of tasks one, `task pool row = task pool row`."""
        return tuple(
            f"{each.evaluation} {each.pool} {each.rows[0][0]} = {each.training} train {each.rows[0][1]}"
            for each in self.overlaps[:count]
        )


def keys_of(task: Task, pool: str) -> np.ndarray:
    """A hash of each row's identity: (R,) uint64."""
    return keys_of_rows(task.pools[pool], FORMS[task.form])


def query_pool(task: Task) -> str:
    """The pool by whose rows a task is judged: "test" where there is one."""
    return "test" if "test" in task.pools else "train"


def leakage(roles: Roles) -> Leakage:
    """Every evaluation row that is also a training row, by pair of tasks, and within a task between its own pools."""
    judging = (*roles.validation, *roles.test)
    judged = set[int]().union(*(keys_of(task, query_pool(task)).tolist() for task in judging))
    taught = ((task.name, _places(task, judged)) for task in roles.train)
    training = [(name, places) for name, places in taught if places]
    return Leakage(tuple(chain.from_iterable(_overlaps(task, training) for task in judging)))


def _overlaps(task: Task, training: Sequence[tuple[str, Places]]) -> Iterator[Overlap]:
    pool = query_pool(task)
    judged = keys_of(task, pool).tolist()
    own = [(task.name, _places(task, set(judged)))] if pool != "train" else []
    fixed = bool(task.supports) or task.source in published.SOURCES or HubName.parse(task.source) is not None
    for name, taught in (*own, *training):
        rows = tuple((row, other) for row, identity in enumerate(judged) for other in taught.get(identity, ()))
        if rows:
            yield Overlap(task.name, pool, name, rows, fixed)


Places = dict[int, list[int]]
"""Identity of a row -> where it stands in its pool."""


def _places(task: Task, asked: set[int]) -> Places:
    """Of the training rows whose identity is asked for."""
    places: Places = {}
    for number, identity in enumerate(keys_of(task, "train").tolist()):
        if identity in asked:
            places.setdefault(identity, []).append(number)
    return places


def refuse(roles: Roles) -> Leakage:
    """The leakage, to be reported; raises InputError where it is in users' tasks and could be mended."""
    found = leakage(roles)
    bad = [overlap for overlap in found.overlaps if not overlap.published]
    if bad:
        worst, more = bad[0], f" ({len(bad) - 1} more such pairs)" if len(bad) > 1 else ""
        judged = next(task for task in (*roles.validation, *roles.test) if task.name == worst.evaluation)
        texts = FORMS[judged.form].texts(judged.pools[worst.pool][worst.rows[0][0]])
        first = shorten(" | ".join(chain.from_iterable(texts)), 80, placeholder=" …")
        ours = (
            f"its own {'train'!r} pool" if worst.training == worst.evaluation else f"training task {worst.training!r}"
        )
        raise InputError(
            f"task {worst.evaluation!r}: {worst.count} of its evaluation rows are also in {ours}{more}, "
            f"the first: {first!r}; remove them from one side, or let `drop_leaks` do it"
        )
    return found


def drop_leaks(roles: Roles) -> tuple[Roles, dict[str, int]]:
    """The same roles without training rows that stand in an evaluation pool, and how many were dropped, by task.

    Rows of a task's "train" pool that stand in its own "test" pool go too; fixed support sets stay as published.
    Raises InputError where that leaves a task with fewer than two classes, or with no row."""
    judged = set[int]().union(*(_keys(task, query_pool(task)) for task in (*roles.validation, *roles.test)))
    clean = Roles(
        tuple(_without(task, judged, _keys(task, "test")) for task in roles.train),
        tuple(_without(task, _keys(task, "test")) for task in roles.validation),
        tuple(_without(task, _keys(task, "test")) for task in roles.test),
    )
    before, after = ({task.name: len(task.pools["train"]) for task in _all(each)} for each in (roles, clean))
    return clean, {name: count - after[name] for name, count in before.items() if count > after[name]}


def _all(roles: Roles) -> tuple[Task, ...]:
    return (*roles.train, *roles.validation, *roles.test)


def _keys(task: Task, pool: str) -> set[int]:
    return set(keys_of(task, pool).tolist()) if pool in task.pools else set()


def _without(task: Task, *unwanted: set[int]) -> Task:
    everything = task.pools["train"]
    keep = [not any(identity in keys for keys in unwanted) for identity in keys_of(task, "train").tolist()]
    if all(keep):
        return task
    rows = everything.where(keep) if isinstance(everything, IndexedRows) else tuple(compress(everything, keep))
    short = replace(task, pools={**task.pools, "train": rows})
    form = FORMS[task.form]
    if not rows or sum(count > 0 for count in counts_of(rows, form, ways_of(task))) < form.least:
        few = "no row is" if form.least < 2 else "fewer than two classes are"
        raise InputError(f"task {task.name!r}: without its leaked rows {few} left; leave it out")
    return short
