"""A list of products as people have it: each with a text that a model reads, and all the other cells of its row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metanlp.core.errors import InputError
from metanlp.core.types import Cleaning, Row
from metanlp.forms.reading import TEXTS
from metanlp.tasks.reading.cleaning import KINDS, clean_rows, together
from metanlp.tasks.reading.columns import column_names, in_file
from metanlp.tasks.reading.files import ending_of
from metanlp.tasks.reading.records import Record, read_records, shown
from metanlp.tasks.reading.rows import unlabelled_rows, with_joined


@dataclass(frozen=True)
class Products:
    """The products of a file, in its order."""

    rows: tuple[Row, ...]  # what a model reads
    cells: tuple[Mapping[str, object], ...]  # of each row all that the file has, every row under the same names
    cleaning: Cleaning | None = None  # what was changed; None where nobody asked


def read_products(path: Path, columns: Mapping[str, str] | None = None, *, clean: bool = False) -> Products:
    """The products of a CSV, TSV, JSONL or Parquet file, or one a line of any other. `columns` maps our names to the
    file's: {"text": "title+description"}. Cells stay as they are, also where their texts are to be `clean`; then
    products without text and repeats are left out. Raises InputError, without `clean` also for a blank text."""
    ending = ending_of(path)
    found = list(read_records(path, ending))
    mapped = in_file(columns, found[0][1], shown(path)) if found and ending != ".txt" else None
    names = column_names(mapped)
    records = list(with_joined(found, names))
    told = [n for n, record in enumerate(records) if has_text(record, names) or not clean]
    if records and not told:
        raise InputError(f"{shown(path)}: none of its {len(records)} rows has a text; which column has it: --columns")
    rows = [row for row, _ in unlabelled_rows([records[n] for n in told], mapped, shown(path))]
    every = dict.fromkeys((name for _, cells in found for name in cells), "")
    cells = [{name: "" if v is None else v for name, v in (every | found[n][1]).items()} for n in told]
    if not clean:
        return Products(tuple(rows), tuple(cells))
    kept, rows, cleaning = clean_rows(rows)
    blank = len(records) - len(told)
    cleaning = together([cleaning, Cleaning(blank, dict.fromkeys(KINDS, 0) | {"empty": blank}, {})])
    return Products(tuple(rows), tuple(cells[n] for n in kept), cleaning)


def has_text(record: Record, names: Mapping[str, str]) -> bool:
    """Whether one of its columns of texts holds more than white space."""
    return any(str(record[1].get(names[name]) or "").strip() for name in TEXTS if name in names)
