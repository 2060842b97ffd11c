"""Sources that nobody can learn from: one line that names the place, exit code 2, at once, and nothing is written."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import torch

import metanlp
from metanlp.algorithms import Frozen
from metanlp.backbone import Backbone
from metanlp.cli.commands import main
from metanlp.core.errors import InputError
from metanlp.core.storage import lock
from metanlp.learner.learner import Learner
from metanlp.tasks.reading.records import GROUP_LIMIT, shown
from metanlp.tasks.taskset import read

ROOT = Path(next(iter(metanlp.__path__))).parent
SLOWEST = 2.0  # seconds, with the libraries loaded


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


GOOD = [{"text": "what a day", "label": "good"}, {"text": "never again", "label": "bad"}]
A, B = {"text": "a", "label": 0}, {"text": "b", "label": 1}
FEW = lines(*GOOD)
EIGHT = lines(*({"text": f"{word} {n}", "label": word} for word in ("good", "bad") for n in range(8)))
START = b'{"text": "'
END = b'", "label": 1}\n'

Content = bytes | Mapping[str, bytes] | Callable[[Path], object]
"""The bytes of a file, the files of a folder by name, or what makes the source at a path."""


def table(**columns: list[Any]) -> Callable[[Path], object]:
    return lambda path: parquet.write_table(arrow.table(columns), path)


def twice(path: Path) -> None:
    columns = [arrow.array(["a", "b"]), arrow.array(["c", "d"]), arrow.array(["x", "y"])]
    parquet.write_table(arrow.table(columns, names=["text", "text", "label"]), path)


def cut(path: Path) -> None:
    parquet.write_table(arrow.Table.from_pylist(GOOD * 1000), path)
    os.truncate(path, path.stat().st_size // 2)


def long(megabytes: int) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(lines(A) + START + b"x" * (megabytes * 1_000_000) + END)


def late(path: Path) -> None:
    path.write_bytes(lines(*(A if n % 2 else B for n in range(20_000)), {"text": "c", "label": "pos"}))


def circle(path: Path) -> None:
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "up").symlink_to(path)


def beside_a_link(path: Path) -> None:
    path.mkdir()
    (path / "self").symlink_to(path / "self")


def beside_a_pipe(path: Path) -> None:
    put(path / "a.jsonl", FEW)
    os.mkfifo(path / "b.jsonl")


def unreadable(path: Path) -> None:
    put(path, FEW)
    path.chmod(0)


def put(path: Path, content: Content) -> None:
    """Make the source at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, Mapping):
        path.mkdir(exist_ok=True)
        for name, data in content.items():
            put(path / name, data)
    else:
        content(path)


