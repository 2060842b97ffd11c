"""Reads published tasks, with the splits of their publishers: from folders, GLUE also from the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from metanlp.core.errors import InputError
from metanlp.core.hub import HubName
from metanlp.core.types import Task
from metanlp.forms import FORMS
from metanlp.tasks.reading.build import relabelled, with_labels
from metanlp.tasks.reading.columns import nearest
from metanlp.tasks.reading.files import read_task
from metanlp.tasks.reading.layout import entries, task_files
from metanlp.tasks.reading.records import read_records
from metanlp.tasks.reading.rows import require
from metanlp.tasks.rowset import where
from metanlp.tasks.sources.hub import read_hub
from metanlp.tasks.sources.table import BY_NAME, COMMITS, SOURCES, Published, of_source

BY_FOLDERS = ("glue", "leopard")  # are known by the names of their folders alone, however theirs is called


def published_in(folder: Path) -> tuple[Published, ...]:
    """The records whose data `folder` holds: one for the folder of a task or set; for that of a whole source all that
    are present in it; () for any other folder."""
    folder = folder.absolute()
    if record := BY_NAME.get(f"{folder.parent.name}/{folder.name}"):
        return (record,)
    if task_files(folder):
        return ()
    inside = {entry.name for entry in entries(folder) if entry.is_dir() and not entry.name.startswith(".")}
    for source in (source for source in SOURCES if source in BY_FOLDERS or source == folder.name):
        present = [record for record in of_source(source) if record.folder in inside]
        parts = [task_files(folder / record.folder) for record in present if record.fixed]
        complete = all(any(isinstance(part, tuple) for part in each) for each in parts)
        if present and len(present) == len(inside) and complete:
            return tuple(record for record in present if not (record.alone or record.unusable))
    return ()


def read_published(folder: Path) -> tuple[Task, ...]:
    """The tasks of a folder for which `published_in` finds records. Raises InputError."""
    folder, records = folder.absolute(), published_in(folder)
    if len(records) == 1 and records[0].folder == folder.name:
        return _read(folder, records[0])
    return tuple(task for record in records for task in _read(folder / record.folder, record))


def _read(folder: Path, record: Published) -> tuple[Task, ...]:
    """The task of a record, or its tasks by group."""
    if record.unusable:
        raise InputError(f"{folder}: {record.name} {record.unusable}; {_others(record.source)}")
    task = _finished(replace(read_task(folder, name=record.name, published=True), source=record.source), record)
    return _by_group(task, folder, record.group_by) if record.group_by else (task,)


def read_from_hub(name: str) -> tuple[Task, ...]:
    """Reads `glue` or `glue/NAME` from the Hub at the commits of `COMMITS`; of large splits a sample, as `read_hub`
    does. Raises InputError, StorageError."""
    if name == "glue":
        records = tuple(record for record in of_source(name) if not (record.alone or record.unusable))
        return tuple(task for record in records for task in read_from_hub(record.name))
    record = BY_NAME.get(name)
    if record is None or record.unusable:
        known = [record.folder for record in of_source("glue")]
        why, meant = (record.unusable, "") if record else ("GLUE has no such task", nearest(name[5:], known))
        raise InputError(f"{name}: {why}; {_others('glue')}{meant}")
    hub = HubName(record.hub, record.config, COMMITS[record.hub])
    try:
        (task,) = read_hub(hub, columns=record.columns, hidden=record.hidden)
    except InputError as error:
        raise InputError(f"{name} from the Hub: {error}; METANLP_DATA may name a folder with glue") from error
    return (_finished(replace(task, name=name), record),)


def _others(source: str) -> str:
    return f"choose among {', '.join(record.folder for record in of_source(source) if not record.unusable)}"


def _finished(task: Task, record: Published) -> Task:
    """Gives the task its published labels, metric and description. Notes about its rows are dropped: its users cannot
    change them."""
    named = with_labels(task, record.written or record.labels) if record.labels else task
    notes = task.notes if record.hub and task.source != record.source else ()  # how the rows were sampled
    return replace(named, labels=record.labels or named.labels, metric=record.metric, about=record.about, notes=notes)


def _by_group(task: Task, folder: Path, column: str) -> tuple[Task, ...]:
    """One task a group, in the order of their names; labels keep their order. Raises InputError."""
    group_of = dict[str, str]()  # of each label
    for record in read_records(task_files(folder)["train"]):
        require(record, [column], {column: column})
        cells = record[1]
        group_of[str(cells.get("label_text") or cells.get("label"))] = str(cells[column])
    return tuple(_part(task, group, group_of) for group in sorted({*group_of.values()}))


def _part(task: Task, group: str, group_of: Mapping[str, str]) -> Task:
    """The rows of the task whose labels are of the group."""
    labels = [word for word in task.labels if group_of[word] == group]
    numbers = {task.labels.index(word): number for number, word in enumerate(labels)}
    pools = {
        pool: where(rows, np.array([row["label"] in numbers for row in rows], dtype=bool), FORMS[task.form])
        for pool, rows in task.pools.items()
    }
    return relabelled(replace(task, name=f"{task.name}/{group}", pools=pools), labels, numbers)
