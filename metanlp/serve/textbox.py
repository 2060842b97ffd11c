"""Reads examples and texts from the text boxes of the page, and writes examples back."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from metanlp.core.errors import InputError
from metanlp.core.types import Row, Task
from metanlp.forms import DEFAULT, FORMS, Form
from metanlp.forms.reading import PAIR, SINGLE, TEXTS
from metanlp.tasks.reading.build import build_task
from metanlp.tasks.reading.columns import all_columns, column_names, in_file, tell_columns
from metanlp.tasks.reading.records import BY_LINE, Record, decoded_lines, mark_of
from metanlp.tasks.reading.rows import as_typed, labelled_rows, spelled, under_our_names, unlabelled_rows

BAR = "|"  # between a text and its label, as a tab is
MOST_BYTES, MOST_ROWS = 1_000_000, 1_000  # limits of a box; the commands take larger files

Columns = Mapping[str, str] | None
"""Our column names -> the user's."""


def examples(box: str, columns: Columns = None) -> Task:
    """Reads labelled examples: lines `text | label` or `text | text | label`, with bars or tabs; CSV with a header;
    JSON lines of any form. Raises InputError, naming the line."""
    return _task(_records(box, columns))


def dropped(path: Path, columns: Columns = None) -> str:
    """Checks a CSV or JSONL file of examples and returns it as text for the box. Raises InputError."""
    ending = path.suffix.lower()
    if ending not in (".csv", ".jsonl"):
        raise InputError(f"{path.name}: files ending in {ending!r} are not read here; drop a .csv or .jsonl file")
    _small(path.stat().st_size, path.name)
    with path.open("rb") as stream:
        found = _read(decoded_lines(stream, path.name), ending, columns)
    _task(found)
    return written([{name: cells[name] for name in all_columns() if name in cells} for _, cells in found])


def texts(box: str, form: Form, pairs: bool, columns: Columns = None) -> list[Row]:
    """Reads unlabelled rows for a model of a form, of pairs or single texts: a text a line, `text | text` for pairs, or
    JSON lines. Raises InputError."""
    if not box.strip():
        raise InputError("there is no text yet; write one a line")
    if _is_json(box):
        found = _read(_lines(box, "texts"), ".jsonl", columns)
    else:
        found = list(_paired(box)) if pairs else _few(BY_LINE[".txt"](_lines(box, "texts")))
    return [row for row, _ in unlabelled_rows(found, None, "texts", None, form.name)]


def dropped_texts(path: Path, form: Form = DEFAULT, columns: Columns = None) -> str:
    """Checks a file of unlabelled rows (lines, CSV or JSONL) and returns it as text for the box. Raises InputError."""
    ending = path.suffix.lower()
    if ending not in (".txt", ".csv", ".jsonl"):
        raise InputError(f"{path.name}: files ending in {ending!r} are not read here; drop a .txt, .csv or .jsonl file")
    _small(path.stat().st_size, path.name)
    with path.open("rb") as stream:
        lines = decoded_lines(stream, path.name)
        found = _few(BY_LINE[ending](lines)) if ending == ".txt" else _read(lines, ending, columns)
    rows = [row for row, _ in unlabelled_rows(found, None, path.name, None, form.name)]
    lines = [_text_line(row) for row in rows]
    return _boxed(rows, lines)


def corrected(box: str, row: Row, label: str, columns: Columns = None) -> str:
    """The box with `row` labelled so: its label changed where it stands there, else added. Raises InputError."""
    task = examples(box, columns)
    form = FORMS[task.form]
    if not form.single_label:
        raise InputError(f"answers of the form {task.form!r} are corrected among the examples, not here")
    if not label.strip():
        raise InputError("there is no label yet; choose one, or write a new one")
    rows = [{**each, "label": task.labels[each["label"]]} for each in task.pools["train"]]
    fresh = {**row, "label": label.strip()}
    kept = [fresh if form.key(each) == form.key(row) else each for each in rows]
    return written(kept if fresh in kept else [*kept, fresh])


def written(rows: Sequence[Row]) -> str:
    """Rows as text for the box: lines with bars if these can represent all rows, else JSON lines."""
    return _boxed(rows, [_line(row) for row in rows])


