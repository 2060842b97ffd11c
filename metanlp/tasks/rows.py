"""From records to rows: which column is the text, which the label, and whether both are fit to learn from."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from reprlib import repr as brief

from metanlp.errors import InputError
from metanlp.tasks.records import Record, is_plain, kind, read_records, shown

FIELDS = ("text", "text_a", "text_b", "label", "label_text")
SINGLE, PAIR = ("text",), ("text_a", "text_b")

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
    _require(first, ("label",), names)
    return [_labelled_row(record, fields, names) for record in records]


def unlabelled_rows(records: Iterable[Record], columns: Mapping[str, str] | None, source: str) -> list[dict[str, str]]:
    """Records of which only the texts count, checked. Raises InputError."""
    names = column_names(columns)
    first, records = _first(records, source)
    fields = text_fields(first, names)
    return [_texts(record, fields, names) for record in records]


def column_names(columns: Mapping[str, str] | None) -> dict[str, str]:
    """Our column names -> the file's. Naming a text column switches the other text columns off. Raises InputError."""
    columns = columns or {}
    for name in columns:
        if name not in FIELDS:
            allowed = ", ".join(FIELDS)
            raise InputError(f"columns: {name!r} is no column of ours; allowed: {allowed}{nearest(name, FIELDS)}")
    chosen = [name for name in (*SINGLE, *PAIR) if name in columns]
    unasked = [name for name in (*SINGLE, *PAIR) if chosen and name not in chosen]
    return {name: columns.get(name, name) for name in FIELDS if name not in unasked}


def text_fields(record: Record, names: Mapping[str, str]) -> tuple[str, ...]:
    """Whether rows like `record` are single texts or pairs: ("text",) or ("text_a", "text_b"). Raises InputError."""
    where, cells = record
    present = [name for name in (*SINGLE, *PAIR) if name in names and names[name] in cells]
    if "text" in present and len(present) > 1:
        raise InputError(f"{where}: has {_listed(present)}; keep `text` alone, or `text_a` with `text_b`")
    asked = [name for name in (*SINGLE, *PAIR) if name in names]
    wanted = PAIR if "text_a" in present or "text_b" in present or "text" not in asked else SINGLE
    _require(record, wanted, names)
    return wanted


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint to append to an error: the known name that looks most like `name`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _first(records: Iterable[Record], source: str) -> tuple[Record, Iterator[Record]]:
    records = iter(records)
    first = next(records, None)
    if first is None:
        raise InputError(f"{source}: has no rows; give at least two rows of different classes")
    return first, chain([first], records)


def _require(record: Record, wanted: Collection[str], names: Mapping[str, str]) -> None:
    where, cells = record
    for name in wanted:
        if name in names and names[name] in cells:
            continue
        if name == "label" and ("score" in cells or "choices" in cells):
            other = "score" if "score" in cells else "choices"
            raise InputError(f"{where}: has `{other}`, not `label`; only classification is read, leave this task out")
        theirs = names.get(name, name)
        hint = nearest(theirs, cells) or f"; name yours with columns {name}=…"
        raise InputError(f"{where}: no column {theirs!r} for our `{name}`; found {_listed(cells)}{hint}")


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(brief(name) for name in found[:12]) + (", …" if len(found) > 12 else "") or "none"


def _labelled_row(record: Record, fields: tuple[str, ...], names: Mapping[str, str]) -> LabelledRow:
    where, cells = record
    label = _label(cells.get(names["label"], MISSING), where)
    return LabelledRow(where, _texts(record, fields, names), label, _word(cells.get(names["label_text"]), where))


def _texts(record: Record, fields: tuple[str, ...], names: Mapping[str, str]) -> dict[str, str]:
    where, cells = record
    for other in SINGLE if fields == PAIR else PAIR:
        if other in names and names[other] in cells:
            raise InputError(f"{where}: has `{other}`, rows before have {_listed(fields)}; use one kind of row")
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
        return value
    if not value.strip():
        raise InputError(f"{what} blank; write a word or an integer")
    return _printable(value.strip(), what)


def _word(value: object, where: str) -> str | None:
    if value is None or value == "":
        return None
    what = f"{where}: label_text is"
    if not isinstance(value, str):
        raise InputError(f"{what} {kind(value)}; write the label in words or leave the cell out")
    return _printable(value.strip(), what) or None


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
