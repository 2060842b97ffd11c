"""From a file to records: what stands on the disk and where, before anybody asks what it means.

`datasets` takes files without labels, with NaN labels, broken characters or lines of 30 MB and says nothing,
so users' files are read here, strictly. Every error names file and line."""

from __future__ import annotations

import codecs
import csv
import json
import stat
import unicodedata
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import chain
from pathlib import Path
from reprlib import repr as brief
from typing import IO, Any, cast

from metanlp.errors import InputError

LINE_LIMIT = 1_000_000  # bytes of a line, or of one CSV row: more is no example but a damaged or hostile file
LIST_LIMIT = 32_000_000  # bytes of a file that holds one JSON list, which has to be read whole
GROUP_LIMIT = 256_000_000  # bytes of a Parquet row group, unpacked: a few kilobytes can unpack to anything

Record = tuple[str, dict[str, object]]
"""Where it stands, `file:line`, and its cells by column."""


def read_records(path: Path, ending: str | None = None) -> Iterator[Record]:
    """The records of a file, one at a time; `ending`, a key of READERS, overrules the file's own. Raises InputError."""
    check_regular(path)
    try:
        yield from READERS[ending or path.suffix.lower()](path)
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


def entries(folder: Path) -> list[Path]:
    """What stands in a folder, sorted by name; broken and circular links and unreadable folders raise InputError."""
    try:
        inside = sorted(folder.iterdir())
        for path in inside:
            path.stat()
    except OSError as error:
        broken = shown(error.filename or folder)
        raise InputError(f"{broken}: cannot be read ({error.strerror}); remove the link or mend it") from error
    return inside


def shown(path: Path | str) -> str:
    """The path as an error can print it on one line."""
    return str(path) if is_plain(str(path)) else ascii(str(path))


def is_plain(text: str) -> bool:
    """Whether `text` stands on one line as it is: no control characters, no half pairs, nothing that turns the line."""
    turning = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    return not any(char in turning or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text)


def decoded_lines(stream: IO[bytes], name: str) -> Iterator[tuple[str, str]]:
    """`name:line` and the text of each line, its ending kept; never more than one line in memory. Raises InputError."""
    number = 0
    while raw := stream.readline(LINE_LIMIT + 1):
        number += 1
        where = f"{name}:{number}"
        if len(raw) > LINE_LIMIT:
            raise InputError(f"{where}: the line is longer than {LINE_LIMIT:,} bytes; is the file damaged?")
        yield where, decoded(raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw, where)


def decoded(raw: bytes, where: str) -> str:
    """`raw` as text. Raises InputError where it is not UTF-8 or holds NUL."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{raw[error.start]:02x} at place {error.start + 1}"
        raise InputError(f"{where}: {byte} is not UTF-8; save the file as UTF-8") from None
    if "\0" in text:
        raise InputError(f"{where}: holds a NUL character; save the file as UTF-8 text")
    return text


def filled(lines: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The same lines without blank ones at the end; one with text after it raises InputError."""
    for where, line in lines:
        if line.strip():
            yield where, line
        elif any(later.strip() for _, later in lines):
            raise InputError(f"{where}: the line is blank; remove it")


def jsonl_records(lines: Iterator[tuple[str, str]]) -> Iterator[Record]:
    for where, line in filled(lines):
        yield where, as_object(parse_json(line, where), where)


def parse_json(text: str, where: str, *, whole: bool = False) -> Any:
    """The JSON value in `text`, a line, or a `whole` file whose name is `where`. Raises InputError, also for keys that
    stand twice and for bottomless nesting."""
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
    """`value`, which has to be a JSON object. Raises InputError."""
    if not isinstance(value, dict):
        raise InputError(f'{where}: is {kind(value)}; write each row as an object, {{"text": …, "label": …}}')
    return cast("dict[str, object]", value)


def kind(value: object) -> str:
    """What JSON calls a value."""
    names = {"NoneType": "null", "dict": "an object", "list": "a list", "str": "text", "bool": "true or false"}
    names |= {"int": "an integer", "float": "a decimal", "bytes": "binary data"}
    return names.get(type(value).__name__, f"a {type(value).__name__}")


def csv_records(lines: Iterator[tuple[str, str]]) -> Iterator[Record]:
    rows = csv_rows(lines)
    top, header = next(rows, ("", list[str]()))
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise InputError(f"{top}: the column {brief(min(twice))} stands twice in the header; rename one of them")
    for where, cells in rows:
        if len(cells) != len(header):
            counts = f"{len(cells)} cells where the header has {len(header)}"
            raise InputError(f"{where}: {counts}; put texts that contain commas in double quotes")
        yield where, dict(zip(header, cells, strict=True))