def shown(parts: Iterable[object]) -> str:
    """The parts of a row on one line."""
    return f" {BAR} ".join(" ".join(str(part).split()) for part in parts)


def _boxed(rows: Sequence[Row], lines: Sequence[str | None]) -> str:
    if None in lines:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    return "".join(f"{line}\n" for line in lines)


def _text_line(row: Row) -> str | None:
    """A row without an answer as a line of the box; None where it can't be one."""
    parts = [str(part) for part in row.values()]
    marks = "\t\n\r" if len(parts) == 1 else f"{BAR}\t\n\r"
    plain = {*row} <= {*TEXTS} and not any(mark in part for part in parts for mark in marks)
    return f" {BAR} ".join(parts) if plain and not _is_json(parts[0]) else None


def _line(row: Row) -> str | None:
    parts = [str(row[name]) for name in (*TEXTS, "label") if name in row]
    line = f" {BAR} ".join(parts)
    plain = all(part and part.strip() == part and not any(mark in part for mark in f"{BAR}\t\n\r") for part in parts)
    return line if plain and "label" in row and {*row} <= {*TEXTS, "label"} and not _is_json(line) else None


def _task(records: Sequence[Record]) -> Task:
    return build_task("examples", {"train": labelled_rows(records, None, "examples")}, source="page")


def _records(box: str, columns: Columns) -> list[Record]:
    line = box.lstrip().partition("\n")[0]
    header = {cell.strip().strip('"').casefold() for cell in line.split(mark_of(line))}
    named = column_names(in_file(columns, header, "examples"))
    answers = {named[answer].casefold() for answer in tell_columns()}
    if _is_json(box):
        return _read(_lines(box, "examples"), ".jsonl", columns)
    if header & answers and len(header) > 1:
        return _read(_lines(box, "examples"), ".csv", columns)
    return _few(as_typed(_barred(box), column_names(None)))


def _read(lines: Iterator[tuple[str, str]], ending: str, columns: Columns) -> list[Record]:
    """Records with our column names; numeric columns of a CSV are converted."""
    records = _few(BY_LINE[ending](lines))
    columns = in_file(columns, records[0][1], records[0][0]) if records else {}
    found = under_our_names(spelled(iter(records), columns), columns)
    return _few(as_typed(found, column_names(None)) if ending == ".csv" else found)


def _barred(box: str) -> Iterator[Record]:
    for where, parts in _parts(box, "examples"):
        fields = {2: (*SINGLE, "label"), 3: (*PAIR, "label")}.get(len(parts))
        if fields is None:
            came = "no label" if len(parts) == 1 else f"{len(parts)} parts"
            raise InputError(f"{where}: the line has {came}; write text {BAR} label, or text {BAR} text {BAR} label")
        yield where, dict(zip(fields, parts, strict=True))


def _paired(box: str) -> Iterator[Record]:
    for where, parts in _parts(box, "texts"):
        if len(parts) != 2:
            raise InputError(f"{where}: the examples are pairs of texts; write text {BAR} text")
        yield where, dict(zip(PAIR, parts, strict=True))


def _parts(box: str, name: str) -> Iterator[tuple[str, list[str]]]:
    """Splits each line at bars or tabs."""
    for where, cells in _few(BY_LINE[".txt"](_lines(box, name))):
        yield where, [part.strip() for part in str(cells["text"]).replace("\t", BAR).split(BAR)]


def _lines(box: str, name: str) -> Iterator[tuple[str, str]]:
    raw = box.encode("utf-8", "surrogatepass")
    _small(len(raw), name)
    return decoded_lines(io.BytesIO(raw), name)


def _small(size: int, name: str) -> None:
    if size > MOST_BYTES:
        most = f"{size / 1e6:.1f} MB are more than the {MOST_BYTES / 1e6:g} MB that this page takes"
        raise InputError(f"{name}: {most}; use the commands `metanlp adapt` and `metanlp predict`")


def _few(records: Iterable[Record]) -> list[Record]:
    found = list(records)
    if len(found) > MOST_ROWS:
        most = f"{len(found):,} rows are more than the {MOST_ROWS:,} that this page takes"
        raise InputError(f"{most}; use the commands `metanlp adapt` and `metanlp predict`")
    return found


def _is_json(box: str) -> bool:
    return box.lstrip().startswith("{")
