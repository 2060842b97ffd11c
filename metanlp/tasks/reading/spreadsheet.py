"""The first sheet of an Excel workbook (.xlsx), as rows of text."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from metanlp.core.errors import InputError

UNPACKED_LIMIT = 256_000_000  # bytes of a workbook's parts: a few kilobytes can unpack to anything

Numbered = tuple[int, list[str]]
"""The number of a row, as Excel shows it, and its cells."""


def first_sheet(path: Path, name: str) -> list[Numbered]:
    """The rows of the first sheet of the workbook at `path`, called `name` in errors, without blank ones at the end.
    Numbers and dates are what CSV would have of them, formulas the values that were saved with them. Raises InputError,
    also for a blank row before others and for a cell that holds an error."""
    if not find_spec("openpyxl"):
        raise InputError(
            f"{name}: .xlsx is read by openpyxl, which is not installed; pip install 'metanlp[excel]', or save as .csv"
        )
    try:
        with path.open("rb") as stream:  # which openpyxl would leave open where it fails
            _check_size(stream, name)
            return _rows(import_module("openpyxl"), stream, name)
    except InputError:
        raise
    except Exception as error:  # of a damaged workbook openpyxl raises whatever it meets
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name}: is no workbook that can be read ({reason}); save it anew, without a password") from (
            error
        )


def _check_size(stream: IO[bytes], name: str) -> None:
    with zipfile.ZipFile(stream) as packed:
        size = sum(part.file_size for part in packed.infolist())
    if size > UNPACKED_LIMIT:
        raise InputError(f"{name}: its parts have {size:,} bytes, more than {UNPACKED_LIMIT:,}; save it as .csv")


def _rows(library: Any, stream: IO[bytes], name: str) -> list[Numbered]:
    with warnings.catch_warnings():  # of formats and rules that it passes over
        warnings.simplefilter("ignore")
        book = library.load_workbook(stream, read_only=True, data_only=True)
        return list(_filled(book.worksheets[0], name))


def _filled(sheet: Any, name: str) -> Iterator[Numbered]:
    sheet.reset_dimensions()  # which some programs write wrong
    blank = 0
    for number, cells in enumerate(sheet.iter_rows(), start=1):
        said = [_text(cell, f"{name}:{number}") for cell in cells]
        if not any(said):
            blank = blank or number
            continue
        if blank:
            raise InputError(f"{name}:{blank}: the row is blank; remove it")
        yield number, said


def _text(cell: Any, where: str) -> str:
    value = cell.value
    if cell.data_type == "e":
        raise InputError(f"{where}: a cell holds the error {value}; mend it, or clear the cell")
    if isinstance(value, datetime | date | time):
        return value.isoformat(*([" "] if isinstance(value, datetime) else []))
    if isinstance(value, bool):  # as Excel shows it, and saves it as CSV
        return str(value).upper()
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return "" if value is None else str(int(value) if whole else value)
