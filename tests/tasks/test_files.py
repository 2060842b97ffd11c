"""Files become tasks; files that cannot be learned from are refused in one line that names the place."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import tracemalloc
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metanlp.core.errors import InputError
from metanlp.tasks.reading.build import task_from_rows, with_labels
from metanlp.tasks.reading.files import read_task, read_tasks, read_texts
from metanlp.tasks.reading.rows import read_rows

GOOD = [{"text": "what a day", "label": "good"}, {"text": "never again", "label": "bad"}]


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def put(path: Path, content: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lines(*GOOD) if content is None else content)
    return path


def refusal(read: object, *arguments: object, **options: object) -> str:
    assert callable(read)
    with pytest.raises(InputError) as caught:
        read(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# What is read.


def test_strings_are_sorted_and_rows_indexed(tmp_path: Path) -> None:
    task = read_task(put(tmp_path / "mood.jsonl"))
    assert (task.name, task.labels, task.source) == ("mood", ("bad", "good"), "mood.jsonl")
    assert task.pools == {"train": ({"text": "what a day", "label": 1}, {"text": "never again", "label": 0})}


def test_integers_ascend_and_take_their_words(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 10, "label_text": "ten"}, {"text": "b", "label": 9}, {"text": "c", "label": -1}]
    task = read_task(put(tmp_path / "numbers.jsonl", lines(*rows)))
    assert task.labels == ("-1", "9", "ten")
    assert [row["label"] for row in task.pools["train"]] == [2, 1, 0]


def test_the_three_formats_agree(tmp_path: Path) -> None:
    rows = [
        {"text_a": 'a, "b"', "text_b": "NA", "label": 1, "id": 7},
        {"text_a": "c\nd", "text_b": "null", "label": 0, "id": 8},
    ]
    put(tmp_path / "t.jsonl", lines(*rows))
    csv = b'\xef\xbb\xbftext_a,text_b,label,id\r\n"a, ""b""",NA,1,7\r\n"c\nd",null,0,8\r\n'
    put(tmp_path / "t.csv", csv)
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    pools = [read_task(tmp_path / f"t.{ending}").pools for ending in ("jsonl", "csv", "parquet")]
    assert pools[0] == pools[1] == pools[2]
    assert pools[0]["train"][1] == {"text_a": "c\nd", "text_b": "null", "label": 0}


def test_byte_order_mark_and_crlf_are_accepted(tmp_path: Path) -> None:
    path = put(tmp_path / "t.jsonl", b"\xef\xbb\xbf" + lines(*GOOD).replace(b"\n", b"\r\n"))
    assert read_task(path).pools == read_task(put(tmp_path / "u.jsonl")).pools


@pytest.mark.parametrize("end", [b"\n", b"\n\n\n", b"\r\n \t\r\n", b"  "])
def test_blank_lines_at_the_end_are_no_rows(end: bytes, tmp_path: Path) -> None:
    wanted = read_task(put(tmp_path / "t.jsonl")).pools
    assert read_task(put(tmp_path / "t.jsonl", lines(*GOOD) + end)).pools == wanted
    csv = b'text,label\nwhat a day,good\n"never again",bad\n'
    assert read_task(put(tmp_path / "t.csv", csv + end)).pools == wanted
    assert len(read_texts(put(tmp_path / "t.txt", b"what a day\nnever again\n" + end))) == 2
    assert len(read_texts(io.BytesIO(b"what a day\n" + end))) == 1


