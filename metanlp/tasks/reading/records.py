"""Reads files as records: the cells of each row by the name of their column, and the place of the row.

`datasets` and pandas accept files with missing labels, broken characters or lines of 30 MB without a word, so users'
files are parsed here, strictly. Every error names file and line."""

from __future__ import annotations

import codecs
import csv
import json
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from itertools import chain, count
from pathlib import Path
from reprlib import repr as brief
from typing import IO, Any, cast

from metanlp.core.errors import InputError
from metanlp.forms.reading import is_plain, kind
from metanlp.tasks.reading.spreadsheet import first_sheet

LINE_LIMIT = 1_000_000  # bytes of a line, or of one CSV row: more is no example but a damaged or hostile file
LIST_LIMIT = 32_000_000  # bytes of a file that holds one JSON list, which has to be read whole
GROUP_LIMIT = 256_000_000  # bytes of a Parquet row group, unpacked: a few kilobytes can unpack to anything
OF_TEXT = (".csv", ".tsv", ".xlsx")  # files whose cells are all text, also those that spell a number
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}  # the first where a header has none
HINT = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # a line by which Excel is told the delimiter

Record = tuple[str, dict[str, object]]
"""Where it stands, `file:line`, and its cells by column."""

Line = tuple[str, str]
"""Where it stands, and its text with the end of the line."""


def read_records(path: Path, ending: str | None = None) -> Iterator[Record]:
    """The records of a file, one at a time. `ending`, one of READERS, overrules the file's own. Raises InputError."""
    check_regular(path)
    ending = ending or path.suffix.lower()
    if ending not in READERS:
        fault = f"its name ends in {ending!r}" if ending else "its name has no ending"
        raise InputError(f"{shown(path)}: is not read, as {fault}; give {', '.join(READERS)}")
    try:
        if ending in WHOLE:
            yield from WHOLE[ending](path)
        else:
            with path.open("rb") as stream:
                yield from BY_LINE[ending](decoded_lines(stream, shown(path)))
    except OSError as error:
        raise InputError(f"{shown(path)}: cannot be read ({error.strerror or error}); check the file") from error


def check_regular(path: Path) -> None:
    """Raises InputError unless `path` is a plain file: opening a pipe would wait for ever."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{shown(path)}: cannot be read ({reason}); give a file or folder that exists") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{shown(path)}: is a folder where a file is wanted; give one of its files")
    if not stat.S_ISREG(mode):
        raise InputError(f"{shown(path)}: is a pipe or device, not a plain file; save its content to a file first")


def shown(path: Path | str) -> str:
    """The path as an error prints it: escaped where it would not stand on one line."""
    return str(path) if is_plain(str(path)) else ascii(str(path))


def decoded_lines(stream: IO[bytes], name: str) -> Iterator[Line]:
    """The lines of a stream called `name`; there is never more than one in memory. Raises InputError."""
    for number in count(1):
        raw, where = stream.readline(LINE_LIMIT + 1), f"{name}:{number}"
        if not raw:
            return
        if len(raw) > LINE_LIMIT:
            raise InputError(f"{where}: the line is longer than {LINE_LIMIT:,} bytes; is the file damaged?")
        # Not the first line alone has a byte order mark: files that were joined keep each its own.
        yield where, decoded(raw.removeprefix(codecs.BOM_UTF8), where)


def decoded(raw: bytes, where: str) -> str:
    """Decodes UTF-8. Raises InputError for other bytes, and for NUL."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{raw[error.start]:02x} at place {error.start + 1}"
        raise InputError(f"{where}: {byte} is not UTF-8; save the file as UTF-8") from None
    if "\0" in text:
        raise InputError(f"{where}: holds a NUL character; save the file as UTF-8 text")
    return text


def filled(lines: Iterator[Line]) -> Iterator[Line]:
    """The lines without blank ones at the end. Raises InputError for a blank line before others."""
    for where, line in lines:
        if line.strip():
            yield where, line
        elif any(later.strip() for _, later in lines):
            raise InputError(f"{where}: the line is blank; remove it")


