"""One file as many tasks: the rows of each group, as of a question, a customer or a domain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from metanlp.core.errors import InputError
from metanlp.core.types import Task
from metanlp.tasks.reading.build import build_task, check_name
from metanlp.tasks.reading.columns import column_names, nearest
from metanlp.tasks.reading.records import OF_TEXT, Record, read_records, shown
from metanlp.tasks.reading.rows import as_text, as_typed, labelled_rows


def read_grouped(path: str | Path, column: str, columns: Mapping[str, str] | None = None) -> tuple[Task, ...]:
    """The tasks of a file, `FILE/group` each, in the order in which groups come. `columns` maps our names to those of
    the file. Raises InputError, also for a group whose rows make no task."""
    path = Path(path)
    records = read_records(path)
    if path.suffix.lower() in OF_TEXT:
        records = as_typed(records, column_names(columns))
    groups: dict[str, list[Record]] = {}
    for where, cells in records:
        if column not in cells:
            found = ", ".join(cells)
            raise InputError(f"{where}: no column {column!r} to group by; found {found}{nearest(column, cells)}")
        group = as_text(cells[column], f"{where}: {column!r}").strip()
        if not group:
            raise InputError(f"{where}: the group, {column!r}, is blank; every row needs one")
        groups.setdefault(group, []).append((where, cells))
    if not groups:
        raise InputError(f"{shown(path)}: has no rows; give rows with the column {column!r}")
    return tuple(_task(f"{path.stem}/{group.replace('/', '-')}", rows, columns, path) for group, rows in groups.items())


def _task(name: str, records: list[Record], columns: Mapping[str, str] | None, path: Path) -> Task:
    rows = labelled_rows(records, columns, shown(path))
    return build_task(check_name(name), {"train": rows}, source=path.resolve().name)
