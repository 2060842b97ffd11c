"""Building the index of a folder: every task validated as it is for a run, hashed, counted, written down."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np

from metanlp.core.errors import InputError
from metanlp.core.storage import disk, sha256_of
from metanlp.core.types import Task
from metanlp.forms import FORMS
from metanlp.tasks.index.files import HOME, Columns, names_in, table, write_index
from metanlp.tasks.index.plain import plain_columns
from metanlp.tasks.reading.columns import column_names
from metanlp.tasks.reading.files import naming_all, read_task
from metanlp.tasks.reading.layout import ENDINGS, task_files, task_paths
from metanlp.tasks.reading.records import shown
from metanlp.tasks.rowset import are_pairs, counts_of, keys_of, row_sets, targets_of, ways_of, words_of
from metanlp.tasks.sources.published import published_in

PART = 500  # tasks that a process takes at once
ALONE = 4_000  # tasks up to which other processes would take longer to start than to help
SETTLED = 2_000_000_000  # nanoseconds; what was written so short a time ago may be written again in the same tick


@dataclass(frozen=True)
class Built:
    """What was indexed."""

    tasks: int
    rows: int  # of all pools and support sets
    seconds: float


def build_index(
    folder: str | Path,
    columns: Columns | None = None,
    show: Callable[[float], None] = lambda done: None,
    *,
    drop_repeats: bool = False,
) -> Built:
    """Index every task below `folder`, in the place of an older index; `show` is told how much is done, up to 1. Test
    rows that stand in "train" are left out where that is asked.

    The first task that is not valid ends it, and no index is written. Raises InputError, StorageError."""
    begun, folder = time.perf_counter(), Path(folder)
    column_names(columns)
    if not os.path.isdir(folder) or task_files(folder):
        raise InputError(f"{shown(folder)}: is no folder of tasks; give the folder that holds them")
    if published_in(folder):
        raise InputError(f"{shown(folder)}: is read as others published it, without an index; index tasks of your own")
    with disk(folder / HOME), _held(folder):
        found = task_paths(folder)
        folders = dict(_names(folder, folder, {*found.values()}))
        parts, done = list[Any](), 0
        with naming_all(folder, found.values(), columns):
            for part in _parts(folder, columns or {}, list(found.items()), drop_repeats):
                parts.append(part)
                show((done := done + len(part)) / len(found))
        write_index(folder, columns or {}, folders, parts)
    rows = sum(len(chunk.values) for part in parts for chunk in part["keys"].chunks)
    return Built(done, rows, time.perf_counter() - begun)


def _parts(folder: Path, columns: Columns, tasks: Sequence[tuple[str, Path]], drop: bool) -> Iterator[Any]:
    """The tables of `PART` tasks each, in their order, from this process or from one a core."""
    parts = [(os.getpid(), folder, columns, tasks[at : at + PART], drop) for at in range(0, len(tasks), PART)]
    if len(tasks) <= ALONE:
        return starmap(_part, parts)
    joblib: Any = import_module("joblib")
    return joblib.Parallel(n_jobs=-1, return_as="generator")(joblib.delayed(_part)(*part) for part in parts)


def _part(parent: int, folder: Path, columns: Columns, tasks: Sequence[tuple[str, Path]], drop: bool) -> Any:
    """The table of some tasks. `parent` is the process that builds, which may be this one."""
    if os.getpid() != parent:
        _end_with(parent)
    return table([_row(name, path, folder, columns, drop) for name, path in tasks])


@cache
def _end_with(parent: int) -> None:
    """Ends this process when its parent is gone: if that was killed, it would wait for more work for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _row(name: str, path: Path, folder: Path, columns: Columns, drop: bool) -> dict[str, Any]:
    """The row of one task in the table. Raises InputError for a task that is not valid, or changes meanwhile."""
    try:
        found = [*task_files(path).values()]
        before = [_stamp(file) for file in found]
        task = read_task(path, columns=columns, name=name, drop_repeats=drop)
        hashes = [sha256_of(file) for file in found]
        same = [_stamp(file) for file in found] == before
    except OSError as error:
        raise InputError(f"{shown(path)}: cannot be read ({error.strerror}); check the file") from error
    if not same:
        raise InputError(f"{shown(path)}: was written to while it was indexed; build again when that has ended")
    settled = time.time_ns() - SETTLED
    stamps = [
        (str(file.relative_to(folder)), size, changed_at if changed_at < settled else -1, sha256)
        for file, (size, changed_at), sha256 in zip(found, before, hashes, strict=True)
    ]
    form, sets = FORMS[task.form], row_sets(task)
    how = {"drop_repeats": drop, "plain": plain_columns(found, sets, columns, task.labels)}
    return {
        "task": json.dumps(_facts(task) | {"path": str(path.relative_to(folder))} | how),
        "files": json.dumps(stamps),
        "keys": np.concatenate([keys_of(rows, form) for rows in sets]),
        "targets": np.concatenate([targets_of(rows, form) for rows in sets]),
        "words": np.concatenate([words_of(rows, form) for rows in sets]),
    }


def _stamp(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _facts(task: Task) -> dict[str, Any]:
    """Everything about a task but its rows. A set is a pool with its name, or a support set with its shots."""
    form, ways, fields = FORMS[task.form], ways_of(task), ("name", "source", "form", "metric", "about", "labels")
    names = [(pool, 0) for pool in task.pools] + [("", shots) for shots, sets in task.supports.items() for _ in sets]
    sets = zip(names, row_sets(task), strict=True)
    return {
        "task": {field: getattr(task, field) for field in (*fields, "scale", "notes")},
        "pair": are_pairs(task.pools["train"]),
        "sets": [(*name, len(rows), counts_of(rows, form, ways)) for name, rows in sets],
    }


def _names(here: Path, folder: Path, tasks: Collection[Path]) -> Iterator[tuple[str, list[str]]]:
    """The `names_in` every folder from `here` on in which a task may come or go; the folder of a task has none below.
    Raises InputError for a task that came since `tasks` were found."""
    names = names_in(here)
    yield str(here.relative_to(folder)), names
    for name in names if here not in tasks else ():
        if name.endswith("/"):
            yield from _names(here / name, folder, tasks)
        elif name.lower().endswith(ENDINGS) and here / name not in tasks:
            raise InputError(f"{shown(here / name)}: came while its folder was indexed; build again")


@contextmanager
def _held(folder: Path) -> Generator[None]:
    """One build of a folder at a time, and a place for its index before the work begins. The operating system drops the
    lock of a process that dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(f"{shown(folder)}: is being indexed by another process; wait for it to end") from None
    try:
        (folder / HOME).mkdir(exist_ok=True)
        yield
    finally:
        with suppress(OSError):
            (folder / HOME).rmdir()  # where no index was written
        os.close(descriptor)