# The name of the source, what it is, and what the line says of it: from ":" or "/" on it follows the source's path.
REFUSED: dict[str, tuple[str, Content, str]] = {
    # characters
    "latin-1": ("t.jsonl", lines(A) + b'{"text": "caf\xe9", "label": 1}\n', ":2: byte 0xe9 at place 14 is not UTF-8"),
    "latin-1 in CSV": ("t.csv", "text,label\na,x\ncafé,y\n".encode("latin-1"), ":3: byte 0xe9 at place 4 is not UTF-8"),
    "UTF-16": ("t.jsonl", lines(A, B).decode().encode("utf-16"), ":1: byte 0xff"),
    "UTF-16 in CSV": ("t.csv", "text,label\na,x\nb,y\n".encode("utf-16"), ":1: byte 0xff"),
    "UTF-16 without mark": ("t.csv", "text,label\na,x\n".encode("utf-16-le"), ":1: holds a NUL"),
    "NUL": ("t.csv", b"text,label\na,x\nb\0,y\n", ":3: holds a NUL"),
    "NUL, escaped": ("t.jsonl", lines(A, {"text": "b\0", "label": 1}), ":2: 'text' holds a NUL"),
    "NUL in Parquet": ("t.parquet", table(text=["a", "b\0"], label=["x", "y"]), ": row 2: 'text' holds a NUL"),
    "half a surrogate pair": ("t.jsonl", lines(A) + rb'{"text": "\ud800", "label": 1}' + b"\n",
        ":2: 'text' holds half of a surrogate pair"),
    # syntax
    "cut JSON": ("t.jsonl", lines(A) + b'{"text": "b", "la', ":2: is not valid JSON"),
    "a list": ("t.jsonl", lines(A, ["b", 1]), ":2: is a list"),
    "a number": ("t.jsonl", lines(3), ":1: is an integer"),
    "a key twice": ("t.jsonl", lines(A) + b'{"text": "b", "text": "c", "label": 1}\n',
        ":2: is not acceptable JSON (the key 'text' stands twice"),
    "JSON bomb": ("t.jsonl", lines(A) + b"[" * 100_000 + b"\n", ":2: is not acceptable JSON (nested too deeply"),
    "JSON bomb of objects": ("t.jsonl", lines(A) + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n",
        ":2: is not acceptable JSON (nested too deeply"),
    "JSON bomb beside the text": ("t.jsonl", lines(A) + b'{"text": "b", "label": 1, "x": ' + b"[" * 100_000
        + b"]" * 100_000 + b"}\n", ":2: is not acceptable JSON (nested too deeply"),
    "YAML bomb": ("t.yaml", b'a: &a ["x","x"]\nb: &b [*a,*a]\nc: [*b,*b]\n', ": files ending in '.yaml' are not read"),
    "folder with a YAML bomb": ("tasks", {"t.yaml": b"a: &a [*a,*a]\n"}, ": holds no task but t.yaml; put .jsonl"),
    "integer of 5000 digits": ("t.jsonl", lines(A) + b'{"text": "b", "label": ' + b"1" * 5000 + b"}\n",
        ":2: is not acceptable"),
    "blank line": ("t.jsonl", lines(A) + b"\n" + lines(B), ":2: the line is blank"),
    "too few cells": ("t.csv", b"text,label\na,x\nb\n", ":3: 1 cells where the header has 2"),
    "too many cells": ("t.csv", b"text,label\na, well,x\nb,y\n", ":2: 3 cells where the header has 2"),
    "quote in a quoted cell": ("t.csv", b'text,label\n"a" b,x\n', ":2: is not valid CSV"),
    "quote left open": ("t.csv", b'text,label\na,x\n"b,y\n' + b"c,x\n" * 100_000,
        ":3: a cell is longer than 131,072 characters; is a double quote left open?"),
    "a cell too long": ("t.csv", b"text,label\na,x\n" + b"b " * 65_537 + b",y\n",
        ":3: a cell is longer than 131,072 characters"),
    "endless row": ("t.csv", b"text,label\na,x\n" + b'"b\n",' * 300_000, ":3: the row is longer"),
    "old Mac line ends": ("t.csv", b"text,label\ra,x\rb,y\r", ":1: is not valid CSV"),
    "semicolons in the header alone": ("t.csv", b"text;label\na,x\nb,y\n", ":2: 1 cells where the header has 2"),
    "semicolons in a text": ("t.csv", b"text;label\na; b;x\nb;y\n",
        ":2: 3 cells where the header has 2; put texts that contain semicolons in double quotes"),
    "a line of 10 MB": ("t.jsonl", long(10), ":2: the line is longer than 1,000,000 bytes"),
    "a line of 30 MB": ("t.jsonl", long(30), ":2: the line is longer than 1,000,000 bytes"),
    "no Parquet": ("t.parquet", b"PAR1 and no more", ": is damaged after row 0"),
    "cut Parquet": ("t.parquet", cut, ": is damaged after row 0"),
    "empty Parquet file": ("t.parquet", b"", ": is damaged after row 0"),
    # texts
    "missing text": ("t.jsonl", lines(A, {"label": 1}), ":2: 'text' is missing"),
    "null text": ("t.jsonl", lines(A, {"text": None, "label": 1}), ":2: 'text' is null"),
    "null text in Parquet": ("t.parquet", table(text=["a", None], label=["x", "y"]), ": row 2: 'text' is null"),
    "empty text": ("t.csv", b"text,label\n,x\nb,y\n", ":2: 'text' is empty"),
    "blank text": ("t.jsonl", lines(A, {"text": "\u2003\t", "label": 1}), ":2: 'text' is blank"),
    "bytes as text": ("t.parquet", table(text=[b"a", b"b"], label=[1, 2]), ": row 1: 'text' is binary data"),
    "number as text": ("t.jsonl", lines({"text": 5, "label": 1}, B), ":1: 'text' is an integer"),
    "half a pair": ("t.jsonl", lines({"text_a": "a", "text_b": "b", "label": 0}, {"text_a": "a", "label": 1}),
        ":2: 'text_b' is missing"),
    "text, then a pair": ("t.jsonl", lines(A, {"text_a": "b", "text_b": "c", "label": 1}), ":2: has `text_a`"),
    # labels
    "missing label": ("t.jsonl", lines(A, {"text": "b"}), ":2: the label is missing"),
    "null label": ("t.jsonl", lines(A, {"text": "b", "label": None}), ":2: the label is null"),
    "null label in Parquet": ("t.parquet", table(text=["a", "b"], label=["x", None]), ": row 2: the label is null"),
    "NaN label": ("t.jsonl", lines(A) + b'{"text": "b", "label": NaN}\n', ":2: the label is NaN"),
    "NaN label in CSV": ("t.csv", b"text,label\na,1\nb,nan\n", ":3: the label is 'nan', which says that there is none"),
    "NaN label in Parquet": ("t.parquet", table(text=["a", "b"], label=[float("nan"), 1.0]),
        ": row 1: the label is NaN"),
    "NA label in CSV": ("t.csv", b"text,label\na,x\nb,NA\n", ":3: the label is 'NA', which says that there is none"),
    "null label in CSV": ("t.csv", b"text,label\na,x\nb,null\n", ":3: the label is 'null', which says"),
    "N/A label": ("t.jsonl", lines({"text": "a", "label": "N/A"}, B), ":1: the label is 'N/A', which says"),
    "decimal label": ("t.jsonl", lines(A, {"text": "b", "label": 1.0}), ":2: the label is the decimal 1.0"),
    "decimal label in CSV": ("t.csv", b"text,label\na,0\nb,1.0\n", ":3: the label is the decimal 1.0; write a word or"),
    "a hint of another mark": ("t.csv", b"sep=|\ntext|label\na|x\n",
                               ":1: cells are separated by '|'; use commas, semicolons, tabs"),
    "a line under a hint": ("t.csv", b"sep=;\ntext;label\na;x\nb\n", ":4: 1 cells where the header has 2"),
    "true as label": ("t.jsonl", lines(A, {"text": "b", "label": True}), ":2: the label is true or false"),
    "list as label": ("t.jsonl", lines(A, {"text": "b", "label": [1]}), ":2: the label is a list"),
    "label of 30 digits": ("t.jsonl", lines(A, {"text": "b", "label": 10**30}), ":2: the label is an integer of more"),
    "blank label": ("t.csv", b"text,label\na,x\nb, \n", ":3: the label is blank"),
    "label of two lines": ("t.jsonl", lines(A, {"text": "b", "label": "x\ny"}), ":2: the label is 'x\\ny'"),
    "label of 1000 characters": ("t.jsonl", lines(A, {"text": "b", "label": "x" * 1000}), ":2: the label is 'xxx"),
    "words among integers": ("t.jsonl", lines(A, B, {"text": "c", "label": "pos"}), ":3: the label is 'pos', but"),
    "a header in the middle": ("t.csv", b"text,label\na,x\nb,y\ntext,label\nc,x\n", ":4: the header stands here again"),
    "a header with its columns in another order": ("t.tsv", b"text\tlabel\na\tx\nlabel\ttext\nb\ty\n",
        ":3: the header stands here again; were two files joined?"),
    "a header with its own byte order mark": ("t.csv", b"text,label\na,x\n\xef\xbb\xbftext,label\nc,y\n",
        ":3: the header stands here again"),
    "integers among words": ("t.jsonl", lines(*GOOD, B), ":3: the label is 1, but"),
    "a late change of type": ("t.jsonl", late, ":20001: the label is 'pos', but"),
    "label_text contradicts": ("t.jsonl", lines({**A, "label_text": "no"}, B, {**A, "label_text": "yes"}),
        ":3: label 0 is called 'yes'"),
    "label_text twice": ("t.jsonl", lines({**A, "label_text": "no"}, {**B, "label_text": "no"}),
        ":2: labels 0 and 1 are both called"),
    "label_text no text": ("t.jsonl", lines(A, {**B, "label_text": 5}), ":2: label_text is an integer"),
    "label_text NA": ("t.csv", b"text,label,label_text\na,0,no\nb,1,NA\n", ":3: label_text is 'NA', which says that"),
    "one class": ("t.jsonl", lines(A, A), ":1: task 't' has only the class 0"),
    # columns
    "text and a pair": ("t.csv", b"text,text_a,text_b,label\na,b,c,x\n", ":2: has 'text', 'text_a', 'text_b'"),
    "two columns that could be the text": ("t.csv", b"title,body,label\na,b,x\n",
        ":2: no column 'text' for our `text`; "
        "found 'title', 'body', 'label'; 'title' and 'body' could both be the text: say which with --columns text=…"),
    "two columns called nearly so": ("t.jsonl", lines({"text1": "a", "text2": "b", "label": 0}),
        ":1: no column 'text' for our `text`; found 'text1', 'text2', 'label'; 'text"),
    "no text column": ("t.csv", b"texts,label\na,x\n",
        ":2: no column 'text' for our `text`; found 'texts', 'label'; did you mean 'texts'? then say --columns text="),
    "no label column": ("t.csv", b"text,klass\na,x\n",
        ":2: no column 'label' for our `label`; found 'text', 'klass'; name yours with --columns label=…"),
    "column twice": ("t.csv", b"text,label,text\na,x,b\n", ":1: the column 'text' stands twice"),
    "column twice in Parquet": ("t.parquet", twice, ": the column 'text' stands twice"),
    "one score": ("t.jsonl", lines(*[{"text_a": "a", "text_b": "b", "score": 2.5}] * 2), "has only the score 2.5"),
    "a score in words": ("t.jsonl", lines({"text": "a", "score": 1}, {"text": "b", "score": "much"}),
                         ":2: the score is 'much'; write a number"),
    "a score that is none": ("t.jsonl", b'{"text": "a", "score": 1}\n{"text": "b", "score": NaN}\n',
                             ":2: the score is nan"),
    "a score left out": ("t.csv", b"text,score\na,1\nb,\n", ":3: the score is ''; write a number"),
    "no question": ("t.jsonl", lines({"text": "a", "choices": ["b", "c"], "answer": 0}),
                    ":1: no column 'question' for our `question`"),
    "one choice": ("t.jsonl", lines({"question": "a", "choices": ["b"], "answer": 0}), ":1: the choices are ('b',)"),
    "choices that are equal": ("t.jsonl", lines({"question": "a", "choices": ["b", "b"], "answer": 0}),
                               ":1: the choices are ('b', 'b')"),
    "choices in one text": ("t.jsonl", lines({"question": "a", "choices": "b, c", "answer": 0}),
                            ":1: 'choices' is 'b, c'; write a list"),
    "an answer beyond": ("t.jsonl", lines({"question": "a", "choices": ["b", "c"], "answer": 2}),
                         ":1: the answer is 2; write a number from 0 to 1"),
    "an answer that no choice has": ("t.jsonl", lines({"question": "a", "choices": ["b", "c"], "answer": "d"}),
                                     ":1: the answer is 'd'"),
    "labels in one text": ("t.jsonl", lines({"text": "a", "labels": "b"}), ":1: the labels are 'b'; write a list"),
    "a label twice in a row": ("t.jsonl", lines({"text": "a", "labels": ["b", "b"]}), ":1: the labels ('b', 'b')"),
    "labels that are numbers": ("t.jsonl", lines({"text": "a", "labels": [1]}), ":1: 'labels' holds an integer"),
    "no labels at all": ("t.jsonl", lines({"text": "a", "labels": []}), "has a label to train on"),
    "a list that is cut": ("t.csv", b'text,labels\na,"[""b"\n', ":2: 'labels' begins like a list"),
    "tags too few": ("t.jsonl", lines({"tokens": ["a", "b"], "tags": ["O"]}), ":1: has 1 tags for 2 words"),
    "tags that are numbers": ("t.jsonl", lines({"tokens": ["a"], "tags": [0]}), ":1: 'tags' holds an integer"),
    "a word with a space": ("t.jsonl", lines({"tokens": ["a b"], "tags": ["O"]}), ":1: the word 'a b' is empty or"),
    "no entity at all": ("t.jsonl", lines({"tokens": ["a"], "tags": ["O"]}), "has a label to train on"),
    "two answers": ("t.jsonl", lines({"text": "a", "score": 1, "labels": ["b"]}),
                    ":1: has 'labels', 'score', each an answer of its own"),
    # files
    "empty file": ("t.jsonl", b"", ": has no rows"),
    "only a header": ("t.csv", b"text,label\n", ": has no rows"),
    "Parquet without rows": ("t.parquet", table(text=[], label=[]), ": has no rows"),
    "another ending": ("t.xls", FEW, ": files ending in '.xls' are not read; use .jsonl, .csv, .parquet"),
    "absent": ("t.csv", lambda path: None, "t.csv': no file or folder here"),
    "pipe": ("t.jsonl", os.mkfifo, ": is a pipe or device"),
    "pipe beside a task": ("tasks", beside_a_pipe, "/b.jsonl: is a pipe or device"),
    "device": ("/dev/zero", lambda path: None, ": is a pipe or device"),
    "link to itself": ("t.jsonl", lambda path: path.symlink_to(path), ": cannot be read (Too many levels"),
    "link to nothing": ("t.jsonl", lambda path: path.symlink_to(path.with_name("no")),
        ": cannot be read (No such file"),
    "unreadable": ("t.jsonl", unreadable, ": cannot be read (Permission denied)"),
    # folders
    "folder instead of a file": ("t.jsonl", {}, ": holds no task but nothing"),
    "empty folder": ("tasks", {}, ": holds no task but nothing"),
    "folder without tasks": ("tasks", {"readme.txt": b""}, ": holds no task but readme.txt"),
    "folder of a table": ("tasks", {"a.jsonl": FEW, "b.xls": FEW}, "/b.xls: files ending in '.xls'"),
    "links in a circle": ("tasks", circle, "/deep/up: links back to a folder that holds it"),
    "a link to itself beside tasks": ("tasks", beside_a_link, "/self: cannot be read (Too many levels"),
    "a bottomless folder": ("tasks", lambda path: os.makedirs(path.joinpath(*"d" * 40)),
        "d: lies more than 30 folders"),
    "no training rows": ("t", {"test.jsonl": FEW}, ": has no training rows"),
    "two train files": ("t", {"train.jsonl": FEW, "train.csv": b""}, "/train.csv: train.jsonl beside it holds 'train'"),
    "a split by another name": ("t", {"train.jsonl": FEW, "dev.jsonl": FEW}, "/dev.jsonl: beside train this has to be"),
    "two tasks of one name": ("tasks", {"t.jsonl": FEW, "t.csv": FEW},
        "/t.jsonl: t.csv beside it is also the task 't'"),
    "a label never seen in training": ("t", {"train.jsonl": FEW, "test.jsonl": lines({"text": "c", "label": "so so"})},
        "/test.jsonl:1: label 'so so' of 'test' is not among the training rows"),
    "another kind of label in the test": ("t", {"train.jsonl": FEW, "test.jsonl": lines(A)},
        "/test.jsonl:1: the label is 0, but"),
    "pairs in the test": ("t", {"train.jsonl": FEW, "test.jsonl": lines({"text_a": "a", "text_b": "b",
        "label": "bad"})},
        "/test.jsonl:1: has text_a and text_b, but"),
    "duplicates across support and query": ("t", {"train.jsonl": FEW, "test.jsonl": lines({"text": "c", "label": "bad"},
        {"text": " What a DAY", "label": "good"})}, "/test.jsonl:2: this row of 'test' stands also in 'train'"),
    "a label never seen in the support sets": ("t", {"train_1shot_0.jsonl": FEW, "test.jsonl": lines(A)},
        "/test.jsonl:1: the label is 0, but"),
    "support sets without a test": ("t", {"train_1shot_0.jsonl": FEW}, ": has support sets but no test.jsonl"),
    # names
    "a control character in the name": ("t\x1b[31m.jsonl", FEW, "task name 't\\x1b[31m'"),
    "a name that turns the line": ("t\u202etxt.jsonl", FEW, "task name 't\\u202etxt'"),
    "a line break in the name": ("t\nu.jsonl", b"", "task name 't\\nu'"),
    "a name of 240 characters": ("x" * 240 + ".jsonl", FEW, "is not usable; use 1 to 200 characters"),
    "a name of 300 characters": ("x" * 300 + ".jsonl", lambda path: None, "no file or folder here"),
}  # fmt: skip
ROOT_MAY = {"unreadable"}

