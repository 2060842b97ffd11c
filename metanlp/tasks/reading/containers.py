"""Examples as Python programs hold them (lists, generators, arrays, columns, tables, mappings) as a list of rows.

Rows stand by place: the index of a pandas object plays no part. No container's library is imported; what a container
is, is read off its methods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from reprlib import repr as brief
from typing import Any

import numpy as np

from metanlp.core.errors import InputError
from metanlp.forms import DEFAULT, Form
from metanlp.tasks.reading.records import check_distinct

UNORDERED = (set, frozenset, bytes, bytearray, memoryview)  # or numbers where a text was meant
NO_VALUE = ("NAType", "NaTType")  # of pandas


def rows_of(given: Any, what: str) -> list[Any]:
    """The rows of a container, in its order, made of plain Python values. A text or one row alone is one row; a table
    with named columns, or a mapping of columns, gives a mapping a row. Raises InputError, which calls the container
    `what`, for one without an order and for what is none."""
    if isinstance(given, str):
        return [str(given)]
    if isinstance(given, Mapping):
        return [plain(given)] if _is_row(given) else _of_columns(given, what)
    if hasattr(given, "columns") and hasattr(given, "iloc"):
        columns = [plain(given.iloc[:, place].tolist()) for place in range(len(given.columns))]
        return _joined(list(given.columns), columns, what)
    for method in ("to_pylist", "to_dicts", "tolist"):  # of arrow, of polars, of arrays and columns
        if hasattr(given, method):
            check_distinct(getattr(given, "column_names", ()), what)
            given = getattr(given, method)()
            break
    else:
        given = np.asarray(given).tolist() if hasattr(given, "__array__") else given
    if isinstance(given, (str, *UNORDERED)) or not isinstance(given, Iterable):
        raise InputError(f"{what} is {brief(given)}; give a list, an array, a column or a table of rows, in order")
    return [plain(item) for item in given]


def labelled_rows_of(examples: Any, labels: Any = None, form: Form = DEFAULT) -> Iterator[Mapping[str, Any]]:
    """Labelled examples in any container as one mapping a row; `labels`, where given, stand beside them. The parts of a
    tuple are what they are in `form`. Raises InputError for an example that is neither a row nor texts, and for labels
    that have no order."""
    if isinstance(labels, str | Mapping):
        raise InputError(f"labels is {brief(labels)}; give a list, an array or a column with one label for each text")
    items = rows_of(examples, "examples")
    beside: list[dict[str, Any]]
    answer = form.tuples[min(form.tuples)][-1]
    beside = [{}] * len(items) if labels is None else [{answer: label} for label in rows_of(labels, "labels")]
    if len(beside) != len(items):
        raise InputError(f"{len(items)} texts came with {len(beside)} labels; give one label for each text")
    names = form.tuples if labels is None else {count - 1: names[:-1] for count, names in form.tuples.items()}
    known = ", ".join(f"({', '.join(parts)})" for parts in form.tuples.values())
    for number, (item, label) in enumerate(zip(items, beside, strict=True), start=1):
        cells = (item,) if isinstance(item, str) else item
        if isinstance(cells, Mapping):
            yield {**cells, **label}
        elif isinstance(cells, Sequence) and len(cells) in names:
            yield dict(zip(names[len(cells)], cells, strict=True)) | label
        else:
            raise InputError(
                f"example {number} is {brief(item)}; give {known}, a row with names, or texts with `labels` beside them"
            )


def plain(value: Any) -> Any:
    """A value without the types of numpy, pandas and the like: texts, numbers, lists, tuples and mappings of Python,
    None for a missing value of pandas."""
    if type(value) in (str, int, float, bool, type(None)):
        return value
    if isinstance(value, str):
        return str(value)
    if hasattr(value, "_asdict"):  # a named tuple
        return plain(value._asdict())
    if isinstance(value, Mapping) or (hasattr(value, "to_dict") and hasattr(value, "index")):
        cells: Mapping[Any, Any] = value if isinstance(value, Mapping) else value.to_dict()
        return {str(name): plain(cell) for name, cell in cells.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(part) for part in value)
    if hasattr(value, "tolist"):
        found = value.tolist()
        return found if type(found) is type(value) else plain(found)
    return None if type(value).__name__ in NO_VALUE else value


def _is_row(given: Mapping[Any, Any]) -> bool:
    """Whether a mapping is one row: something in it is no column, or its `tokens` are the words of one text."""
    scalar = any(isinstance(value, str) or not isinstance(value, Iterable) for value in given.values())
    words = plain(given.get("tokens"))
    return scalar or (isinstance(words, list | tuple) and all(isinstance(word, str) for word in words))


def _of_columns(given: Mapping[Any, Any], what: str) -> list[Any]:
    """The rows of a mapping from names to columns. Raises InputError for one of tables."""
    for name, column in given.items():
        if isinstance(column, Mapping) or hasattr(column, "column_names") or hasattr(column, "columns"):
            raise InputError(f"{what}: {name!r} is a {type(column).__name__} of its own; give one table, or its rows")
    columns = [rows_of(column, f"{what}: {str(name)!r}") for name, column in given.items()]
    return _joined([*map(str, given)], columns, what)


def _joined(names: Sequence[Any], columns: Sequence[list[Any]], what: str) -> list[Any]:
    """The rows of columns: mappings where any of them has a word as its name, else tuples. Raises InputError."""
    if parted := [name for name in names if isinstance(name, tuple)]:
        raise InputError(f"{what}: a column is called {brief(parted[0])}; give each column one word as its name")
    named = any(isinstance(name, str) for name in names)
    names = [*map(str, names)] if named else names
    check_distinct(names, what)
    lengths = dict(zip(names, map(len, columns), strict=True))
    if len({*lengths.values()}) > 1:
        raise InputError(f"{what}: its columns have {brief(lengths)} rows; give each as many")
    rows = list(zip(*columns, strict=True))
    return [dict(zip(names, row, strict=True)) for row in rows] if named else rows
