"""Tasks out of an index: 100,000 of them open in seconds, and the rows of one are read when the first is asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from sys import intern
from typing import overload

import numpy as np

from metanlp.errors import InputError
from metanlp.forms import FORMS, Form
from metanlp.tasks.build import check_name
from metanlp.tasks.files import read_task
from metanlp.tasks.index_files import ARRAYS, HEAD, HOME, Columns, Content, again, check_folders, digest, load, stale
from metanlp.tasks.records import shown
from metanlp.types import Row, Task

KEPT = 64  # tasks of an index whose rows are in memory; of more, those asked for longest ago go


class IndexedRows(Sequence[Row]):
    """A row set of an indexed task: its rows are read when the first is asked for, all else is known before.

    Reading raises InputError where a file has changed since it was indexed."""

    __slots__ = ("_index", "_kept", "_set")

    def __init__(self, index: Index, number: int, kept: np.ndarray | None = None) -> None:
        self._index, self._set, self._kept = index, number, kept  # kept: (R,) rows of the set, None for all

    @property
    def keys(self) -> np.ndarray:
        """A hash of each row's identity: (R,) uint64."""
        return self._of_rows(self._index.content.keys)

    @property
    def targets(self) -> np.ndarray:
        """The label of each row: (R,); 0 where a row has none, or several."""
        return self._of_rows(self._index.content.labels)

    @property
    def counts(self) -> tuple[int, ...]:
        """Distinct rows a class, in the order of the labels, or in all where there are no classes; of rows with one
        identity the first counts."""
        known = self._index.counts(self._set)
        return known if self._kept is None else counts_of(self, self._index.form(self._set), len(known))

    @property
    def words(self) -> np.ndarray:
        """Words of each row, counted between spaces: (R,)."""
        return self._of_rows(self._index.content.words)

    @property
    def pair(self) -> bool:
        """Whether a row is a pair of texts."""
        return self._index.pair(self._set)

    def where(self, keep: Sequence[bool]) -> IndexedRows:
        """The rows at which `keep`, (R,), is True; as lazy as these."""
        kept = np.arange(len(self)) if self._kept is None else self._kept
        return IndexedRows(self._index, self._set, kept[np.asarray(keep)])

    def check(self) -> None:
        """Raises InputError where a file of the task has changed since it was indexed, or is gone."""
        self._index.check(self._set)

    def __len__(self) -> int:
        return self._index.size(self._set) if self._kept is None else len(self._kept)

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Row]: ...
    def __getitem__(self, at: int | slice) -> Row | Sequence[Row]:
        rows = self._index.rows(self._set)
        if self._kept is None:
            return rows[at]
        return tuple(rows[n] for n in self._kept[at]) if isinstance(at, slice) else rows[self._kept[at]]

    def __iter__(self) -> Iterator[Row]:
        return iter(self[:])

    def _of_rows(self, every: np.ndarray) -> np.ndarray:
        mine = every[self._index.span(self._set)]
        return mine if self._kept is None else mine[self._kept]


class Index:
    """An opened index. Row sets are numbered through: the pools of a task, then its support sets, task after task."""

    def __init__(self, folder: Path, content: Content) -> None:
        self.folder, self.content = folder, content
        self._rows_at = _bounds(content.sets["rows"].to_numpy())
        self._sets_at = _bounds(content.tasks["sets"].to_numpy())
        self._files_at = _bounds(content.tasks["files"].to_numpy())
        self._counts_at = _bounds(np.repeat(content.tasks["ways"].to_numpy(), content.tasks["sets"].to_numpy()))
        self._counts = content.sets["counts"].chunk(0).flatten().to_numpy()
        self._read = lru_cache(maxsize=KEPT)(self._read_anew)

    def tasks(self, above: str | None) -> Iterator[Task]:
        """Every task, its row sets lazy; names come after `above/` where it is given."""
        columns = ("name", "source", "form", "metric", "about", "labels", "low", "high", "sets")
        sets = enumerate(zip(*(self.content.sets[name].to_pylist() for name in ("pool", "shots")), strict=True))
        same = dict[tuple[str, ...], tuple[str, ...]]()  # most tasks have the labels of others
        for row in zip(*(self.content.tasks[column].to_pylist() for column in columns), strict=True):
            name, source, form, metric, about, labels, low, high, count = row
            pools, supports = dict[str, IndexedRows](), dict[int, tuple[IndexedRows, ...]]()
            for number, (pool, shots) in islice(sets, count):
                rows = IndexedRows(self, number)
                if shots:
                    supports[shots] = (*supports.get(shots, ()), rows)
                else:
                    pools[intern(pool)] = rows
            labels = same.setdefault(tuple(labels), tuple(labels))
            name = f"{above}/{name}" if above else name
            form, metric = intern(form), intern(metric)
            scale = (low, high)
            yield Task(name, pools, labels, source, form, supports=supports, metric=metric, about=about, scale=scale)

    def size(self, number: int) -> int:
        return int(self._rows_at[number + 1] - self._rows_at[number])

    def span(self, number: int) -> slice:
        return slice(self._rows_at[number], self._rows_at[number + 1])

    def counts(self, number: int) -> tuple[int, ...]:
        return tuple(self._counts[self._counts_at[number] : self._counts_at[number + 1]].tolist())

    def form(self, number: int) -> Form:
        return FORMS[self.content.tasks["form"][self._task_of(number)].as_py()]

    def pair(self, number: int) -> bool:
        return self.content.tasks["pair"][self._task_of(number)].as_py()

    def rows(self, number: int) -> Sequence[Row]:
        """The rows of a set, out of memory or read anew. Raises InputError."""
        task = self._task_of(number)
        return self._read(task)[number - int(self._sets_at[task])]

    def check(self, number: int) -> None:
        """Raises InputError where a file of the task with this row set has changed."""
        first, end = self._files_at[self._task_of(number) :][:2]
        for file in self.content.files.slice(first, end - first).to_pylist():
            path = self.folder / os.fsdecode(file["path"])
            try:
                found = path.stat()
                same = found.st_size == file["bytes"] and (
                    # A copy of the folder has other times, and the same content.
                    found.st_mtime_ns == file["mtime"] or digest(path) == file["sha256"]
                )
            except OSError:
                raise stale(path, "is gone, or can't be read,", self.folder) from None
            if not same:
                raise stale(path, "has changed", self.folder)

    def _task_of(self, number: int) -> int:
        return int(np.searchsorted(self._sets_at, number, side="right")) - 1

    def _read_anew(self, task: int) -> tuple[Sequence[Row], ...]:
        first, end = map(int, self._sets_at[task:][:2])
        self.check(first)
        path, name = (self.content.tasks[column][task].as_py() for column in ("path", "name"))
        sets = row_sets(read_task(self.folder / os.fsdecode(path), columns=self.content.columns, name=name))
        if [len(rows) for rows in sets] != [self.size(number) for number in range(first, end)]:
            raise stale(self.folder / os.fsdecode(path), "has changed", self.folder)
        return sets


