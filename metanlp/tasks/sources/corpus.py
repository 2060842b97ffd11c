"""Plain text for pretraining: documents, one at a time, however many gigabytes there are.

A document is a row of JSON lines, CSV or Parquet, by its column `text`; in a text file a paragraph, lines between blank
ones, or a line where no blank one stands between others.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from metanlp.core.errors import InputError
from metanlp.core.hub import HubName
from metanlp.forms.reading import kind
from metanlp.tasks.reading.layout import entries
from metanlp.tasks.reading.records import check_regular, decoded_lines, read_records, shown
from metanlp.tasks.sources.hub_rows import stream

TEXT, ROWS = (".txt", ".text", ".md"), (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
LOOKED_AT = 10_000  # lines of a text file among which a blank one says that it has paragraphs

Document = tuple[str, str]
"""Where it stands, `file:line`, and its text."""


def documents(sources: Sequence[str], column: str = "text") -> Iterator[Document]:
    """Every document of files, of folders (in the order of their paths) and of data sets of the Hub, never more than
    one in memory. Blank ones are passed over. Raises InputError, also where there are none."""
    found = ((where, text) for name in sources for where, text in _of(name, column) if text.strip())
    first = next(found, None)
    if first is None:
        raise InputError(f"{', '.join(sources)}: holds no text; give files, folders or a data set of the Hub with some")
    yield from chain([first], found)


def domains_in(folder: str) -> dict[str, Path]:
    """The domains of a folder, by name: each file of text or rows in it, and each folder. Raises InputError where there
    are none."""
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: is no folder; give one in which each file or folder is a domain")
    found = {
        path.name if os.path.isdir(path) else path.stem: path
        for path in entries(Path(folder))
        if os.path.isdir(path) or path.suffix.lower() in TEXT + ROWS
    }
    if not found:
        raise InputError(f"{folder}: holds no domain; put a folder or a file ({', '.join(TEXT + ROWS)}) of each there")
    return found


def local_files(sources: Sequence[str]) -> tuple[Path, ...]:
    """The files that are read, without those of the Hub. Raises InputError."""
    return tuple(chain.from_iterable(_files(Path(name)) for name in sources if os.path.lexists(name)))


def held_out(text: str, share: float) -> bool:
    """Whether a document is kept for the test: a function of its text, so that equal ones stand on one side."""
    digest = hashlib.sha256(text.strip().encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _of(name: str, column: str) -> Iterator[Document]:
    if os.path.lexists(name):
        for path in _files(Path(name)):
            yield from _paragraphs(path) if path.suffix.lower() in TEXT else _cells(read_records(path), column)
        return
    hub = HubName.parse(name)
    if hub is None:
        raise InputError(f"{name}: is no file, folder or data set of the Hub (owner/name); give one that is there")
    yield from _cells(((f"{name}: row {number}", row) for number, row in enumerate(stream(hub), start=1)), column)


def _files(path: Path) -> Iterator[Path]:
    if not os.path.isdir(path):
        if path.suffix.lower() not in TEXT + ROWS:
            raise InputError(f"{shown(path)}: is no text; give a file that ends in {', '.join(TEXT + ROWS)}")
        yield path
        return
    for each in entries(path):
        if os.path.isdir(each) or each.suffix.lower() in TEXT + ROWS:
            yield from _files(each)


def _cells(records: Iterable[tuple[str, dict[str, object]]], column: str) -> Iterator[Document]:
    for where, cells in records:
        if column not in cells:
            raise InputError(f"{where}: has no column {column!r} but {', '.join(cells)}; name it with --column")
        text = cells[column]
        if not isinstance(text, str):
            raise InputError(f"{where}: {column!r} is {kind(text)}; a document is a text")
        yield where, text


def _paragraphs(path: Path) -> Iterator[Document]:
    check_regular(path)
    with path.open("rb") as look, path.open("rb") as file:
        heads = islice(decoded_lines(look, shown(path)), LOOKED_AT)
        marks = "".join("x" if line.strip() else " " for _, line in heads)
        if " " not in marks.strip():  # blank lines at either end part nothing
            yield from decoded_lines(file, shown(path))
            return
        begin, held = "", list[str]()
        for where, line in decoded_lines(file, shown(path)):
            if not line.strip() and held:
                yield begin, " ".join(held)
                held = []
            elif line.strip():
                begin = begin if held else where
                held.append(line.strip())
        if held:
            yield begin, " ".join(held)
