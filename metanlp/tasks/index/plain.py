"""Rows that stand in a file as they are: once checked, they are read again without all that a reader has to check.

Whether the rows of a task are such is tried when its index is built: reading them in this way has to give what the
readers gave. Files that changed since are noticed before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from metanlp.core.types import Row

UNFIT = (OSError, ValueError, LookupError, TypeError, RecursionError)  # what reading a file in another form may raise


def plain_rows(path: str | Path, columns: Mapping[str, str], labels: Sequence[str]) -> list[Row]:
    """The rows of a file of JSON lines; `columns` are our names of the cells of a row -> the file's, in the order of a
    row. A cell "label" names one of `labels`, where there are any, and becomes its number. Raises one of UNFIT."""
    with open(path, "rb") as file:
        lines = file.read().strip(b"\n").replace(b"\n", b",")  # no record holds a line's end: one array is faster
    # Reads long texts in less than half the time of the standard library, and raises ValueError as that does.
    records: list[Any] = from_json(b"[%b]" % lines)
    rows: list[Any] = [{ours: record[theirs] for ours, theirs in columns.items()} for record in records]
    if labels and "label" in columns:
        numbers = {label: number for number, label in enumerate(labels)}
        for row in rows:
            row["label"] = numbers[str(row["label"])]
    return rows


def plain_columns(
    paths: Iterable[Path], sets: Sequence[Sequence[Row]], given: Mapping[str, str], labels: Sequence[str]
) -> dict[str, str] | None:
    """The `columns` by which `plain_rows` of the files at `paths` are `sets`, to the types of numbers; None where there
    are none. `given` are those by which the files were read."""
    columns = {name: given.get(name, name) for name in sets[0][0]}
    try:
        same = all(
            repr(plain_rows(path, columns, labels)) == repr([*rows]) for path, rows in zip(paths, sets, strict=True)
        )
    except UNFIT:
        return None
    return columns if same else None
