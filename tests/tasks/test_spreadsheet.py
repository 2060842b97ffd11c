"""Excel workbooks: their first sheet says the same as a CSV of it, and every fault is named with its row."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from metanlp.core.errors import InputError
from metanlp.core.types import Meaning
from metanlp.tasks.reading.build import rows_for, rows_from
from metanlp.tasks.reading.files import read_asked, read_task
from metanlp.tasks.reading.rows import unlabelled_rows
from metanlp.tasks.taskset import TaskSet

ROWS = [("The printer jams again", "equipment"), ("My badge stopped working", "access"),
        ("Monitor stays black", "equipment"), ("Please reset my password", "access")]  # fmt: skip


def book(path: Path, rows: Sequence[Sequence[Any]], *more: str) -> Path:
    """A workbook with these rows on its first sheet, and `more` sheets of something else."""
    made = Workbook()
    sheet = made.active
    assert sheet is not None
    for row in rows:
        sheet.append(list(row))
    for title in more:
        made.create_sheet(title).append(["not", "read"])
    made.save(path)
    return path


def refused(path: Path) -> str:
    with pytest.raises(InputError) as error:
        read_task(path)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(str(path))


def test_it_says_what_a_csv_says(tmp_path: Path) -> None:
    workbook = book(tmp_path / "tickets.xlsx", [("Text", "Label"), *ROWS, (None, None)], "Notes")
    (tmp_path / "tickets.csv").write_text("\n".join(["Text;Label", *(";".join(row) for row in ROWS)]) + "\n")
    ours, theirs = read_task(workbook), read_task(tmp_path / "tickets.csv")
    assert (ours.pools, ours.labels, ours.name) == (theirs.pools, theirs.labels, "tickets")


def test_true_and_false_are_what_excel_writes(tmp_path: Path) -> None:
    path = book(tmp_path / "t.xlsx", [("text", "label"), ("on time", True), ("late", False), ("later", False)])
    task = read_task(path)
    assert task.labels == ("FALSE", "TRUE")
    own = rows_from("rows", [{"text": "soon", "label": True}], None)
    assert rows_for(own, task.meaning, pairs=False) == [{"text": "soon", "label": 1}]
    assert rows_for(own, Meaning("classify", ("False", "True")), pairs=False)[0]["label"] == 1
    numbers: Any = (0, 1)
    with pytest.raises(InputError, match="true or false"):
        rows_for(own, Meaning("classify", numbers), pairs=False)
    told = unlabelled_rows([("t:1", {"text": "soon", "label": True})], None, "t", task.labels)
    assert [row for row, _ in told] == [{"text": "soon"}]
    with pytest.raises(InputError, match=r"rows: row 1: the label is true or false; write a word or an integer"):
        rows_for(own, Meaning("classify", ("no", "yes")), pairs=False)


def test_numbers_and_dates_are_text_as_in_a_csv(tmp_path: Path) -> None:
    path = book(tmp_path / "t.xlsx", [
        ("id", "text", "label", "when", "price"),
        (7, 1984, 2, datetime(2026, 11, 30, 9, 15), 1.5),
        (8.0, "a text", 10, None, 2.0),
    ])  # fmt: skip
    assert read_task(path).labels == ("2", "10")  # integers: not in the order of words
    (first, others), (_, second) = read_asked(path)
    assert first == {"text": "1984"}
    assert others == {"id": "7", "when": "2026-11-30 09:15:00", "price": "1.5"}
    assert second == {"id": "8", "when": "", "price": "2"}


def test_a_folder_of_workbooks_is_a_task_set(tmp_path: Path) -> None:
    book(tmp_path / "one.xlsx", [("text", "label"), *ROWS])
    (tmp_path / "two").mkdir()
    book(tmp_path / "two" / "train.xlsx", [("text", "label"), *ROWS])
    book(tmp_path / "two" / "test.xlsx", [("text", "label"), ("A screen flickers", "equipment")])
    (tmp_path / "~$one.xlsx").write_bytes(b"\x05owner")  # Excel has the first one open
    assert TaskSet.from_files(tmp_path).names == ("one", "two")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("text", "label"), *ROWS, (None, None), ROWS[0]], ":6: the row is blank; remove it"),
        ([("text", "label"), ROWS[0], ("no label", None)], ":3: the label is blank; write a word or an integer"),
        ([("text", "label"), ROWS[0], ("no label", "#N/A")], ":3: a cell holds the error #N/A; mend it"),
        ([("text", "label"), ROWS[0], (None, "access")], ":3: 'text' is empty; every row needs a text there"),
        ([("text", "label"), ROWS[0], (*ROWS[1], "beside")], ":3: column 3 has no name in the first row"),
        ([("text", None, "label"), ("a", "b", "c")], ":2: column 2 has no name in the first row"),
        ([("text", "label", "label"), (*ROWS[0], "x")], ":1: the column 'label' stands twice; rename one of them"),
        ([("body", "team"), *ROWS], ":2: no column 'text' for our `text`; found 'body', 'team'; did you mean 'body' "
                                    "and 'team'? then say --columns text=body,label=team"),
        ([], ": has no rows; give at least two rows of different classes"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_row(rows: list[tuple[Any, ...]], said: str, tmp_path: Path) -> None:
    assert refused(book(tmp_path / "t.xlsx", rows)).startswith(said)


def test_without_its_library_a_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = book(tmp_path / "t.xlsx", [("text", "label"), *ROWS])
    monkeypatch.setattr("metanlp.tasks.reading.spreadsheet.find_spec", lambda name: None)
    assert "openpyxl, which is not installed; pip install 'metanlp[excel]', or save as .csv" in refused(path)


def test_a_workbook_that_unpacks_to_very_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = book(tmp_path / "t.xlsx", [("text", "label"), *ROWS])
    monkeypatch.setattr("metanlp.tasks.reading.spreadsheet.UNPACKED_LIMIT", 1_000)
    assert "more than 1,000; save it as .csv" in refused(path)


PARTS = ("[Content_Types].xml", "xl/workbook.xml", "xl/worksheets/sheet1.xml", "xl/sharedStrings.xml")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(name=st.sampled_from(PARTS), content=st.binary(max_size=60), whole=st.booleans())
def test_a_damaged_workbook_is_one_line(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes, whole: bool
) -> None:
    """One part of a good workbook is other bytes, or the file is cut."""
    folder = tmp_path_factory.getbasetemp()
    good, bad = book(folder / "good.xlsx", [("text", "label"), *ROWS]), folder / "bad.xlsx"
    with zipfile.ZipFile(good) as before, zipfile.ZipFile(bad, "w") as after:
        for part in before.namelist():
            after.writestr(part, content if part == name else before.read(part))
    if not whole:
        bad.write_bytes(bad.read_bytes()[: len(content) * 40])
    with contextlib.suppress(InputError):
        read_task(bad)
    assert len(read_task(good).pools["train"]) == len(ROWS)
