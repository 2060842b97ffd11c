"""Files whose columns have other names: `--columns text=body,label=intent`, from Python a mapping."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import torch

from metanlp.algorithms import Frozen
from metanlp.backbone import Backbone
from metanlp.cli.commands import main
from metanlp.core.errors import InputError
from metanlp.learner.learner import Learner
from metanlp.tasks.index.build import build_index
from metanlp.tasks.reading.build import task_from_rows
from metanlp.tasks.reading.columns import nearest, parse_columns
from metanlp.tasks.reading.files import read_task, read_texts
from metanlp.tasks.roles import read_roles
from metanlp.tasks.taskset import TaskSet, read

COLUMNS = {"text": "body", "label": "intent"}
ROWS: list[dict[str, Any]] = [
    {"id": 1, "text": "noise", "body": "where is my parcel", "intent": "delivery", "label": "x"},
    {"id": 2, "text": "noise", "body": "refund me", "intent": "payment", "label": "x"},
]
ENDINGS = (".csv", ".jsonl", ".parquet")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(arrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    ("option", "columns"),
    [
        ("", None),
        (" , ", None),
        ("text=body", {"text": "body"}),
        (" text=the body, label=intent,", {"text": "the body", "label": "intent"}),
        ("label= label", {"label": " label"}),
        ("text_a=q=1,text_b=a", {"text_a": "q=1", "text_b": "a"}),
        ("text=label,label=text", {"text": "label", "label": "text"}),
    ],
)
def test_parsed(option: str, columns: dict[str, str] | None) -> None:
    assert parse_columns(option) == columns


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("body", "--columns 'body' is not of the form name=column"),
        ("text=", "--columns 'text=' is not of the form"),
        ("=body", "--columns '=body' is not of the form"),
        ("lables=x", "'lables' is no column of ours; allowed: text, text_a, text_b, label, label_text, tokens, tags,"),
        ("text=a,text=b", "names `text` twice, 'a' and 'b'"),
        ("text=a,text_b=b", "name `text` alone, or `text_a` with `text_b`"),
        ("text=a,label=a", "'a' would be `text` and `label` at once"),
        ("text=label", "'label' would be `text` and `label` at once"),
        ("text=body|", "--columns 'text=body|' is not of the form"),
        ("text_b=text_a", "'text_a' would be `text_a` and `text_b` at once"),
    ],
)  # fmt: skip
def test_refused(option: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_columns(option)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format(ending: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"t{ending}", ROWS)
    task = read_task(path, columns=COLUMNS)
    assert [row["text"] for row in task.pools["train"]] == ["where is my parcel", "refund me"]
    assert task.labels == ("delivery", "payment")
    assert [row["text"] for row in read_texts(path, columns={"text": "body"})] == ["where is my parcel", "refund me"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_one_of_a_pair_may_be_named(ending: str, tmp_path: Path) -> None:
    rows = [{"text_a": "p", "hypothesis": f"h{n}", "text": "noise", "label": n} for n in (0, 1)]
    task = read_task(write(tmp_path / f"t{ending}", rows), columns={"text_b": "hypothesis"})
    assert task.pools["train"][1] == {"text_a": "p", "text_b": "h1", "label": 1}


def test_the_words_may_be_the_label(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": 7, "label_text": word} for n, word in enumerate(("no", "yes"))]
    assert read_task(write(tmp_path / "t.csv", rows), columns={"label": "label_text"}).labels == ("no", "yes")


def test_integers_of_a_renamed_column(tmp_path: Path) -> None:
    rows = [{"body": "a", "stars": 10, "word": "ten"}, {"body": "b", "stars": 9, "word": "nine"}]
    for ending in ENDINGS:
        path = write(tmp_path / f"t{ending}", rows)
        assert read_task(path, columns={"text": "body", "label": "stars"}).labels == ("9", "10")
        named = {"text": "body", "label": "stars", "label_text": "word"}
        assert read_task(path, columns=named).labels == ("nine", "ten")


def test_a_mixed_folder(tmp_path: Path) -> None:
    for number, ending in enumerate(ENDINGS):
        write(tmp_path / f"{number}{ending}", ROWS)
    write(tmp_path / "split" / "train.csv", ROWS)
    write(tmp_path / "few" / "train_1shot_0.jsonl", ROWS)
    write(tmp_path / "few" / "test.jsonl", [{**ROWS[0], "body": "it never came"}])
    tasks = TaskSet.from_files(tmp_path, columns=COLUMNS)
    assert tasks.names == ("0", "1", "2", "few", "split")
    assert {task.labels for task in tasks.tasks} == {("delivery", "payment")}
    (test,) = tasks.tasks[3].pools["test"]
    assert test["text"] == "it never came"


HEADERS = (("body", "intent"), ("MESSAGE", "Team"), ("text", "label"), (" Text", "Kind of ticket"))


def of_other_headers(folder: Path) -> Path:
    """Files with a header each, all read by one option."""
    for number, (text, label) in enumerate(HEADERS):
        rows = [{text: f"{word} {n} is meant in file {number}", label: ("one", "two")[n % 2]}
                for n, word in enumerate(("first", "second", "third", "fourth", "fifth", "sixth"))]  # fmt: skip
        write(folder / f"{number}.csv", rows)
    return folder


def test_files_of_one_folder_may_have_other_headers_each(tmp_path: Path) -> None:
    folder, option = (
        of_other_headers(tmp_path / "mixed"),
        "text=body|MESSAGE|text,label=intent|Team|label|Kind of ticket",
    )
    for columns in (None, {"text": "body", "label": "intent"}, {"label": "Team"}):
        for refuse in (TaskSet.from_files, build_index):
            with pytest.raises(
                InputError, match=r"no column .* for our `\w+`; of all files in \S+ did you mean"
            ) as caught:
                refuse(folder, columns)
            (told,) = re.findall(r"--columns '(.*)'\?$", str(caught.value))
            assert len(TaskSet.from_files(folder, parse_columns(told)).tasks) == 4
    tasks = TaskSet.from_files(folder, parse_columns(option)).tasks
    assert [task.pools["train"][0]["text"] for task in tasks] == [f"first 0 is meant in file {n}" for n in range(4)]
    build_index(folder, parse_columns(option))
    assert [task.labels for task in TaskSet.from_files(folder, parse_columns(option)).tasks] == [("one", "two")] * 4
    with pytest.raises(InputError, match=r"was indexed with --columns 'text=body\|MESSAGE"):
        TaskSet.from_files(folder)


def test_nothing_is_chosen_between_two_columns_of_one_file(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", ROWS)
    with pytest.raises(InputError, match=r"t.csv:2: 'body', 'text' could each be the `text` of --columns; name one"):
        read_task(path, columns=parse_columns("text=text|body,label=intent"))
    found = read_task(path, columns=parse_columns("text=body|subject+body,label=team|intent"))
    assert found.labels == ("delivery", "payment")
    (tmp_path / "unclear").mkdir()
    write(tmp_path / "unclear" / "a.csv", [{"a": "x", "b": "y"}, {"a": "z", "b": "y"}])
    write(tmp_path / "unclear" / "b.csv", ROWS)
    with pytest.raises(InputError, match=r"a.csv:2: .*; 'a' and 'b' could both be the text: say which"):
        TaskSet.from_files(tmp_path / "unclear")


def test_published_sets_keep_their_names(tmp_path: Path) -> None:
    cola = [{"text": f"t{n}", "label": n, "label_text": word} for n, word in enumerate(("unacceptable", "acceptable"))]
    write(tmp_path / "glue" / "cola" / "train.jsonl", cola)
    mine = write(tmp_path / "mine.csv", ROWS)
    for names in (f"glue,{mine}", f"glue/cola,{mine}", f"{tmp_path / 'glue'},{mine}"):
        found = read(names, data_root=tmp_path, columns=COLUMNS)
        assert [task.name for task in found] == ["glue/cola", "mine"]
    roles = read_roles(str(mine), "mini", "mini/urgency", None, COLUMNS)
    assert roles.train[0].labels == ("delivery", "payment")


def test_from_python(net: Backbone) -> None:
    rows = [{"body": row["body"], "intent": row["intent"]} for row in ROWS]
    assert task_from_rows("t", rows, columns=COLUMNS).labels == ("delivery", "payment")
    learner = Learner(Frozen(), net, Frozen().init(net, torch.Generator().manual_seed(0)))
    assert learner.adapt(rows, columns=COLUMNS).labels == ("delivery", "payment")
    bodies = [{"body": f"what was said about it, {n}", "intent": "ab"[n % 2]} for n in range(6)]
    with pytest.raises(InputError, match=r"then say columns=\{'text': 'body', 'label': 'intent'\}$"):
        learner.adapt(bodies)
    with pytest.raises(InputError, match="examples: row 2: 'body' is NaN; every row needs a text there"):
        learner.adapt([bodies[0], {**bodies[1], "body": float("nan")}], columns=COLUMNS)
    with pytest.raises(InputError, match=r"examples: row 1: no column 'body' for our `text`; found 'text', 'intent'"):
        learner.adapt([{"text": "a", "intent": "b"}], columns=COLUMNS)


@pytest.mark.parametrize("ending", ENDINGS)
def test_commands(
    ending: str,
    net: Backbone,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*words: object) -> str:
        monkeypatch.setattr("sys.argv", ["metanlp", *map(str, words)])
        main()
        out, said = capsys.readouterr()
        assert said.startswith("accuracy ") if words[0] == "predict" and path in words else said == ""
        return out

    learner = Learner(Frozen(), net, Frozen().init(net, torch.Generator().manual_seed(0)))
    learner.save(tmp_path / "learner")
    path = write(tmp_path / f"tickets{ending}", ROWS)
    option = ["--columns", "text=body,label=intent"]
    assert "tickets" in run("tasks", path, *option)
    model = ["--base", tiny, *option]
    adapted = run("adapt", "--from", tmp_path / "learner", "--examples", path, "--out", tmp_path / "a", *model)
    assert adapted.endswith("adapted to 2 examples of delivery, payment\n")
    out = run("predict", "--from", tmp_path / "a", path, *model)
    told = [json.loads(line) for line in out.splitlines()]
    assert [row["body"] for row in told] == ["where is my parcel", "refund me"]
    assert [(row["text"], row["intent"]) for row in told] == [("noise", row["intent"]) for row in ROWS]
    (tmp_path / "new.txt").write_text("lines have no columns\n")
    assert "lines have no columns" in run("predict", "--from", tmp_path / "a", tmp_path / "new.txt", *model)


def test_no_hint_suggests_the_very_word_that_was_typed() -> None:
    assert nearest("leopard", ("mini", "glue", "leopard")) == ""
    assert nearest("leopart", ("mini", "glue", "leopard")) == "; did you mean 'leopard'?"
