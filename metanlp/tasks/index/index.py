"""Tasks out of an index: 100,000 of them open in seconds, and the rows of one are read when the first is asked for."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np
from pydantic_core import from_json

from metanlp.core.errors import InputError
from metanlp.core.storage import sha256_of
from metanlp.core.types import Row, Task
from metanlp.forms import FORMS, Form
from metanlp.tasks.index.files import Columns, again, check_folders, load, stale
from metanlp.tasks.index.plain import UNFIT, plain_rows
from metanlp.tasks.reading.build import check_name
from metanlp.tasks.reading.files import read_task
from metanlp.tasks.reading.records import shown
from metanlp.tasks.reading.suggestion import option_of
from metanlp.tasks.rowset import counted, row_sets

KEPT = 64  # tasks of an index whose rows are in memory; of more, those asked for longest ago go


class IndexedRows(Sequence[Row]):
    """The rows of a pool or of a support set of an indexed task. They are read when the first is asked for; that raises
    InputError where a file has changed since it was indexed."""

    __slots__ = ("_form", "_index", "_kept", "_place", "counts", "keys", "pair", "targets", "words")

    def __init__(
        self, index: Index, place: tuple[int, int], form: Form, pair: bool, of_rows: Sequence[np.ndarray],
        counts: tuple[int, ...], kept: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self._index, self._place, self._form = index, place, form  # place: number of the task, and of the set in it
        self.keys, self.targets, self.words = of_rows  # (R,) each, as the functions of `rowset` give them
        self.pair = pair  # whether each row is a pair of texts
        self._kept = kept  # (R,) which rows of the set these are; None where they are all
        self.counts = counts if kept is None else counted(self, form, len(counts))  # distinct rows a class: (K,)

    def where(self, keep: np.ndarray) -> IndexedRows:
        """The rows at which `keep`, (R,) bool, is True; as lazy as these."""
        kept = np.flatnonzero(keep) if self._kept is None else self._kept[keep]
        of_rows = self.keys[keep], self.targets[keep], self.words[keep]
        return IndexedRows(self._index, self._place, self._form, self.pair, of_rows, self.counts, kept)

    def check(self) -> None:
        """Raises InputError where a file of the task has changed since it was indexed, or is gone."""
        self._index.check(self._place[0])

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Row]: ...
    def __getitem__(self, at: int | slice) -> Row | Sequence[Row]:
        rows = self._index.rows(*self._place)
        if self._kept is None:
            return rows[at]
        return tuple(rows[n] for n in self._kept[at]) if isinstance(at, slice) else rows[self._kept[at]]

    def __iter__(self) -> Iterator[Row]:
        return iter(self[:])


class Index:
    """The table of an opened index, and the files behind it."""

    def __init__(self, folder: Path, columns: Columns, table: Any) -> None:
        self._folder, self._columns = folder, columns
        # Each column is one array of Arrow, memory-mapped.
        self._task, self._files, *self._of_rows = (table[name].chunk(0) for name in table.column_names)
        self._read = lru_cache(maxsize=KEPT)(self._read_anew)

    def tasks(self, above: str | None) -> Iterator[Task]:
        """Every task, its rows unread; names come after `above/` where it is given."""
        of_rows, at = [column.values.to_numpy() for column in self._of_rows], 0
        same = dict[tuple[Any, ...], tuple[Any, ...]]()  # most tasks have the labels of others
        for number, line in enumerate(self._task.to_pylist()):
            facts = from_json(line)
            fields: dict[str, Any] = facts["task"]
            for name in ("labels", "scale", "notes"):
                value = tuple(fields[name])
                fields[name] = same.setdefault(value, value)
            fields["name"] = f"{above}/{fields['name']}" if above else fields["name"]
            pools, supports = dict[str, IndexedRows](), dict[int, list[IndexedRows]]()
            for place, (pool, shots, size, counts) in enumerate(facts["sets"]):
                arrays = [array[at : at + size] for array in of_rows]
                rows = IndexedRows(self, (number, place), FORMS[fields["form"]], facts["pair"], arrays, tuple(counts))
                if shots:
                    supports.setdefault(shots, []).append(rows)
                else:
                    pools[pool] = rows
                at += size
            yield Task(pools=pools, supports={shots: tuple(sets) for shots, sets in supports.items()}, **fields)

    def rows(self, task: int, place: int) -> Sequence[Row]:
        """The rows of a set of the task with that number, out of memory or read anew. Raises InputError."""
        return self._read(task)[place]

    def check(self, task: int) -> None:
        """Raises InputError where a file of the task has changed since it was indexed, or is gone."""
        for name, size, changed_at, sha256 in from_json(self._files[task].as_py()):
            path = f"{self._folder}/{name}"  # a Path would take longer to make than the file to be looked at
            try:
                found = os.stat(path)
                # A copy of the folder has other times, and the same content.
                same = found.st_size == size and (found.st_mtime_ns == changed_at or sha256_of(Path(path)) == sha256)
            except OSError:
                raise stale(Path(path), "is gone, or can't be read,", self._folder) from None
            if not same:
                raise stale(Path(path), "has changed", self._folder)

    def _read_anew(self, task: int) -> Sequence[Sequence[Row]]:
        self.check(task)
        facts = from_json(self._task[task].as_py())
        sizes = [size for _, _, size, _ in facts["sets"]]
        with suppress(*UNFIT):  # of a file that changes just now; the readers say what is wrong with it
            found = self._plain(task, facts)
            if [*map(len, found)] == sizes:
                return found
        name, drop, path = facts["task"]["name"], facts.get("drop_repeats", False), self._folder / facts["path"]
        sets = row_sets(read_task(path, columns=self._columns, name=name, drop_repeats=drop))
        if [len(rows) for rows in sets] != sizes:
            raise stale(path, "has changed", self._folder)
        return sets

    def _plain(self, task: int, facts: Mapping[str, Any]) -> list[tuple[Row, ...]]:
        """The sets of a task whose rows stand in its files as they are; none for other tasks."""
        if not (columns := facts.get("plain")):
            return []
        files = from_json(self._files[task].as_py())
        labels = facts["task"]["labels"]
        return [tuple(plain_rows(f"{self._folder}/{name}", columns, labels)) for name, *_ in files]


def open_index(folder: str | Path, columns: Columns | None = None, name: str | None = None) -> tuple[Task, ...]:
    """The tasks of an indexed folder: those that `read_tasks` gives, with rows that are not read yet.

    Raises InputError where files came or went since, or were indexed with other `columns`; DamagedError for an index
    that is not what a build wrote."""
    folder = Path(folder)
    indexed_with, folders, table = load(folder)
    if dict(columns or {}) != indexed_with:
        built = f"with --columns {option_of(indexed_with)}" if indexed_with else "without --columns"
        raise InputError(f"{shown(folder)}: was indexed {built}; give the same, or the others to {again(folder)}")
    check_folders(folder, folders)
    collecting = gc.isenabled()
    gc.disable()  # which would go again and again through all that is made here, and none of it is garbage
    try:
        tasks = tuple(Index(folder, indexed_with, table).tasks(name))
    finally:
        if collecting:
            gc.enable()
    if name:
        check_name(max((task.name for task in tasks), key=len))
    return tasks


def check_unchanged(tasks: Iterable[Task]) -> None:
    """Raises InputError where a file has changed since its task was indexed; tasks without an index pass."""
    for task in tasks:
        if isinstance(rows := task.pools["train"], IndexedRows):
            rows.check()
