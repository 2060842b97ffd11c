"""A file with columns under other names is told in one line what would read it, and that line reads it."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import pytest

from metanlp.core.errors import InputError
from metanlp.tasks.reading.columns import parse_columns
from metanlp.tasks.reading.files import read_task, read_texts

BODIES = (
    "The printer on the second floor jams whenever I print on both sides",
    "My badge does not open the side door any more",
    "The monitor stays black after the lunch break",
    "Please reset the password of my account",
    "Two keys of my keyboard are dead since yesterday",
    "I need access to the shared folder of accounting",
)
KINDS = ("equipment", "access", "equipment", "access", "equipment", "access")
SUBJECTS = ("Printer jams", "Badge is dead", "Black monitor", "Password reset", "Dead keys", "Shared folder")


def write(path: Path, columns: dict[str, tuple[str, ...]], mark: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter=mark)
        table.writerow(columns)
        table.writerows(zip(*columns.values(), strict=True))
    return path


def said(path: Path, columns: str = "") -> str:
    with pytest.raises(InputError) as refused:
        read_task(path, columns=parse_columns(columns))
    line = str(refused.value)
    assert "\n" not in line
    return line


def options(line: str) -> str:
    found = re.search(r"then say --columns (.+)$", line)
    assert found, line
    return shlex.split(found[1])[0]


NUMBERS = tuple(f"T-{number:05d}" for number in range(6))
DATES = tuple(f"2026-11-{day:02d} 09:15" for day in range(1, 7))
STARS = ("1", "2", "1", "2", "1", "2")


@pytest.mark.parametrize(
    ("columns", "option"),
    [
        ({"body": BODIES, "intent": KINDS}, "text=body,label=intent"),
        ({"id": NUMBERS, "Anliegen": BODIES, "Abteilung": KINDS}, "text=Anliegen,label=Abteilung"),
        ({"when": DATES, "Kind of ticket": KINDS, "What was said": BODIES},
         "text=What was said,label=Kind of ticket"),
        # The label has a usual name, or is in words where another column of few values is not.
        ({"body": BODIES, "channel": ("mail", "phone") * 3, "intent": KINDS}, "text=body,label=intent"),
        ({"body": BODIES, "stars": STARS, "team": KINDS}, "text=body,label=team"),
        ({"body": BODIES, "stars": STARS}, "text=body,label=stars"),
        ({"subject": SUBJECTS, "body": BODIES, "team": KINDS}, "text=body,label=team"),
        ({"Text": BODIES, "team": KINDS}, "label=team"),
        ({"body": BODIES, "label": KINDS}, "text=body"),
        ({"premise": BODIES, "hypothesis": SUBJECTS, "gold": KINDS},
         "text_a=premise,text_b=hypothesis,label=gold"),
        ({"发言": tuple(f"第{n}个打印机坏了" for n in range(6)), "部门": ("设备", "门禁") * 3}, "text=发言,label=部门"),
    ],
)  # fmt: skip
def test_the_suggestion_is_whole_and_right(columns: dict[str, tuple[str, ...]], option: str, tmp_path: Path) -> None:
    path = write(tmp_path / "tickets.csv", columns, ";")
    line = said(path)
    assert line.startswith(f"{path}:2: no column ")
    assert options(line) == option
    assert len(read_task(path, columns=parse_columns(option)).pools["train"]) == 6


def test_what_was_given_stays_in_it_and_what_was_misspelt_is_mended(tmp_path: Path) -> None:
    path = write(tmp_path / "tickets.csv", {"body": BODIES, "channel": ("mail", "phone") * 3, "team": KINDS})
    assert options(said(path, "text=bdy,label=channel")) == "text=body,label=channel"
    assert options(said(path, "label=teem")) == "text=body,label=team"


def test_nothing_is_suggested_where_it_is_not_clear(tmp_path: Path) -> None:
    both = said(write(tmp_path / "a.csv", {"subject": SUBJECTS, "reply": SUBJECTS[::-1], "team": KINDS}))
    assert "'subject' and 'reply' could both be the text: say which with --columns text=…, or text_a=…,text_b=…" in both
    labels = said(write(tmp_path / "b.csv", {"text": BODIES, "team": KINDS, "channel": ("mail", "phone") * 3}))
    assert "'team' and 'channel' could both be the label: say which with --columns label=…" in labels
    none = said(write(tmp_path / "c.csv", {"text": BODIES, "id": NUMBERS}))
    assert none.endswith("name yours with --columns label=…")
    # An option can't name a column with a comma.
    assert said(write(tmp_path / "d.csv", {"a, b": BODIES, "label": KINDS})).endswith("with --columns text=…")


def test_texts_without_answers_too(tmp_path: Path) -> None:
    path = write(tmp_path / "new.csv", {"id": NUMBERS, "body": BODIES})
    with pytest.raises(InputError) as refused:
        read_texts(path)
    option = options(str(refused.value))
    assert option == "text=body"
    assert [row["text"] for row in read_texts(path, columns=parse_columns(option))] == [*BODIES]
