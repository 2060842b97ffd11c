"""Building the index of a folder: every task validated as it is for a run, hashed, counted, written down."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from metanlp.disk import disk
from metanlp.errors import InputError
from metanlp.forms import FORMS
from metanlp.tasks.columns import column_names
from metanlp.tasks.files import ENDINGS, is_task_folder, read_task, task_files, task_paths
from metanlp.tasks.glue import is_glue
from metanlp.tasks.index import are_pairs, counts_of, keys_of, row_sets, targets_of, ways_of, words_of
from metanlp.tasks.index_files import HOME, Columns, digest, names_digest, names_in, writing
from metanlp.tasks.leopard import is_leopard
from metanlp.tasks.records import shown
from metanlp.types import Task

PART = 500  # tasks that a process takes at once
ALONE = 4_000  # tasks up to which other processes would take longer to start than to help
SETTLED = 2_000_000_000  # nanoseconds; what was written so short a time ago may be written again in the same tick
OF_ROWS = {"keys": keys_of, "labels": targets_of, "words": words_of}  # the arrays of an index

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Built:
    """What was indexed."""

    tasks: int
    rows: int  # of all pools and support sets
    seconds: float


@dataclass(frozen=True)
class Part:
    """What the index says of some tasks: rows of its tables, stretches of its arrays."""

    tasks: Rows
    sets: Rows
    files: Rows
    arrays: dict[str, np.ndarray]  # each (R,), over all rows


def build_index(
    folder: str | Path, columns: Columns | None = None, show: Callable[[float], None] = lambda done: None
) -> Built:
    """Index every task below `folder`, in the place of an older index; `show` is told how much is done, up to 1.

    The first task that is not valid ends it, and no index is written. Raises InputError, StorageError."""
    begun, folder = time.perf_counter(), Path(folder)
    column_names(columns)
    _check_folder(folder)
    with disk(folder / HOME), _held(folder), writing(folder) as made:
        found = task_paths(folder)
        made.add("folders", _folders(folder, {*found.values()}))
        tasks = rows = 0
        for part in _parts(folder, columns or {}, list(found.items())):
            made.add("tasks", part.tasks)
            made.add("sets", part.sets)
            made.add("files", part.files)
            for name, values in part.arrays.items():
                made.append(name, values)
            tasks, rows = tasks + len(part.tasks), rows + len(part.arrays["keys"])
            show(tasks / len(found))
        made.publish(columns or {})
    return Built(tasks, rows, time.perf_counter() - begun)


def _check_folder(folder: Path) -> None:
    if not os.path.isdir(folder) or is_task_folder(folder):
        raise InputError(f"{shown(folder)}: is no folder of tasks; give the folder that holds them")
    if is_glue(folder) or is_leopard(folder):
        raise InputError(f"{shown(folder)}: is read as others published it, without an index; index tasks of your own")


def _parts(folder: Path, columns: Columns, tasks: Sequence[tuple[str, Path]]) -> Iterator[Part]:
    """In the order of the tasks, whoever makes them."""
    starts = range(0, len(tasks), PART)
    if len(tasks) <= ALONE:
        return (_part(folder, columns, tasks[at : at + PART]) for at in starts)
    joblib: Any = import_module("joblib")
    apart, us = joblib.delayed(_part_apart), os.getpid()
    workers = joblib.Parallel(n_jobs=-1, return_as="generator")
    return workers(apart(us, folder, columns, tasks[at : at + PART]) for at in starts)


def _part_apart(parent: int, folder: Path, columns: Columns, tasks: Sequence[tuple[str, Path]]) -> Part:
    if os.getpid() != parent:  # with one core there are no others, and joblib calls this where it is
        _end_with(parent)
    return _part(folder, columns, tasks)


@cache
def _end_with(parent: int) -> None:
    """Ends this process when its parent is gone: if that was killed, it would wait for more work for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _part(folder: Path, columns: Columns, tasks: Sequence[tuple[str, Path]]) -> Part:
    made, of_sets = Part([], [], [], {}), list[dict[str, np.ndarray]]()
    for name, path in tasks:
        task, files = _read(path, folder, columns, name)
        form = FORMS[task.form]
        mine = [{name: of(rows, form) for name, of in OF_ROWS.items()} for rows in row_sets(task)]
        made.tasks.append(_task_line(task, path.relative_to(folder), len(files)))
        made.sets.extend(_set_lines(task))
        made.files.extend(files)
        of_sets += mine
    made.arrays.update({name: np.concatenate([arrays[name] for arrays in of_sets]) for name in OF_ROWS})
    return made


def _read(path: Path, folder: Path, columns: Columns, name: str) -> tuple[Task, Rows]:
    """The task, and what stands in the index about its files."""
    try:
        files = task_files(path)
        before = [_stamp(file) for file in files]
        task = read_task(path, columns=columns, name=name)
        hashes = [digest(file) for file in files]
        same = [_stamp(file) for file in files] == before
    except OSError as error:
        raise InputError(f"{shown(path)}: cannot be read ({error.strerror}); check the file") from error
    if not same:
        raise InputError(f"{shown(path)}: was written to while it was indexed; build again when that has ended")
    settled = time.time_ns() - SETTLED
    return task, [
        {
            "path": os.fsencode(file.relative_to(folder)),
            "bytes": size,
            "mtime": mtime if mtime < settled else -1,
            "sha256": sha256,
        }
        for file, (size, mtime), sha256 in zip(files, before, hashes, strict=True)
    ]


def _stamp(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _task_line(task: Task, path: Path, files: int) -> dict[str, Any]:
    return {
        "name": task.name,
        "path": os.fsencode(path),
        "labels": task.labels,
        "ways": ways_of(task),
        "low": task.scale[0],
        "high": task.scale[1],
        "source": task.source,
        "form": task.form,
        "metric": task.metric,
        "about": task.about,
        "pair": are_pairs(task.pools["train"]),
        "sets": len(row_sets(task)),
        "files": files,
    }


def _set_lines(task: Task) -> Rows:
    names = [(pool, 0) for pool in task.pools] + [("", k) for k, sets in task.supports.items() for _ in sets]
    return [
        {
            "pool": pool,
            "shots": shots,
            "rows": len(rows),
            "counts": counts_of(rows, FORMS[task.form], ways_of(task)),
        }
        for (pool, shots), rows in zip(names, row_sets(task), strict=True)
    ]


def _folders(folder: Path, tasks: Collection[Path]) -> Rows:
    """What stands in the index about the folders. Raises InputError for a task that came since `tasks` were found."""
    lines = Rows()
    for here, names in _listed(folder, tasks):
        data = [name for name in names if name.lower().endswith(ENDINGS) and here not in tasks]
        if new := [name for name in data if here / name not in tasks]:
            raise InputError(f"{shown(here / new[0])}: came while its folder was indexed; build again")
        path = b"" if here == folder else os.fsencode(here.relative_to(folder))
        lines.append({"path": path, "names": names_digest(names)})
    return lines


def _listed(folder: Path, tasks: Collection[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Every folder in which a task may come or go, with the names in it; in a task's own folder nothing lies deeper."""
    names = names_in(folder)
    yield folder, names
    deeper = (folder / name.rstrip("/") for name in names if name.endswith("/") and folder not in tasks)
    yield from chain.from_iterable(_listed(path, tasks) for path in deeper)


@contextmanager
def _held(folder: Path) -> Generator[None]:
    """One build of a folder at a time; the operating system drops the lock of a process that dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(f"{shown(folder)}: is being indexed by another process; wait for it to end") from None
    finally:
        os.close(descriptor)