# The name of the source, its bytes, and the texts that it gives.
ACCEPTED: dict[str, tuple[str, bytes, list[str]]] = {
    "byte order mark": ("t.jsonl", b"\xef\xbb\xbf" + FEW, ["what a day", "never again"]),
    "CRLF": ("t.jsonl", FEW.replace(b"\n", b"\r\n"), ["what a day", "never again"]),
    "both in CSV": ("t.csv", b"\xef\xbb\xbftext,label\r\na,x\r\nb,y\r\n", ["a", "b"]),
    "no line end at the end": ("t.csv", b"text,label\na,x\nb,y", ["a", "b"]),
    "NA is a text": ("t.csv", b"text,label\nNA,x\nnull,y\n", ["NA", "null"]),
    "none is a class": ("t.csv", b"text,label\na,none\nb,None\n", ["a", "b"]),
    "ids are not read, the same or not": ("t.csv", b"id,text,label\n7,a,x\n7,b,y\n", ["a", "b"]),
    "a comma in the name": ("a, b.jsonl", FEW, ["what a day", "never again"]),
    "CON": ("CON.jsonl", FEW, ["what a day", "never again"]),
    "right to left": ("שלום.csv", "text,label\nשלום עולם,כן\nلا,לא\n".encode(), ["שלום עולם", "لا"]),
    "emoji": ("👩‍💻.csv", "text,label\n👍🏽,🎉\nb,y\n".encode(), ["👍🏽", "b"]),
}  # fmt: skip