def jsonl_records(lines: Iterator[Line]) -> Iterator[Record]:
    for where, line in filled(lines):
        yield where, as_object(parse_json(line, where), where)


def parse_json(text: str, where: str, *, whole: bool = False) -> Any:
    """Parses one line of JSON, or a `whole` file whose name is `where`. Raises InputError, also for an object with two
    equal keys, and for values that are nested too deeply for the parser."""
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        where, place = (f"{where}:{error.lineno}", error.colno) if whole else (where, error.pos + 1)
        raise InputError(f"{where}: is not valid JSON ({error.msg} at place {place}); mend it") from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{where}: is not acceptable JSON ({reason}); mend it") from None


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    cells = dict(pairs)
    if len(cells) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {brief(twice)} stands twice in one object")
    return cells


DECODER = json.JSONDecoder(object_pairs_hook=_distinct)


def as_object(value: object, where: str) -> dict[str, object]:
    """Returns `value` where it is a JSON object. Raises InputError for anything else."""
    if not isinstance(value, dict):
        raise InputError(f'{where}: is {kind(value)}; write each row as an object, {{"text": …, "label": …}}')
    return cast("dict[str, object]", value)


def csv_records(lines: Iterator[Line], delimiter: str | None = None) -> Iterator[Record]:
    """Rows under a header, separated as it is where no `delimiter` is given. Raises InputError, also where the header
    is repeated further down."""
    head = next(lines, ("", ""))
    if hint := HINT.fullmatch(head[1]):
        delimiter, head = hinted(hint[1], head[0]), next(lines, ("", ""))
    delimiter, lines = delimiter or mark_of(head[1]), chain([head] if head[0] else [], lines)
    rows = csv_rows(lines, delimiter)
    top, header = next(rows, ("", list[str]()))
    check_distinct(header, top)
    for where, cells in rows:
        if len(cells) != len(header):
            counts = f"{len(cells)} cells where the header has {len(header)}"
            raise InputError(f"{where}: {counts}; put texts that contain {DELIMITERS[delimiter]} in double quotes")
        if sorted(cells) == sorted(header):
            raise InputError(f"{where}: the header stands here again; were two files joined? Remove this line")
        yield where, dict(zip(header, cells, strict=True))


def hinted(mark: str, where: str) -> str:
    """What Excel's first line, `sep=;`, says of the lines below. Raises InputError for a mark that is not read."""
    if mark not in DELIMITERS:
        raise InputError(f"{where}: cells are separated by {mark!r}; use {', '.join(DELIMITERS.values())}")
    return mark


def mark_of(header: str) -> str:
    """That which cuts a header into the most names, for programs of many countries write semicolons; commas where it is
    no valid header, which is then refused."""
    try:
        return max(DELIMITERS, key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))
    except csv.Error:
        return ","


