"""What is counted over the rows of a task: their identities, classes and words, and the rows of each class.

Rows that come out of an index know these numbers, so that nothing has to be read to count them; for any other sequence
of rows they are computed. Letters: R rows, K classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, compress
from typing import Any, Self

import numpy as np

from metanlp.core.types import Row, Task
from metanlp.forms import FORMS, Form

KEY = np.dtype("<u8")
COUNT = np.dtype("<u4")  # of labels and words


class KeyedRows(tuple[Row, ...]):
    """Rows in memory, with the identities that were computed when they were read."""

    keys: np.ndarray | None  # (R,) uint64; None where they are unknown, as in a copy that `asdict` makes

    def __new__(cls, rows: Iterable[Row], keys: np.ndarray | None = None) -> Self:
        made = super().__new__(cls, rows)
        made.keys = keys
        return made


def keys_of(rows: Sequence[Row], form: Form) -> np.ndarray:
    """The identity of each row, a 64-bit hash of its texts: (R,) uint64."""
    return _known(rows, "keys", form.identity, KEY)


def targets_of(rows: Sequence[Row], form: Form) -> np.ndarray:
    """The class of each row, 0 where it has none or several: (R,)."""
    one = form.by_class and form.one_class
    return _known(rows, "targets", lambda row: form.shots_of(row)[0] if one else 0, COUNT)


def words_of(rows: Sequence[Row], form: Form) -> np.ndarray:
    """The number of words of each row, counted between spaces: (R,)."""
    return _known(rows, "words", form.length, COUNT)


def _known(rows: Sequence[Row], name: str, compute: Callable[[Row], int], kind: np.dtype[Any]) -> np.ndarray:
    """What the rows have under `name`; where they have nothing, it is computed row by row: (R,)."""
    known: np.ndarray | None = getattr(rows, name, None)
    return np.array([compute(row) for row in rows], dtype=kind) if known is None else known


def counts_of(rows: Sequence[Row], form: Form, ways: int) -> tuple[int, ...]:
    """The number of distinct rows of each class, or in a form without classes of all: (K,)."""
    known: tuple[int, ...] | None = getattr(rows, "counts", None)
    return counted(rows, form, ways) if known is None else known


def counted(rows: Sequence[Row], form: Form, ways: int) -> tuple[int, ...]:
    """The same, counted anew. Rows that may belong to several classes are read for it."""
    first = np.unique(keys_of(rows, form), return_index=True)[1]
    if form.one_class:
        return tuple(np.bincount(targets_of(rows, form)[first], minlength=ways).tolist())
    shots = chain.from_iterable({*form.shots_of(rows[int(n)])} for n in first)
    return tuple(np.bincount(np.fromiter(shots, dtype=np.int64), minlength=ways).tolist())


def where(rows: Sequence[Row], keep: np.ndarray, form: Form) -> Sequence[Row]:
    """The rows at which `keep`, (R,) bool, is True. Rows of an index stay unread."""
    select: Callable[[np.ndarray], Sequence[Row]] | None = getattr(rows, "where", None)
    return select(keep) if select else KeyedRows(compress(rows, keep), keys_of(rows, form)[keep])


def changed(rows: Sequence[Row], change: Callable[[Row], Row], form: Form) -> KeyedRows:
    """The rows with other answers, and so with the same identities."""
    return KeyedRows(map(change, rows), keys_of(rows, form))


def are_pairs(rows: Sequence[Row]) -> bool:
    """Whether each row is a pair of texts."""
    known: bool | None = getattr(rows, "pair", None)
    return "text_a" in rows[0] if known is None else known


def ways_of(task: Task) -> int:
    """K of `counts_of`: one a class, or one in all where there are no classes."""
    return len(task.labels) or 1


def row_sets(task: Task) -> tuple[Sequence[Row], ...]:
    """The pools of a task, then its support sets."""
    return (*task.pools.values(), *chain.from_iterable(task.supports.values()))


def pool_keys(task: Task, pool: str) -> np.ndarray:
    """The identity of each row of a pool: (R,) uint64; (0,) where the task has none of that name."""
    return keys_of(task.pools.get(pool, ()), FORMS[task.form])