def one_line(said: str) -> str:
    assert said.count("\n") == 1, said
    assert said.endswith("\n")
    assert "Traceback" not in said
    return said.removesuffix("\n")


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """What stands below a folder: size and time of the last change by path."""
    found = [path for path in folder.rglob("*") if path.name != ".lock"]
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in found}


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """`metanlp`, or a recipe, in this process and in an empty folder: exit code, standard output, standard error."""
    monkeypatch.delenv("METANLP_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def started(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", list(map(str, words)))
        code: Any = 0
        capsys.readouterr()
        try:
            if words[0] == "metanlp":
                main()
            else:
                runpy.run_path(str(ROOT / "recipes" / str(words[0])), run_name="__main__")
        except SystemExit as ended:
            code = ended.code
        out, said = capsys.readouterr()
        return code, out, said

    return started


def refused(run: Run, folder: Path, *words: object) -> str:
    """The line that a command ends with that has to be refused, at once and without a trace."""
    before, begun = everything(folder), time.perf_counter()
    code, out, said = run(*words)
    seconds = time.perf_counter() - begun
    assert (code, out) == (2, ""), said
    assert seconds < SLOWEST
    assert everything(folder) == before
    return one_line(said)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, run: Run, tmp_path: Path) -> None:
    if case in ROOT_MAY and os.geteuid() == 0:
        pytest.skip("root may read every file")
    name, content, part = REFUSED[case]
    path = tmp_path / name
    put(path, content)
    with pytest.raises(InputError) as caught:
        read(str(path), data_root=None)
    message = str(caught.value)
    assert (f"{shown(path)}{part}" if part[0] in ":/" else part) in message
    assert "; " in message or "?" in message, "what to do"
    assert refused(run, tmp_path, "metanlp", "tasks", path) == message


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted_and_clean(case: str, run: Run, tmp_path: Path) -> None:
    name, content, texts = ACCEPTED[case]
    put(tmp_path / name, content)
    (task,) = read(str(tmp_path / name), data_root=None)
    assert [row["text"] for row in task.pools["train"]] == texts
    assert len(task.labels) == 2
    code, out, said = run("metanlp", "tasks", tmp_path / name)
    assert (code, said) == (0, "")
    assert task.name in out