def test_blank_lines_inside_a_quoted_cell_are_text(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", b'label,text\nx,"two\n\nlines"\ny,one\n\n')
    assert [row.texts["text"] for row in read_rows(path)] == ["two\n\nlines", "one"]
    assert ":2: is not valid CSV" in refusal(read_rows, put(path, b'label,text\nx,"left open\n\n\n'))


def test_the_longest_cell_is_read_and_the_limit_of_the_process_stays(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    longest = b"x" * limit
    assert len(read_rows(put(tmp_path / "t.csv", b"text,label\n" + longest + b",a\nb,b\n"))[0].texts["text"]) == limit
    said = refusal(read_rows, put(tmp_path / "t.csv", b"text,label\na,a\n" + longest + b"x,b\n"))
    assert f"t.csv:3: a cell is longer than {limit:,} characters" in said
    assert csv.field_size_limit() == limit


def test_a_bad_line_after_blank_ones_is_found(tmp_path: Path) -> None:
    assert ":4: byte 0xff" in refusal(read_task, put(tmp_path / "t.jsonl", lines(*GOOD) + b"\n\xff\n"))


def test_columns_are_renamed(tmp_path: Path) -> None:
    rows = [{"sentence": "a", "text": "noise", "class": "x"}, {"sentence": "b", "text": "noise", "class": "y"}]
    task = read_task(put(tmp_path / "t.jsonl", lines(*rows)), columns={"text": "sentence", "label": "class"})
    assert [row["text"] for row in task.pools["train"]] == ["a", "b"]


def test_rows_keep_their_place(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", b'label,text\nx,"two\nlines"\ny,one\n')
    assert [row.where for row in read_rows(path)] == [f"{path}:2", f"{path}:4"]


def test_a_folder_of_splits_is_one_task(tmp_path: Path) -> None:
    put(tmp_path / "mood" / "train.jsonl")
    put(tmp_path / "mood" / "test.csv", b"text,label\nfine,good\n")
    put(tmp_path / "mood" / "README.md", b"about")
    (task,) = read_tasks(tmp_path / "mood")
    assert (task.name, task.labels) == ("mood", ("bad", "good"))
    assert {pool: len(rows) for pool, rows in task.pools.items()} == {"train": 2, "test": 1}


def test_a_folder_of_tasks_names_them_by_path(tmp_path: Path) -> None:
    put(tmp_path / "b.jsonl")
    put(tmp_path / "a" / "deep" / "c.jsonl")
    put(tmp_path / "a" / "split" / "train.jsonl")
    put(tmp_path / "few" / "train_1shot_0.jsonl")
    put(tmp_path / "few" / "test.jsonl")
    put(tmp_path / ".hidden" / "x.jsonl", b"")
    assert [task.name for task in read_tasks(tmp_path)] == ["a/deep/c", "a/split", "b", "few"]
    assert read_tasks(tmp_path, name="mine")[2].name == "mine/b"
    assert list(read_tasks(tmp_path)[3].supports) == [1]


def test_names_may_be_in_any_script(tmp_path: Path) -> None:
    for stem in ("שלום", "👩‍💻", "Größe", "CON"):
        assert read_task(put(tmp_path / f"{stem}.jsonl")).name == stem


def test_rows_from_memory_are_checked_alike() -> None:
    task = task_from_rows("mood", GOOD)
    assert (task.name, task.labels) == ("mood", ("bad", "good"))
    assert "mood: row 3: 'text' is blank" in refusal(task_from_rows, "mood", [*GOOD, {"text": " ", "label": "bad"}])
    assert "row 3: the label is the decimal 1.5" in refusal(
        task_from_rows, "mood", [*GOOD, {"text": "x", "label": 1.5}]
    )
    assert "has no rows" in refusal(task_from_rows, "mood", [])


def test_with_labels_reorders_and_renames() -> None:
    task = with_labels(task_from_rows("t", GOOD), ("good", "neutral", "bad"))
    assert [row["label"] for row in task.pools["train"]] == [0, 2]
    numbered = task_from_rows("t", [{"text": "a", "label": 1}, {"text": "b", "label": 0}])
    assert with_labels(numbered, ("no", "yes")).labels == ("no", "yes")
    spelt = task_from_rows("t", [{"text": "a", "label": "not_same"}, {"text": "b", "label": "same"}])
    assert [row["label"] for row in with_labels(spelt, ("same", "not same")).pools["train"]] == [1, 0]
    assert "did you mean 'good'?" in refusal(with_labels, task, ("god", "neutral", "bad")).replace("'god'", "'good'")


# What is refused; tests/test_malformed.py has the table.


def test_a_hostile_gigabyte_is_refused_in_little_memory(tmp_path: Path) -> None:
    path = put(tmp_path / "t.jsonl", b"")
    os.truncate(path, 1_000_000_000)
    tracemalloc.start()
    message = refusal(read_task, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ":1: the line is longer" in message
    assert peak < 20_000_000


def test_cut_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(arrow.Table.from_pylist(GOOD * 1000), path)
    whole = path.read_bytes()
    assert len(read_task(path).pools["train"]) == 2000
    for kept in (0, 3, len(whole) // 2, len(whole) - 1):
        assert "t.parquet: is damaged" in refusal(read_task, put(path, whole[:kept]))


def test_not_a_plain_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "b.jsonl")
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "a.jsonl")
    assert "pipe.jsonl: is a pipe or device" in refusal(read_task, tmp_path / "pipe.jsonl")
    assert "folder.jsonl: is a folder" in refusal(read_rows, tmp_path / "folder.jsonl")
    assert "a.jsonl: cannot be read (Too many levels" in refusal(read_task, tmp_path / "a.jsonl")
    assert "absent.csv: cannot be read (No such file" in refusal(read_task, tmp_path / "absent.csv")
    assert "cannot be read (File name too long)" in refusal(read_task, tmp_path / ("x" * 300 + ".csv"), name="long")
    assert "cannot be read" in refusal(read_rows, "nul\0.csv")


@pytest.mark.parametrize("name", ["", " ", "../x", "a//b", "/a", "a/.", "x" * 300, "a\rb"])
def test_task_names_that_are_refused(name: str) -> None:
    assert "task name" in refusal(task_from_rows, name, GOOD)


ENDINGS = st.sampled_from([".jsonl", ".csv", ".parquet"])
PIECES = st.sampled_from(
    [b'{"text": "a", "label": 0}\n', b"text,label\n", b"a,x\n", b'"', b"\xff", b"\0", b"{", b"[", b"\r", b"NaN"]
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(content=st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=8).map(b"".join)), ending=ENDINGS)
def test_any_bytes_are_a_task_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, ending: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz{ending}"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        read_task(path)


# Texts to predict.


def test_texts_from_files(tmp_path: Path) -> None:
    wanted = [{"text": "what a day"}, {"text": "never again"}]
    assert read_texts(put(tmp_path / "t.txt", b"what a day\r\nnever again")) == wanted
    assert read_texts(put(tmp_path / "t", b"what a day\nnever again\n")) == wanted
    assert read_texts(put(tmp_path / "t.csv", b"id,text\n1,what a day\n2,never again\n")) == wanted
    assert read_texts(put(tmp_path / "t.jsonl")) == wanted
    pairs = put(tmp_path / "p.csv", b"text_a,text_b\na,b\n")
    assert read_texts(pairs) == [{"text_a": "a", "text_b": "b"}]
    assert read_texts(put(tmp_path / "q.csv", b"body\na\n"), columns={"text": "body"}) == [{"text": "a"}]


def test_texts_from_streams() -> None:
    wanted = [{"text": "é"}, {"text": "b"}]
    assert read_texts(io.StringIO("é\nb\n")) == wanted
    assert read_texts(io.BytesIO("é\nb\n".encode())) == wanted
    assert read_texts(io.TextIOWrapper(io.BytesIO("é\nb\n".encode()), encoding="ascii")) == wanted
    assert read_texts(io.BytesIO("text\né\nb\n".encode()), ending=".csv") == wanted
    assert read_texts(io.StringIO('{"text": "é"}\n{"text": "b"}\n'), ending=".jsonl") == wanted


def test_texts_that_are_refused(tmp_path: Path) -> None:
    assert "t.txt:2: the line is blank" in refusal(read_texts, put(tmp_path / "t.txt", b"a\n\nb\n"))
    assert "t.txt:1: the line is blank" in refusal(read_texts, put(tmp_path / "t.txt", b" \n\n\nb\n"))
    assert "t.csv:2: the line is blank" in refusal(read_texts, put(tmp_path / "t.csv", b"text\n\nb\n"))
    assert "t.csv:1: the line is blank" in refusal(read_texts, put(tmp_path / "t.csv", b"\ntext\nb\n"))
    assert "t.jsonl: has no rows" in refusal(read_texts, put(tmp_path / "t.jsonl", b"\n"))
    assert "t.txt: has no rows" in refusal(read_texts, put(tmp_path / "t.txt", b""))
    assert "input:2: byte 0xe9" in refusal(read_texts, io.BytesIO(b"a\ncaf\xe9\n"))
    assert "absent.txt: cannot be read" in refusal(read_texts, tmp_path / "absent.txt")


# Files that would be passed over, or read as something else, in silence.


@pytest.mark.parametrize("other", ["weather.csv", "holdout.jsonl", "Notes.XLSX"])
def test_a_file_beside_the_splits_of_a_task_is_named(tmp_path: Path, other: str) -> None:
    for name in ("train.csv", other):
        (tmp_path / name).write_text("text,label\na b,x\nc d,y\n")
    with pytest.raises(InputError, match=rf"{other}: stands beside train\.csv, which make the folder one task"):
        read_task(tmp_path)


@pytest.mark.parametrize("other", ["more/weather.csv", "more/weather/train.jsonl"])
def test_a_task_in_a_folder_beside_the_splits_of_a_task_is_named(tmp_path: Path, other: str) -> None:
    (tmp_path / other).parent.mkdir(parents=True)
    for name in ("train.csv", other):
        (tmp_path / name).write_text("text,label\na b,x\nc d,y\n")
    with pytest.raises(InputError, match=rf"{other}: lies in a folder beside train\.csv, which make the folder one"):
        read_task(tmp_path)


@pytest.mark.parametrize("other", ["out/metrics.jsonl", "notes/why.txt", ".kept/old.csv", "venv/lib/python/data.csv"])
def test_other_folders_beside_the_splits_of_a_task_are_no_fault(tmp_path: Path, other: str) -> None:
    (tmp_path / other).parent.mkdir(parents=True)
    for name in ("train.csv", other):
        (tmp_path / name).write_text("text,label\na b,x\nc d,y\n")
    assert read_task(tmp_path).labels == ("x", "y")


def test_splits_are_known_in_capitals_too(tmp_path: Path) -> None:
    (tmp_path / "Train.CSV").write_text("text,label\na b,x\nc d,y\n")
    (tmp_path / "TEST.csv").write_text("text,label\ne f,x\n")
    assert {name: len(rows) for name, rows in read_task(tmp_path).pools.items()} == {"train": 2, "test": 1}
    (tmp_path / "Dev.csv").write_text("text,label\ng h,x\n")
    with pytest.raises(InputError, match=r"Dev\.csv: beside train, test this has to be called validation\.csv"):
        read_task(tmp_path)


def test_a_space_before_a_quoted_cell_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('text, label\n"a, b", "x"\n"b, c", "y"\nplain, y\n x , "y"\n')
    task = read_task(tmp_path / "t.csv")
    assert task.labels == ("x", "y")
    assert [row["text"] for row in task.pools["train"]][:3] == ["a, b", "b, c", "plain"]


@pytest.mark.parametrize("number", ["1e-05", "1E-05", "1e5", "+3", "05", "-0", "-5.", "1.e3", ".5"])
def test_scores_are_numbers_however_they_are_written(tmp_path: Path, number: str) -> None:
    (tmp_path / "t.csv").write_text(f"text,score\na b,{number}\nc d,7\n")
    task = read_task(tmp_path / "t.csv")
    low, high = sorted((float(number), 7.0))
    assert (task.form, task.scale) == ("regress", (low, high))