def _bounds(counts: np.ndarray) -> np.ndarray:
    """Where each of (N,) stretches begins, and where the last ends: (N + 1,)."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def has_index(folder: str | Path) -> bool:
    return os.path.lexists(Path(folder, HOME, HEAD))


def open_index(folder: str | Path, columns: Columns | None = None, name: str | None = None) -> tuple[Task, ...]:
    """The tasks of an indexed folder, those that `read_tasks` gives, but with lazy rows.

    Raises InputError where files came or went since, or were indexed with other `columns`; DamagedError for an index
    that is not what a build wrote."""
    folder = Path(folder)
    content = load(folder)
    if dict(columns or {}) != content.columns:
        made = ",".join(f"{ours}={theirs}" for ours, theirs in content.columns.items())
        built = f"with --columns {made}" if made else "without --columns"
        raise InputError(f"{shown(folder)}: was indexed {built}; give the same, or the others to {again(folder)}")
    check_folders(folder, content)
    tasks = tuple(Index(folder, content).tasks(name))
    if name:
        check_name(max((task.name for task in tasks), key=len))
    return tasks


def check_unchanged(tasks: Iterable[Task]) -> None:
    """Raises InputError where a file has changed since its task was indexed; tasks without an index pass."""
    for task in tasks:
        if isinstance(rows := task.pools["train"], IndexedRows):
            rows.check()


def row_sets(task: Task) -> tuple[Sequence[Row], ...]:
    """The pools of a task, then its support sets."""
    return (*task.pools.values(), *chain.from_iterable(task.supports.values()))


def keys_of(rows: Sequence[Row], form: Form) -> np.ndarray:
    """A 64-bit hash of each row's identity: (R,) uint64. Indexed rows are not read for it."""
    if isinstance(rows, IndexedRows):
        return rows.keys
    # ascii and not repr, which asks this Python's Unicode tables what can be printed.
    hashes = (hashlib.blake2b(ascii(form.key(row)).encode(), digest_size=8).digest() for row in rows)
    return np.frombuffer(b"".join(hashes), dtype=ARRAYS["keys"])


def targets_of(rows: Sequence[Row], form: Form) -> np.ndarray:
    """The label of each row, 0 where it has none or several: (R,). Indexed rows are not read for it."""
    if isinstance(rows, IndexedRows):
        return rows.targets
    one = form.by_class and form.one_class
    return np.array([form.shots_of(row)[0] if one else 0 for row in rows], dtype=ARRAYS["labels"])


def counts_of(rows: Sequence[Row], form: Form, ways: int) -> tuple[int, ...]:
    """Rows a class, or in all, without those whose key came before: (R,) -> (K,). Where a row is of several classes the
    rows are read."""
    first = np.unique(keys_of(rows, form), return_index=True)[1]
    if form.one_class:
        return tuple(np.bincount(targets_of(rows, form)[first], minlength=ways).tolist())
    shots = chain.from_iterable({*form.shots_of(rows[int(n)])} for n in first)
    return tuple(np.bincount(np.fromiter(shots, dtype=np.int64), minlength=ways).tolist())


def words_of(rows: Sequence[Row], form: Form) -> np.ndarray:
    """Words of each row, counted between spaces: (R,). Indexed rows are not read for it."""
    if isinstance(rows, IndexedRows):
        return rows.words
    return np.array([form.length(row) for row in rows], dtype=ARRAYS["words"])


def are_pairs(rows: Sequence[Row]) -> bool:
    """Whether each row is a pair of texts. Indexed rows are not read for it."""
    return rows.pair if isinstance(rows, IndexedRows) else "text_a" in rows[0]


def ways_of(task: Task) -> int:
    """How many numbers its rows are counted in: one a class, one where there are none."""
    return len(task.labels) or 1
