"""One file as many tasks: those rows are one that have the same value in a column, a shop, a category, a condition."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from metanlp.core.errors import InputError
from metanlp.core.types import Task
from metanlp.forms import FORMS
from metanlp.forms.reading import LabelledRow, listed
from metanlp.tasks.reading.build import build_task, check_name
from metanlp.tasks.reading.columns import column_names, in_file, nearest
from metanlp.tasks.reading.layout import task_files
from metanlp.tasks.reading.records import OF_TEXT, Record, read_records, shown
from metanlp.tasks.reading.rows import as_text, as_typed, labelled_rows

LEAST = 6  # rows of a class, without which it is left out of a task: four shots and a row or two to ask
CLASSES = 2  # of a task at the least


def read_by_column(
    path: Path, column: str, columns: Mapping[str, str] | None = None, name: str | None = None
) -> tuple[Task, ...]:
    """The training rows of a file, or of a task's folder, as one task a value of `column`, `NAME/VALUE`, in the order
    of values; rows where it is blank are in none. Classes of fewer than `LEAST` rows are left out of a task; a value
    with fewer than two others gives none. Raises InputError."""
    files = task_files(path)
    if "train" not in files:
        raise InputError(
            f"{shown(path)}: has no training rows to divide by {column!r}; give a file, or a task's folder"
        )
    file, name = files["train"], check_name(name or path.stem)
    records = list(read_records(file))
    given = [value_of(record, column) for record in records]
    values = [name_of(value) for value in given]
    columns = in_file(columns, records[0][1] if records else (), shown(file))
    typed = as_typed(iter(records), column_names(columns)) if file.suffix.lower() in OF_TEXT else records
    groups = defaultdict[str, list[LabelledRow]](list)  # "" holds the rows of no task
    for value, row in zip(values, labelled_rows(typed, columns, shown(file)), strict=True):
        groups[value].append(row)
    check_names([where for where, _ in records], given, values)
    blank = len(groups.pop("", ()))
    kept = {value: rows for value in sorted(groups) if (rows := usable(groups[value]))}
    if not kept:
        raise InputError(
            f"{shown(file)}: no value of {column!r} has {LEAST} rows of {CLASSES} classes each; found "
            f"{listed(groups)}; divide by another column"
        )
    note = f"{len(kept)} of {len(groups)} values of {column!r} have {CLASSES} classes of {LEAST} rows, and are tasks"
    note += f"; {blank} rows have none" if blank else ""
    tasks = [build_task(f"{name}/{value}", {"train": rows}, source=path.name) for value, rows in kept.items()]
    return replace(tasks[0], notes=(note, *tasks[0].notes)), *tasks[1:]


def check_names(places: Sequence[str], given: Sequence[str], names: Sequence[str]) -> None:
    """Raises InputError for two values that would be one name."""
    first = dict[str, tuple[str, str]]()
    for where, value, name in zip(places, given, names, strict=True):
        there, other = first.setdefault(name, (where, value))
        if other != value:
            raise InputError(
                f"{where}: the value is {value!r}, and {other!r} at {there}; names of tasks have no slash or comma, so "
                "that both would be one task: write them apart"
            )


def name_of(value: str) -> str:
    """A value fit for the name of a task."""
    return " ".join(re.sub(r"[/,]", " ", value).split())


def value_of(record: Record, column: str) -> str:
    """The value as it stands there, but for its spaces; "" where it is blank. Raises InputError without a column."""
    where, cells = record
    if column not in cells:
        raise InputError(f"{where}: no column {column!r}; found {listed(cells)}{nearest(column, cells)}")
    text = "" if cells[column] is None else as_text(cells[column], f"{where}: {column!r}")
    return " ".join(text.split())


def usable(rows: list[LabelledRow]) -> list[LabelledRow]:
    """The rows of classes that have enough of them; where answers are no classes, all rows or none."""
    if not FORMS[rows[0].form].single_label:
        return rows if len(rows) >= CLASSES * LEAST else []
    counts = Counter(row.label for row in {row.key: row for row in rows}.values())
    large = {label for label, count in counts.items() if count >= LEAST}
    return [row for row in rows if row.label in large] if len(large) >= CLASSES else []