def csv_rows(lines: Iterator[Line], delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """The cells of each row and the line on which it starts; a quoted cell may span lines. Raises InputError."""
    for where, line in filled(lines):
        # A reader a row: it takes only the lines that belong to the row, so the place stays exact and memory bounded.
        rest = _within(LINE_LIMIT, (text for _, text in lines), where)
        try:
            spaced = f'{delimiter} "' in line  # some programs write a space in front of a cell in quotes
            cells = csv.reader(chain([line], rest), delimiter=delimiter, strict=True, skipinitialspace=spaced)
            yield where, next(cells)
        except csv.Error as error:
            fault, most = f"is not valid CSV ({error}); is a double quote left open?", csv.field_size_limit()
            if "field limit" in str(error):  # which is one for the whole process, so it is not changed here
                fault = f"a cell is longer than {most:,} characters; is a double quote left open? If not, shorten it"
                fault += ", or write JSON lines (.jsonl)"
            raise InputError(f"{where}: {fault}") from None


def _within(limit: int, lines: Iterator[str], where: str) -> Iterator[str]:
    """The lines, as long as they have fewer than `limit` characters together. Raises InputError."""
    for line in lines:
        limit -= len(line)
        if limit < 0:
            raise InputError(f"{where}: the row is longer than {LINE_LIMIT:,} characters; is a double quote left open?")
        yield line


def text_records(lines: Iterator[Line]) -> Iterator[Record]:
    """One text a line, as the column `text`."""
    for where, line in filled(lines):
        text = line.rstrip("\r\n")
        if "\r" in text:
            raise InputError(f"{where}: holds a carriage return inside the line; end each line with a line feed")
        yield where, {"text": text}


def list_records(path: Path) -> Iterator[Record]:
    """The objects of one JSON list; of a file that holds no list, its JSON lines."""
    with path.open("rb") as stream:
        start = stream.read(64).removeprefix(codecs.BOM_UTF8).lstrip()
    if not start.startswith(b"["):
        yield from read_records(path, ".jsonl")
        return
    if path.stat().st_size > LIST_LIMIT:
        raise InputError(f"{shown(path)}: a JSON list may have {LIST_LIMIT:,} bytes; write JSON lines (.jsonl) instead")
    text = decoded(path.read_bytes().removeprefix(codecs.BOM_UTF8), shown(path))
    for number, value in enumerate(parse_json(text, shown(path), whole=True), start=1):
        where = f"{shown(path)}: item {number}"
        yield where, as_object(value, where)


def parquet_records(path: Path) -> Iterator[Record]:
    """The rows of a Parquet file, of which never more than a row group is in memory."""
    # Loaded where it is used: most runs never see a parquet file.
    arrow: Any = import_module("pyarrow")
    parquet: Any = import_module("pyarrow.parquet")
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            check_distinct(file.schema_arrow.names, shown(path))
            for group in range(file.num_row_groups):
                if (size := file.metadata.row_group(group).total_byte_size) > GROUP_LIMIT:
                    most = f"is more than {GROUP_LIMIT:,}; write smaller row groups"
                    raise InputError(f"{shown(path)}: a row group of {size:,} bytes {most}")
            rows = (cells for batch in file.iter_batches(batch_size=256) for cells in batch.to_pylist())
            for number, cells in enumerate(rows, start=1):
                yield f"{shown(path)}: row {number}", cells
    except InputError:
        raise
    except (arrow.ArrowException, ValueError, OSError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise InputError(f"{shown(path)}: is damaged after row {number} ({reason}); write the file again") from error


def sheet_records(path: Path) -> Iterator[Record]:
    """Rows of the first sheet of a workbook, under its first row. Raises InputError."""
    name, (top, *rows) = shown(path), first_sheet(path, shown(path)) or [(1, list[str]())]
    header = [cell.strip() for cell in top[1]]
    named = max((place for place, cell in enumerate(header, start=1) if cell), default=0)
    check_distinct(header[:named], f"{name}:{top[0]}")
    for number, cells in rows:
        where, beyond = f"{name}:{number}", [place for place, cell in enumerate(cells, start=1) if cell]
        if unnamed := [place for place in beyond if place > named or not header[place - 1]]:
            raise InputError(f"{where}: column {unnamed[0]} has no name in the first row; give it one, or clear it")
        row = dict(zip(header, [*cells, *[""] * named], strict=False))
        yield where, {column: row[column] for column in header[:named] if column}


def check_distinct(names: Sequence[Any], what: str) -> None:
    """Raises InputError where two columns of `what` have one name."""
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise InputError(f"{what}: the column {brief(twice[0])} stands twice; rename one of them")


BY_LINE: dict[str, Callable[[Iterator[Line]], Iterator[Record]]] = {
    ".jsonl": jsonl_records,
    ".ndjson": jsonl_records,
    ".csv": csv_records,
    ".tsv": partial(csv_records, delimiter="\t"),
    ".txt": text_records,
}
WHOLE = {".parquet": parquet_records, ".xlsx": sheet_records, ".json": list_records}
READERS = (*BY_LINE, *WHOLE)