def csv_rows(lines: Iterator[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """The cells of each row and the line on which it starts; a quoted cell may span lines. Raises InputError."""
    for where, line in filled(lines):
        # A reader a row: it takes only the lines that belong to the row, so the place stays exact and memory bounded.
        rest = _within(LINE_LIMIT, (text for _, text in lines), where)
        try:
            cells = next(csv.reader(chain([line], rest), strict=True))
        except csv.Error as error:
            raise InputError(f"{where}: {_fault(error)}") from None
        yield where, cells


def _fault(error: csv.Error) -> str:
    """What is wrong with a row. The limit of a cell is one for the whole process, so it is not changed here."""
    if "field limit" not in str(error):
        return f"is not valid CSV ({error}); is a double quote left open?"
    most = f"{csv.field_size_limit():,} characters"
    return (
        f"a cell is longer than {most}; is a double quote left open? If not, shorten it, or write JSON lines (.jsonl)"
    )


def _within(limit: int, lines: Iterator[str], where: str) -> Iterator[str]:
    for line in lines:
        limit -= len(line)
        if limit < 0:
            raise InputError(f"{where}: the row is longer than {LINE_LIMIT:,} characters; is a double quote left open?")
        yield line


def text_records(lines: Iterator[tuple[str, str]]) -> Iterator[Record]:
    """One text a line, as the column `text`."""
    for where, line in filled(lines):
        text = line.rstrip("\r\n")
        if "\r" in text:
            raise InputError(f"{where}: holds a carriage return inside the line; end each line with a line feed")
        yield where, {"text": text}


def list_records(path: Path) -> Iterator[Record]:
    """One JSON list of objects, or JSON lines under the ending .json."""
    with path.open("rb") as stream:
        start = stream.read(64).removeprefix(codecs.BOM_UTF8).lstrip()
    if not start.startswith(b"["):
        yield from _by_line(jsonl_records)(path)
        return
    if path.stat().st_size > LIST_LIMIT:
        raise InputError(f"{shown(path)}: a JSON list may have {LIST_LIMIT:,} bytes; write JSON lines (.jsonl) instead")
    text = decoded(path.read_bytes().removeprefix(codecs.BOM_UTF8), shown(path))
    for number, value in enumerate(parse_json(text, shown(path), whole=True), start=1):
        where = f"{shown(path)}: item {number}"
        yield where, as_object(value, where)


def parquet_records(path: Path) -> Iterator[Record]:
    # Loaded where it is used: most runs never see a parquet file.
    arrow: Any = import_module("pyarrow")
    parquet: Any = import_module("pyarrow.parquet")
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            _check_parquet(file, path)
            for batch in file.iter_batches(batch_size=256):
                for cells in batch.to_pylist():
                    number += 1
                    yield f"{shown(path)}: row {number}", cells
    except InputError:
        raise
    except (arrow.ArrowException, ValueError, OSError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise InputError(f"{shown(path)}: is damaged after row {number} ({reason}); write the file again") from error


def _check_parquet(file: Any, path: Path) -> None:
    names: list[str] = file.schema_arrow.names
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{shown(path)}: the column {brief(twice[0])} stands twice; rename one of them")
    largest = max((file.metadata.row_group(n).total_byte_size for n in range(file.num_row_groups)), default=0)
    if largest > GROUP_LIMIT:
        raise InputError(
            f"{shown(path)}: a row group of {largest:,} bytes is more than {GROUP_LIMIT:,}; write smaller row groups"
        )


def _by_line(parse: Callable[[Iterator[tuple[str, str]]], Iterator[Record]]) -> Callable[[Path], Iterator[Record]]:
    def read(path: Path) -> Iterator[Record]:
        with path.open("rb") as stream:
            yield from parse(decoded_lines(stream, shown(path)))

    return read


BY_LINE: dict[str, Callable[[Iterator[tuple[str, str]]], Iterator[Record]]] = {
    ".jsonl": jsonl_records,
    ".csv": csv_records,
    ".txt": text_records,
}
READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    **{ending: _by_line(parse) for ending, parse in BY_LINE.items()},
    ".parquet": parquet_records,
    ".json": list_records,
}