def test_the_table_is_long_enough() -> None:
    assert len(REFUSED) >= 40


# Commands that need a model.


@pytest.fixture(scope="module")
def models(net: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A learner, and what it becomes for a task with the labels delivery and payment."""
    folder = tmp_path_factory.mktemp("models")
    learner = Learner(Frozen(), net, Frozen().init(net, torch.Generator().manual_seed(0)))
    learner.save(folder / "learner")
    learner.adapt([("where is my parcel", "delivery"), ("refund me", "payment")]).save(folder / "adapted")
    return folder


ADAPT = "metanlp adapt --from {models}/learner --base {tiny} --out out --examples"
PREDICT = "metanlp predict --from {models}/adapted --base {tiny} --out out.csv"
GLUE = "maml_glue.py --model {tiny} --steps 2 --threads 1 --validation mini/politeness"
EVALUATE = "metanlp evaluate --from {models}/learner --base {tiny} --test"
OWN = "custom_tasks.py --model {tiny} --texts texts.txt --out out --tasks"
TWO = {"good.jsonl": EIGHT, "new.jsonl": lines(A, B)}
UNSEEN = lines({"text": "where", "label": "delivery"}, {"text": "x", "label": None}, {"text": "y", "label": "refund"})
BODY = b"body,intent\na,x\nb,y\n"

# The command, the files that it finds, and what the line says. The folder `used` is held by another run.
COMMANDS: dict[str, tuple[str, dict[str, Content], str]] = {
    "predict: a label never seen": (f"{PREDICT} t.jsonl", {"t.jsonl": UNSEEN},
        "t.jsonl:3: the label 'refund' was never seen by this model, which knows 'delivery', 'payment'"),
    "predict: a label nearly seen": (f"{PREDICT} t.csv", {"t.csv": b"text,label\na,NA\nb,-1\nc,paymnt\n"},
        "t.csv:4: the label 'paymnt' was never seen by this model, which knows 'delivery', 'payment'; mend it, or "
        "remove the column; did you mean 'payment'?"),
    "predict: a number never seen": (f"{PREDICT} t.parquet", {"t.parquet": table(text=["a"], label=[4])},
        "t.parquet: row 1: the label '4' was never seen"),
    "predict: latin-1": (f"{PREDICT} t.txt", {"t.txt": b"a\ncaf\xe9\n"}, "t.txt:2: byte 0xe9 at place 4 is not UTF-8"),
    "predict: UTF-16": (f"{PREDICT} t.txt", {"t.txt": "a\nb\n".encode("utf-16")}, "t.txt:1: byte 0xff"),
    "predict: NUL": (f"{PREDICT} t.txt", {"t.txt": b"a\nb\0\n"}, "t.txt:2: holds a NUL"),
    "predict: blank line": (f"{PREDICT} t.txt", {"t.txt": b"a\n\nb\n"}, "t.txt:2: the line is blank"),
    "predict: a line of 30 MB": (f"{PREDICT} t.txt", {"t.txt": long(30)}, "t.txt:2: the line is longer"),
    "predict: old Mac line ends": (f"{PREDICT} t.txt", {"t.txt": b"a\rb\r"}, "t.txt:1: holds a carriage return inside"),
    "predict: empty file": (f"{PREDICT} t.txt", {"t.txt": b""}, "t.txt: has no rows; give at least one text"),
    "predict: a blank text": (f"{PREDICT} t.ndjson", {"t.ndjson": b'{"text": "a"}\n{"text": ""}\n'},
        "t.ndjson:2: 'text' is empty"),
    "predict: a workbook": (f"{PREDICT} t.xls", {"t.xls": b"PK"}, "t.xls: files ending in '.xls' are not read"),
    "predict: no column in TSV": (f"{PREDICT} t.tsv", {"t.tsv": b"body\tn\na, b\t1\n"}, "t.tsv:2: no column 'text'"),
    "columns: null in a joined column": (f"{ADAPT} t.jsonl --columns text=a+b",
        {"t.jsonl": lines({"a": "x", "b": "y", "label": 0}, {"a": None, "b": "dead", "label": 1})},
        "t.jsonl:2: 'a' is null; every row needs a text there, to be joined"),
    "columns: NaN in a joined column": ("metanlp tasks t.parquet --columns text=a+b",
        {"t.parquet": table(a=["x", "y"], b=[1.0, float("nan")], label=[0, 1])}, "t.parquet: row 2: 'b' is NaN"),
    "predict: folder": (f"{PREDICT} t", {"t": {}}, "t: is a folder where a file is wanted"),
    "predict: pipe": (f"{PREDICT} t.txt", {"t.txt": os.mkfifo}, "t.txt: is a pipe or device"),
    "predict: two texts": (f"{PREDICT} t.csv", {"t.csv": b"title,body\na,b\n"},
        "t.csv:2: no column 'text' for our `text`; found 'title', 'body'; 'title' and 'body' could both be the text"),
    "predict: cut list": (f"{PREDICT} t.json", {"t.json": b'[{"text": "a"},\n {"text": "b"'},
        "t.json:2: is not valid JSON (Expecting ',' delimiter at place 14)"),
    "predict: list of numbers": (f"{PREDICT} t.json", {"t.json": b'[{"text": "a"}, 2]'},
        "t.json: item 2: is an integer"),
    "predict: an ending to write": ("metanlp predict --from {models}/adapted t.txt --out out.xml", {"t.txt": b"a\n"},
        "--out out.xml: predictions are written as .csv or .jsonl"),
    "adapt: empty folder": (f"{ADAPT} t", {"t": {}}, "t: has no training rows"),
    "adapt: one class": (f"{ADAPT} t.csv", {"t.csv": b"text,label\na,x\nb,x\n"},
        "t.csv:2: task 't' has only the class 'x'"),
    "adapt: one review": (f"{ADAPT} t.csv", {"t.csv": b"text,label\nsuperb blender,positive\n"},
        "t.csv:2: task 't' has only the class 'positive' to train on; give rows of two classes or more"),
    "adapt: a source without a target": (f"{ADAPT} t.csv", {"t.csv": b"source,target\na,b\nc,\n"},
        "t.csv:3: has a source without a target; add it, or remove the row"),
    "adapt: a language without the other": (f"{ADAPT} t.csv", {"t.csv": b"source,target,source_lang\na,b,en\n"},
        "t.csv:2: has no language tag 'target_lang'"),
    "adapt: a label missing": (f"{ADAPT} t.csv", {"t.csv": b"text,label\na,x\nb,\n"}, "t.csv:3: the label is blank"),
    "adapt: output folder in use": (f"{ADAPT.replace('--out out', '--out used')} t.jsonl", {"t.jsonl": FEW},
        "used is in use by process"),
    "columns: a role that is none": (f"{ADAPT} t.csv --columns txt=body,label=intent", {"t.csv": BODY},
        "columns: 'txt' is no column of ours; allowed: text, text_a, text_b, label, label_text, tokens, tags,"),
    "columns: not there": (f"{ADAPT} t.csv --columns text=bdy,label=intent", {"t.csv": BODY},
        "t.csv:2: no column 'bdy' for our `text`; found 'body', 'intent'; did you mean 'body'? then say"),
    "columns: label not there": ("metanlp tasks t.csv --columns text=body,label=intend", {"t.csv": BODY},
        "t.csv:2: no column 'intend' for our `label`; found 'body', 'intent'; did you mean 'intent'?"),
    "columns: label_text not there": ("metanlp tasks t.csv --columns text=body,label=intent,label_text=word",
        {"t.csv": BODY}, "t.csv:2: no column 'word' for our `label_text`"),
    "columns: not in Parquet": ("metanlp tasks t.parquet --columns text=bodi",
        {"t.parquet": table(body=["a"], label=["x"])},
        "t.parquet: row 1: no column 'bodi' for our `text`; found 'body', 'label'; did you mean 'body'?"),
    "columns: no equals sign": (f"{PREDICT} t.csv --columns body", {"t.csv": BODY},
        "--columns 'body' is not of the form"),
    "columns: twice": (f"{PREDICT} t.csv --columns text=body,text=intent", {"t.csv": BODY},
        "--columns names `text` twice"),
    "columns: one for two": (f"{PREDICT} t.csv --columns text=body,label=body", {"t.csv": BODY},
        "'body' would be `text`"),
    "columns: text and a pair": (f"{PREDICT} t.csv --columns text=a,text_b=b", {"t.csv": BODY},
        "name `text` alone, or"),
    "columns of a recipe": (f"{GLUE} --data t.csv --test mini/urgency --columns text=bdy", {"t.csv": BODY},
        "t.csv:2: no column 'bdy' for our `text`"),
    "train: too few rows": (f"{GLUE} --data t.jsonl --test mini/urgency", {"t.jsonl": FEW},
        "task 't' has {'bad': 1, 'good': "
        "1} different rows a class in t.jsonl, but 4 shots and 1 query row need 5 in at least two classes; add rows"),
    "test: too few rows": (f"{GLUE} --data mini/emotions --test t.jsonl", {"t.jsonl": FEW},
        "no test task can give any of [4, 8, 16] shots: task 't' (t.jsonl): its smallest class has 1 rows; lower"),
    "train: duplicates across support and query": (f"{GLUE} --data t --test mini/urgency",
        {"t": {"train.jsonl": EIGHT, "test.jsonl": lines({"text": "c", "label": "bad"}, {"text": "BAD 3",
        "label": "bad"})}},
        "t/test.jsonl:2: this row of 'test' stands also in 'train', t/train.jsonl:12; remove one of the two"),
    "train: empty folder": (f"{GLUE} --data t --test mini/urgency", {"t": {}}, "t: holds no task but nothing"),
    "train: output folder in use": (f"{GLUE} --data mini --test mini --out used", {}, "used is in use by process"),
    "train: the home of nobody": (f"{GLUE} --data ~nobody-of-that-name/t.csv --test mini", {},
        "no file or folder here"),
    "train: a name with a way out": (f"{GLUE} --data mini/../x --test mini", {}, "no tasks called 'mini/../x'"),
    "evaluate: too few shots": (f"{EVALUATE} t", {"t": {"train_1shot_0.jsonl": FEW, "test.jsonl": lines(*GOOD)}},
        "no test task can give any of [4, 8, 16] shots: task 't' (t): its support sets are for [1] shots"),
    "own tasks: too few rows": (f"{OWN} t --new good", {"t": TWO, "texts.txt": b"a\n"},
        "task 'new' has {'0': 1, '1': 1} different rows a class in new.jsonl, but 4 shots"),
    "own tasks: output folder in use": (f"{OWN.replace('--out out', '--out used')} t --new new",
        {"t": TWO, "texts.txt": b"a\n"}, "used is in use by process"),
    "own tasks: a name with a way out": (f"{OWN} t --new ../x", {"t": TWO},
        "no task is called '../x'; there are good, new"),
    "own tasks: bad texts": (f"{OWN} t --new new", {"t": TWO, "texts.txt": b"a\n\nb\n"},
        "texts.txt:2: the line is blank"),
}  # fmt: skip


@pytest.mark.parametrize("case", COMMANDS)
def test_commands_refuse(case: str, run: Run, models: Path, tiny: Path, tmp_path: Path) -> None:
    words, sources, part = COMMANDS[case]
    for name, content in sources.items():
        put(tmp_path / name, content)
    with lock(tmp_path / "used") if "used" in words else nullcontext():
        said = refused(run, tmp_path, *(word.format(models=models, tiny=tiny) for word in words.split()))
    assert part in said


def test_bad_input_costs_nothing_of_an_earlier_run(run: Run, models: Path, tiny: Path, tmp_path: Path) -> None:
    put(tmp_path / "out", {path.name: path.read_bytes() for path in (models / "learner").iterdir()} | {".lock": b""})
    words = GLUE.format(tiny=tiny).split()
    assert "no tasks called" in refused(
        run, tmp_path, *words, "--data", "mini/emotion", "--test", "mini", "--out", "out", "--replace"
    )
    assert Learner.load(tmp_path / "out", base=str(tiny)).algorithm == Frozen()


def test_standard_input_that_is_closed(
    run: Run, models: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    words = PREDICT.format(models=models, tiny=tiny).split()
    assert "standard input is closed" in refused(run, tmp_path, *words)


# A fresh process: what is said of a model's name with a typo where nothing is cached, and how much memory is taken.

TIMED = """
import contextlib, io, json, runpy, sys, time
import metanlp.experiment.run
from metanlp.cli.commands import main
for words in json.loads(sys.argv[1]):
    sys.argv, said, begun = words, io.StringIO(), time.perf_counter()
    with contextlib.redirect_stderr(said):
        try:
            code = main() if words[0] == "metanlp" else runpy.run_path(words[0], None, "__main__")
        except SystemExit as ended:
            code = ended.code
    print(json.dumps([code, said.getvalue(), time.perf_counter() - begun]), flush=True)
"""


@pytest.mark.slow
def test_a_models_name_with_a_typo_offline(models: Path, tmp_path: Path) -> None:
    put(tmp_path / "t.jsonl", EIGHT)
    put(tmp_path / "texts.txt", b"a\n")
    put(tmp_path / "tasks", {"good.jsonl": EIGHT, "new.jsonl": FEW})
    before = everything(tmp_path)
    typo = "'bert-base-uncasd' could not be loaded"
    commands = {
        "metanlp adapt --from {models}/learner --base bert-base-uncasd --out out --examples t.jsonl": typo,
        "metanlp predict --from {models}/adapted --base bert-base-uncasd texts.txt": typo,
        "{recipes}/maml_glue.py --model bert-base-uncasd --data t.jsonl --test mini/urgency --steps 2 --out out": typo,
        "{recipes}/custom_tasks.py --model bert-base-uncasd --tasks tasks --new new --texts texts.txt --out out": typo,
        "metanlp predict --from {models}/adapted texts.txt": "--base",  # the model of that learner is not here
    }
    words = [text.format(models=models, recipes=ROOT / "recipes").split() for text in commands]
    cache = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(models / "no cache"), "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", TIMED, json.dumps(words)], env=os.environ | cache, cwd=tmp_path, capture_output=True,
        text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    for (code, said, seconds), part in zip(found, commands.values(), strict=True):
        assert code == 2
        assert part in one_line(said)
        assert seconds < SLOWEST
    assert everything(tmp_path) == before


def peak_of(*words: object) -> tuple[str, float]:
    """What a refused command says, and the largest resident size of its process, in MB.

    VmHWM and not ru_maxrss, which a child takes over from the process that started it."""
    code = """
import sys
from metanlp.cli.commands import main
try:
    main()
finally:
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(line.split()[1])
"""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 2
    return one_line(ended.stderr), int(ended.stdout) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
@pytest.mark.parametrize(
    ("name", "start", "unit", "part"),
    [
        ("t.jsonl", lines(A) + START, b"x" * 1000, ":2: the line is longer"),
        ("t.csv", b"text,label\na,x\n", b"x" * 1000, ":3: the line is longer"),
        ("t.csv", b'text,label\na,x\n"', b"x" * 99 + b"\n", ":3: a cell is longer than 131,072 characters"),
        ("t.txt", b"a\n", b"x" * 1000, ":2: the line is longer"),
        ("t.json", b'[{"text": "', b"x" * 1000, ": a JSON list may have"),
    ],
)
def test_a_gigabyte_takes_little_memory(
    name: str, start: bytes, unit: bytes, part: str, models: Path, tiny: Path, tmp_path: Path
) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(start)
        for _ in range(1000):
            file.write(unit * (1_000_000 // len(unit)))
    reads_lines = path.suffix in (".txt", ".json")
    predict = ["predict", "--from", models / "adapted", "--base", tiny]
    said, peak = peak_of(*(predict if reads_lines else ["tasks"]), path)
    path.unlink()
    assert f"{path}{part}" in said
    assert peak < 500


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_parquet_that_unpacks_to_too_much(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    cells = arrow.array(["x" * (GROUP_LIMIT + 1), "y"])
    parquet.write_table(arrow.table({"text": cells, "label": ["a", "b"]}), path, compression="zstd")
    assert path.stat().st_size < 1_000_000
    said, peak = peak_of("tasks", path)
    assert f"{path}: a row group of" in said
    assert peak < 500
