"""Rows that are asked for their answers, in any container."""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as brief
from typing import Any, cast

from metanlp.core.errors import InputError
from metanlp.core.types import Row
from metanlp.forms import DEFAULT, Form
from metanlp.forms.reading import encodable, require_pairs
from metanlp.tasks.reading.containers import rows_of
from metanlp.tasks.reading.rows import respelt

MEND = "give another, or leave it out"


def as_questions(form: Form, rows: Any, pairs: bool | None = None) -> list[Row]:
    """Rows without answers in any container, as a form has them. `pairs` says whether each has to be a pair of texts or
    a single one; None takes both. Raises InputError for what is not such a row, naming its place."""
    found: list[Row] = []
    for number, item in enumerate(rows_of(rows, "rows"), start=1):
        row = form.question(item)
        if row is None and isinstance(item, Mapping):  # `Text`, as examples may have it
            item = cast("Mapping[str, Any]", item)
            ours = respelt(item, {})
            row = form.question({ours.get(name, name): value for name, value in item.items()})
        if row is None:
            raise InputError(f"row {number} is {brief(item)}; give {form.asks}")
        check_readable(row, f"row {number}", form.words)
        if pairs is not None:
            require_pairs(row, pairs, f"row {number}")
        found.append(row)
    return found


def check_readable(row: Row, where: str, blank: bool) -> None:
    """Raises InputError for a text of a row that no tokenizer takes, or that is blank, unless that is allowed."""
    for value in row.values():
        for text in value if isinstance(value, list | tuple) else (value,):
            if isinstance(text, str) and not encodable(text):
                raise InputError(f"{where} has a text with half of a surrogate pair, {brief(text)}; {MEND}")
        if isinstance(value, str) and not (blank or value.strip()):
            raise InputError(f"{where} has a text with nothing to read, {brief(value)}; {MEND}")


def as_texts(rows: Any) -> list[tuple[str, ...]]:
    """One text or two of each row. Raises InputError for what is neither."""
    return [tuple(row.values()) for row in as_questions(DEFAULT, rows)]
