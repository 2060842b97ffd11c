"""What an adapted model says of rows: as a table in a file or on standard output, and as pandas objects."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from itertools import chain
from typing import Any


def as_table(records: Sequence[Mapping[str, Any]], kind: str) -> str:
    """Each record as a row of JSONL or CSV, where lists stand in JSON; a column that one has is there for all. What
    JSON does not know, as a date of Parquet, is text."""
    if kind == "jsonl":
        return "".join(in_json(record) + "\n" for record in records)
    stream = io.StringIO()
    flat = [{k: in_json(v) if isinstance(v, list | tuple | dict) else v for k, v in each.items()} for each in records]
    # Python 3.11 leaves a lone carriage return without quotes, and a reader takes it for the end of the row.
    returns = any(isinstance(value, str) and "\r" in value for each in flat for value in each.values())
    quoting = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    names = list(dict.fromkeys(chain.from_iterable(flat)))
    writer = csv.DictWriter(stream, names, lineterminator="\n", quoting=quoting)
    writer.writeheader()
    writer.writerows(flat)
    return stream.getvalue()


def in_json(value: Any) -> str:
    """JSON as its readers know it: numbers that are not finite, which it has no word for, are null."""
    write = partial(json.dumps, ensure_ascii=False, default=str, allow_nan=False)
    try:
        return write(value)
    except ValueError:
        return write(_finite(value))


def _finite(value: Any) -> Any:
    """The same with None for numbers that are not finite, however deep they lie."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return {key: _finite(part) for key, part in value.items()} if isinstance(value, Mapping) else value


def as_column(answers: list[Any], rows: Any, name: str) -> Any:
    """The answers to the rows of a pandas object as a Series with its index, those to others as they are."""
    if not hasattr(rows, "iloc"):
        return answers
    pandas: Any = import_module("pandas")
    return pandas.Series(answers, index=rows.index, name=name, dtype=None if answers else object)


def framed(answers: Sequence[Mapping[str, Any]], rows: Any) -> Any:
    """A frame with a row an answer, and the index of the rows where these are a pandas object."""
    pandas: Any = import_module("pandas")
    return pandas.DataFrame(answers, index=rows.index if hasattr(rows, "iloc") else None)


def rounded(value: Any) -> Any:
    """Numbers to four places, however deep they lie."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return {key: rounded(part) for key, part in value.items()} if isinstance(value, dict) else value
