"""From records to rows: whether text and label are fit to learn from."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from reprlib import repr as brief

from metanlp.errors import InputError
from metanlp.tasks.columns import PAIR, SINGLE, column_names, listed, nearest, require, text_fields
from metanlp.tasks.records import Record, is_plain, kind, read_records, shown

# What other programs write where there is no label. "none" is not among them: it is the name of many a class.
NO_LABEL = ("NA", "<NA>", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null")

INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
DECIMAL = re.compile(r"[+-]?[0-9]*\.[0-9]+([eE][+-]?[0-9]+)?|[0-9]+\.")


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One example as it stands in a file, checked."""

    where: str  # file:line, for errors that show up later
    texts: dict[str, str]  # `text`, or `text_a` and `text_b`
    label: str | int  # as written
    word: str | None  # the label in words, where the file has a column for it


def read_rows(path: str | Path, columns: Mapping[str, str] | None = None) -> list[LabelledRow]:
    """The labelled rows of a file. `columns` maps our names to the file's: {"text": "sentence"}. Raises InputError."""
    path = Path(path)
    records = read_records(path)
    if path.suffix.lower() == ".csv":
        records = _with_integers(records, (columns or {}).get("label", "label"))
    return labelled_rows(records, columns, shown(path))


def labelled_rows(records: Iterable[Record], columns: Mapping[str, str] | None, source: str) -> list[LabelledRow]:
    """Records with a label, checked: the columns by the first, the rest against it. Raises InputError."""
    names = column_names(columns)
    first, records = _first(records, source)
    fields = text_fields(first, names)
    named = columns is not None and "label_text" in columns  # else that column may be missing
    require(first, ("label", "label_text") if named else ("label",), names)
    return [_labelled_row(record, fields, names) for record in records]


def unlabelled_rows(
    records: Iterable[Record], columns: Mapping[str, str] | None, source: str, known: Collection[str] | None = None
) -> list[dict[str, str]]:
    """Records of which only the texts count, checked. A label that stands beside them has to be one of `known`, where
    that is given. Raises InputError."""
    names = column_names(columns)
    first, records = _first(records, source)
    fields = text_fields(first, names)
    rows: list[dict[str, str]] = []
    for record in records:
        rows.append(_texts(record, fields, names))
        if known is not None:
            _seen(record, names, known)
    return rows


def _first(records: Iterable[Record], source: str) -> tuple[Record, Iterator[Record]]:
    records = iter(records)
    first = next(records, None)
    if first is None:
        raise InputError(f"{source}: has no rows; give at least two rows of different classes")
    return first, chain([first], records)


def _seen(record: Record, names: Mapping[str, str], known: Collection[str]) -> None:
    """Raises InputError for a label that the model cannot give: the texts are then another task's."""
    where, cells = record
    written = [cells.get(names[name]) for name in ("label_text", "label")]
    given = [str(value).strip() for value in written if value is not None]
    # -1 is how published test sets say that the label is kept secret.
    given = [word for word in given if word not in ("", "-1", *NO_LABEL)]
    if given and not any(word in known for word in given):
        raise InputError(
            f"{where}: the label {brief(given[0])} was never seen by this model, which knows {listed(known)}; "
            f"mend it, or remove the column{nearest(given[0], known)}"
        )


def _labelled_row(record: Record, fields: tuple[str, ...], names: Mapping[str, str]) -> LabelledRow:
    where, cells = record
    label = _label(cells.get(names["label"], MISSING), where)
    return LabelledRow(where, _texts(record, fields, names), label, _word(cells.get(names["label_text"]), where))


def _texts(record: Record, fields: tuple[str, ...], names: Mapping[str, str]) -> dict[str, str]:
    where, cells = record
    for other in SINGLE if fields == PAIR else PAIR:
        if other in names and names[other] in cells:
            raise InputError(f"{where}: has `{other}`, rows before have {listed(fields)}; use one kind of row")
    return {name: _text(cells.get(names[name], MISSING), f"{where}: {names[name]!r}") for name in fields}


MISSING = object()


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        came = "missing" if value is MISSING else kind(value)
        raise InputError(f"{what} is {came}; every row needs a text there")
    if not value.strip():
        raise InputError(f"{what} is {'blank' if value else 'empty'}; every row needs a text there")
    if "\0" in value:
        raise InputError(f"{what} holds a NUL character; remove it")
    if not _encodable(value):
        raise InputError(f"{what} holds half of a surrogate pair; write the character whole or remove it")
    return value


def _label(value: object, where: str) -> str | int:
    what = f"{where}: the label is"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        came = "missing" if value is MISSING else kind(value)
        raise InputError(f"{what} {came}; write a word or an integer")
    if isinstance(value, float):
        came = "NaN" if math.isnan(value) else f"the decimal {value}"
        raise InputError(f"{what} {came}; write a word or an integer")
    if isinstance(value, int):
        if abs(value) >= 10**18:
            raise InputError(f"{what} an integer of more than 18 digits; write a word or a smaller one")
        return value
    word = _printable(value.strip(), what)
    if not word:
        raise InputError(f"{what} blank; write a word or an integer")
    return _said(word, what)


def _word(value: object, where: str) -> str | None:
    if value is None or value == "":
        return None
    what = f"{where}: label_text is"
    if not isinstance(value, str):
        raise InputError(f"{what} {kind(value)}; write the label in words or leave the cell out")
    return _said(_printable(value.strip(), what), what) or None


def _said(word: str, what: str) -> str:
    if word in NO_LABEL:
        raise InputError(f"{what} {word!r}, which says that there is none; write one, or give the class another name")
    return word


def _printable(value: str, what: str) -> str:
    if not is_plain(value) or len(value) > 200:
        raise InputError(f"{what} {brief(value)}; a label is at most 200 printable characters on one line")
    return value


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _with_integers(records: Iterator[Record], column: str) -> Iterator[Record]:
    """CSV has only text: a label that spells an integer becomes one, one that spells a decimal is refused later."""
    for where, cells in records:
        cell = str(cells.get(column, "")).strip()
        if INTEGER.fullmatch(cell):
            cells = {**cells, column: int(cell)}
        elif DECIMAL.fullmatch(cell):
            cells = {**cells, column: float(cell)}
        yield where, cells
