"""Cells and labels as people write them: what a column is, which are one class, and what is said of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from metanlp.cli.commands import main
from metanlp.core.errors import InputError
from metanlp.core.types import Task
from metanlp.tasks.index.build import build_index
from metanlp.tasks.reading.build import rows_for, rows_from, task_from_rows, with_labels
from metanlp.tasks.reading.files import read_task, read_texts
from metanlp.tasks.taskset import TaskSet


def csv(folder: Path, labels: Sequence[str], name: str = "t.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text,label\n" + "".join(f"row {n} of {name},{label}\n" for n, label in enumerate(labels)))
    return path


def words(task: Task, pool: str = "train") -> list[str]:
    return [task.labels[row["label"]] for row in task.pools[pool]]


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (("2", "10", "-1"), ("-1", "2", "10")),  # integers, in their order
        (("01", "02", "10"), ("01", "02", "10")),
        (('"2"', "10", "+1"), ("+1", "10", "2")),
        (("2", "10", "-0"), ("-0", "10", "2")),
        (("2", "10", "ten"), ("10", "2", "ten")),
        (("1.5", "10", "ten"), ("1.5", "10", "ten")),
        (("1" * 19, "10"), ("10", "1" * 19)),
    ],
)
def test_a_column_is_integers_only_if_every_cell_is(
    cells: Sequence[str], labels: tuple[str, ...], tmp_path: Path
) -> None:
    task = read_task(csv(tmp_path, cells))
    assert task.labels == labels
    assert words(task) == [cell.strip('"') for cell in cells]


def test_all_files_of_a_task_are_one_column(tmp_path: Path) -> None:
    csv(tmp_path / "codes", ("01", "02", "10", "11"), "train.csv")
    csv(tmp_path / "codes", ("10", "11"), "test.csv")
    task = read_task(tmp_path / "codes")
    assert (task.labels, words(task, "test")) == (("01", "02", "10", "11"), ["10", "11"])
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "train.jsonl").write_text('{"text": "a", "label": 9}\n{"text": "b", "label": 10}\n')
    csv(tmp_path / "mixed", ("10", "9"), "test.csv")
    assert words(read_task(tmp_path / "mixed"), "test") == ["10", "9"]


def test_of_many_labels_a_message_names_the_first(tmp_path: Path) -> None:
    task = read_task(csv(tmp_path, [f"class {n:03}" for n in range(300)]))
    messages = list[str]()
    with pytest.raises(InputError, match=r"which knows 'class 000', .*, 'class 011', …; mend it") as caught:
        rows_for(rows_from("rows", [{"text": "a", "label": "none of these"}], None), task.meaning, pairs=False)
    messages.append(str(caught.value))
    with pytest.raises(InputError, match=r"it may have: 'l0', .*, 'l11', …$") as caught:
        with_labels(task, [f"l{n}" for n in range(300)])
    messages.append(str(caught.value))
    assert max(map(len, messages)) < 400


THREE, FOUR, WORDS = '""3"", ""4"", ""1""', '""0"", ""1"", ""2""', '""a"", ""b""'


def chosen(path: Path, *rows: tuple[str, str]) -> list[int]:
    """The places of the answers of rows (choices, answer)."""
    lines = "".join(f'q {n},"[{choices}]",{answer}\n' for n, (choices, answer) in enumerate(rows))
    path.write_text("question,choices,answer\n" + lines)
    return [row["answer"] for row in read_task(path).pools["train"]]


def test_an_answer_of_csv_is_read_as_rows_say_that_have_one_reading(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    assert chosen(path, (THREE, "4"), (FOUR, "1")) == [1, 1]
    assert chosen(path, (THREE, "0"), (THREE, "1")) == [0, 1]
    assert chosen(path, (WORDS, "b"), (THREE, "1")) == [1, 2]
    assert chosen(path, (FOUR, "1")) == [1]  # both are the same
    assert chosen(path, (WORDS, "b"), (WORDS, "0")) == [1, 0]


@pytest.mark.parametrize("more", [(), ((THREE, "4"), (THREE, "0"))])
def test_an_answer_of_csv_that_may_be_a_choice_or_a_place_is_refused(
    tmp_path: Path, more: Sequence[tuple[str, str]]
) -> None:
    said = r"t\.csv:2: the answer 1 may be the choice 1 or the one at place 1 from 0, '4', and no other row says which"
    with pytest.raises(InputError, match=said):
        chosen(tmp_path / "t.csv", (THREE, "1"), *more)


@pytest.mark.parametrize(
    ("cells", "text"),
    [
        ({"a": 3.0, "b": "stars"}, "3 stars"),
        ({"a": 3, "b": "stars"}, "3 stars"),
        ({"a": 0.1, "b": "m"}, "0.1 m"),
        ({"a": True, "b": "x"}, "True x"),
        ({"a": "", "b": "keyboard dead"}, "keyboard dead"),
    ],
)
def test_joined_columns_are_as_they_were_written(cells: Mapping[str, Any], text: str, tmp_path: Path) -> None:
    rows = [{**cells, "label": 0}, {"a": "x", "b": "y", "label": 1}]
    task = task_from_rows("t", rows, columns={"text": "a+b"})
    assert task.pools["train"][0]["text"] == text


def test_a_joined_column_of_single_precision(tmp_path: Path) -> None:
    cells = arrow.array([0.1, 2.0], arrow.float32())
    parquet.write_table(arrow.table({"a": cells, "b": ["m", "km"], "label": [0, 1]}), tmp_path / "t.parquet")
    assert [row["text"] for row in read_texts(tmp_path / "t.parquet", columns={"text": "a+b"})] == ["0.1 m", "2 km"]


OFFICE = {
    "semicolons": "text;label\na, b;1\nc;0\n",
    "a hint": "sep=;\ntext;label\na, b;1\nc;0\n",
    "a hint in quotes": '"sep=\t"\r\ntext\tlabel\r\na, b\t1\r\nc\t0\r\n',
    "tabs": "text\tlabel\na, b\t1\nc\t0\n",
    "a byte order mark": "\ufefftext;label\na, b;1\nc;0\n",
    "capitals": 'Text,LABEL\n"a, b",1\nc,0\n',
    "a space": 'text, label\n"a, b",1\nc,0\n',
    "other columns": 'Id;TEXT;Label;"a;b"\n7;a, b;1;x\n8;c;0;y\n',
}


@pytest.mark.parametrize("name", OFFICE)
def test_csv_as_offices_write_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "t.csv").write_text(OFFICE[name])
    task = read_task(tmp_path / "t.csv")
    assert [row["text"] for row in task.pools["train"]] == ["a, b", "c"]
    assert [task.labels[row["label"]] for row in task.pools["train"]] == ["1", "0"]
    assert read_texts(tmp_path / "t.csv") == [{"text": "a, b"}, {"text": "c"}]


def test_a_column_of_our_name_or_named_by_the_user_is_taken_before_one_in_other_letters(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,Text,label\na,no,x\nb,no,y\n")
    assert [row["text"] for row in read_task(tmp_path / "t.csv").pools["train"]] == ["a", "b"]
    (tmp_path / "t.csv").write_text("Text,body,label\nno,a,x\nno,b,y\n")
    for columns in ({"text": "body"}, {"text": "body", "label": "label"}):
        assert [row["text"] for row in read_task(tmp_path / "t.csv", columns=columns).pools["train"]] == ["a", "b"]
    assert read_task(tmp_path / "t.csv", columns={"text": "Text"}).pools["train"][0]["text"] == "no"


def test_a_column_that_the_user_names_may_stand_in_other_letters(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("ID; Body;Title;Intent\n1;a;x;u\n2;b;y;v\n")
    task = read_task(tmp_path / "t.csv", columns={"text": "title+body", "label": "intent"})
    assert [row["text"] for row in task.pools["train"]] == ["x a", "y b"]
    (tmp_path / "t.csv").write_text("Body,BODY,label\na,b,x\nc,d,y\n")
    with pytest.raises(InputError, match="no column 'body' for our `text`"):
        read_task(tmp_path / "t.csv", columns={"text": "body"})


def test_tsv_and_ndjson_are_read_as_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("text\tlabel\na, b\t1\nc\t0\n")
    (tmp_path / "t.ndjson").write_text('{"text": "a, b", "label": 1}\n{"text": "c", "label": 0}\n')
    for path in (tmp_path / "t.tsv", tmp_path / "t.ndjson"):
        assert read_texts(path) == [{"text": "a, b"}, {"text": "c"}]
        assert words(read_task(path)) == ["1", "0"]


def test_files_that_were_joined_keep_their_marks(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a", "label": 1}\n' * 2)
    assert read_texts(tmp_path / "t.jsonl") == [{"text": "a"}, {"text": "a"}]


def test_labels_that_look_the_same_are_the_same(tmp_path: Path) -> None:
    task = read_task(csv(tmp_path, ("caf\u00e9", "cafe\u0301", "tea", "tea\u200b", "\u200dtea ", "\ufefftea")))
    assert (task.labels, words(task)) == (("caf\u00e9", "tea"), ["caf\u00e9"] * 2 + ["tea"] * 4)
    (note,) = task.notes
    assert "t.csv:3: the label 'caf\u00e9' has invisible characters, or letters in parts" in note
    assert "in 4 rows" in note


def test_joiners_inside_a_label_are_its_spelling(tmp_path: Path) -> None:
    written = ("\U0001f469\u200d\U0001f4bb", "\u0645\u06cc\u200c\u0631\u0648\u0645", "\u2764\ufe0f")
    task = read_task(csv(tmp_path, written))
    assert ({*task.labels}, task.notes) == ({*written}, ())


@pytest.mark.parametrize("labels", [("Good", "good"), ("not good", "not\u00a0good"), ("\uff21", "A")])
def test_labels_that_look_alike_are_said(labels: tuple[str, str], tmp_path: Path) -> None:
    task = read_task(csv(tmp_path, labels))
    assert {*task.labels} == {*labels}
    (note,) = task.notes
    assert "look alike" in note


ROWS = {
    "classify": [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}, {"text": " A ", "label": "y"}],
    "regress": [{"text": "a", "score": 1}, {"text": "b", "score": 2}, {"text": "A", "score": 3}],
    "multilabel": [
        {"text": "a", "labels": ["x", "y"]},
        {"text": "A", "labels": ["y", "x"]},
        {"text": "a", "labels": []},
    ],
    "choose": [
        {"question": "a", "choices": ["x", "y"], "answer": 0},
        {"question": "a", "choices": ["y", "x"], "answer": 1},
        {"question": "a", "choices": ["y", "x"], "answer": 0},
    ],
    "tag": [{"tokens": ["a", "b"], "tags": ["O", "X"]}, {"tokens": ["A", "b"], "tags": ["X", "O"]}],
    "span": [
        {"question": "a", "context": "x y", "answer": "x"},
        {"question": "b", "context": "x y", "answer": "y"},
        {"question": "A", "context": "x Y", "answer": "Y"},
    ],
}


@pytest.mark.parametrize("form", ROWS)
def test_a_text_with_two_answers_is_said_and_kept(form: str) -> None:
    task = task_from_rows("t", ROWS[form])
    assert len(task.pools["train"]) == len(ROWS[form])
    (note,) = task.notes
    assert note.startswith(f"t: row {len(ROWS[form])}: the answer here is ")
    assert "to the same text at t: row 1" in note
    assert "one text has several answers, and every row is kept" in note


def test_notes_are_shown_and_an_index_knows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    csv(tmp_path, ("Good", "good", "bad"))
    build_index(tmp_path)
    assert TaskSet.from_files(tmp_path).tasks[0].notes == read_task(tmp_path / "t.csv").notes
    monkeypatch.setattr("sys.argv", ["metanlp", "tasks", str(tmp_path)])
    main()
    assert "t: the labels 'Good' and 'good' look alike" in capsys.readouterr().out
