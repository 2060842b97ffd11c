"""LEOPARD and GLUE: fixed supports, label order, what stays out; on small files and on the real ones where they are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from metanlp.core.errors import InputError
from metanlp.core.types import Task
from metanlp.forms import FORMS
from metanlp.tasks.reading.files import read_task, read_tasks
from metanlp.tasks.sources.published import published_in, read_published
from metanlp.tasks.sources.table import BY_NAME, ENTAILMENT, of_source

DATA = os.environ.get("METANLP_DATA")
real_data = pytest.mark.skipif(not DATA, reason="METANLP_DATA does not name the folder of the real data sets")

SPLITS = ("train", "validation")


def write(path: Path, rows: list[dict[str, object]], *, as_list: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows) if as_list else "\n".join(map(json.dumps, rows)))


def support(number: int) -> list[dict[str, object]]:
    return [{"text": f"shared {label}", "label": label} for label in (0, 1)] + [
        {"text": f"row {number} of {label}", "label": label} for label in (0, 1)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (0, 1, 2, 10):
        write(tmp_path / "few" / f"train_2shot_{number}.jsonl", support(number))
    write(tmp_path / "few" / "train_1shot_0.jsonl", support(0)[:2])
    write(tmp_path / "few" / "test.jsonl", [{"text": "Shared  0", "label": 0}, {"text": "fresh", "label": 1}])
    return tmp_path / "few"


def test_supports_stand_in_the_order_of_their_numbers(folder: Path) -> None:
    task = read_task(folder)
    assert list(task.supports) == [1, 2]
    assert [rows[2]["text"] for rows in task.supports[2]] == [f"row {number} of 0" for number in (0, 1, 2, 10)]
    assert (task.name, task.labels) == ("few", ("0", "1"))


def test_train_is_the_union_without_repeats(folder: Path) -> None:
    task = read_task(folder)
    rows = [row for sets in task.supports.values() for rows in sets for row in rows]
    assert {FORMS["classify"].key(row) for row in task.pools["train"]} == {FORMS["classify"].key(row) for row in rows}
    assert len(task.pools["train"]) == len({FORMS["classify"].key(row) for row in rows}) == 10
    assert list(task.pools["train"][:2]) == support(0)[:2]


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize(
    "fields", [("text",), ("sentence",), ("sentence1",), ("text_a", "text_b"), ("sentence1", "sentence2")]
)
def test_published_names_and_keys(tmp_path: Path, fields: tuple[str, ...], as_list: bool) -> None:
    def rows(word: str) -> list[dict[str, object]]:
        return [dict.fromkeys(fields, f"{word} {label}") | {"label": label, "processed_sent": "x"} for label in "ba"]

    for number in range(2):
        write(tmp_path / f"few_c_train_{number}_4.json", rows(str(number)), as_list=as_list)
    write(tmp_path / "few_c_eval.json", rows("eval"), as_list=as_list)
    task = read_task(tmp_path, name="few")
    assert (task.labels, list(task.supports), len(task.supports[4])) == (("a", "b"), [4], 2)
    wanted = {"text": "1 b", "label": 1} if len(fields) == 1 else {"text_a": "1 b", "text_b": "1 b", "label": 1}
    assert task.supports[4][1][0] == wanted
    assert read_tasks(tmp_path)[0].supports == task.supports


def test_leopard_folders_that_are_refused(folder: Path, tmp_path: Path) -> None:
    write(folder / "train.jsonl", support(0))
    with pytest.raises(InputError, match="train file and fixed support sets"):
        read_tasks(folder)
    (folder / "train.jsonl").unlink()
    with pytest.raises(InputError, match=r"train_1shot_0.jsonl:1: no column 'body' for our `text`"):
        read_tasks(folder, columns={"text": "body"})
    (folder / "test.jsonl").unlink()
    with pytest.raises(InputError, match=r"no test\.jsonl"):
        read_tasks(folder)
    with pytest.raises(InputError, match="has no support sets"):
        read_task(tmp_path)


def test_a_bad_row_in_a_list_is_numbered(tmp_path: Path) -> None:
    write(
        tmp_path / "x_train_0_4.json", [{"sentence1": "a", "label": "p"}, {"sentence1": "", "label": "q"}], as_list=True
    )
    write(tmp_path / "x_eval.json", [{"sentence1": "a", "label": "p"}], as_list=True)
    with pytest.raises(InputError, match=r"x_train_0_4\.json: item 2: 'sentence1' is empty"):
        read_task(tmp_path)


def glue_folder(folder: Path, *names: str) -> Path:
    for row in (BY_NAME[f"glue/{name}"] for name in names):
        for split in SPLITS:
            texts = {ours: f"{ours} {split}" for ours in row.columns}
            words = [{"label": number, "label_text": word.replace(" ", "_")} for number, word in enumerate(row.labels)]
            write(folder / row.folder / f"{split}.jsonl", [texts | word for word in words])
    return folder


def test_glue_comes_in_the_order_of_the_table(tmp_path: Path) -> None:
    tasks = read_published(glue_folder(tmp_path, "cola", "wnli", "mnli", "qqp"))
    assert [task.name for task in tasks] == ["glue/mnli", "glue/qqp", "glue/cola", "glue/wnli"]
    assert [task.metric for task in tasks] == ["accuracy", "f1", "matthews", "accuracy"]
    assert tasks[0].labels == ("entailment", "neutral", "contradiction")
    assert {task.source for task in tasks} == {"glue"}
    assert tasks[1].labels == ("not duplicate", "duplicate")


def test_glue_labels_are_known_by_word_or_number(tmp_path: Path) -> None:
    words = [{"text_a": "a", "text_b": "b", "label": word} for word in ("contradiction", "entailment", "neutral")]
    write(tmp_path / "snli" / "train.jsonl", words)
    write(tmp_path / "mnli" / "train.jsonl", [{"text_a": "a", "text_b": "b", "label": number} for number in (0, 1, 2)])
    mnli, snli = read_published(tmp_path)
    assert mnli.labels == snli.labels == ENTAILMENT
    assert [row["label"] for row in snli.pools["train"]] == [2, 0, 1]
    assert [row["label"] for row in mnli.pools["train"]] == [0, 1, 2]


def test_stsb_is_read_by_name_only_and_foreign_labels_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "glue"
    scores: list[dict[str, object]] = [{"text_a": "a", "text_b": t, "score": s} for t, s in (("b", 5), ("c", 0.5))]
    write(folder / "stsb" / "train.jsonl", scores)
    (stsb,) = read_published(folder / "stsb")
    assert (stsb.name, stsb.form, stsb.metric, stsb.scale) == ("glue/stsb", "regress", "pearson", (0.5, 5.0))
    assert [row["score"] for row in stsb.pools["train"]] == [5.0, 0.5]
    assert published_in(tmp_path / "glue") == ()
    write(
        tmp_path / "glue" / "sst2" / "train.jsonl", [{"text": "a", "label": "good"}, {"text": "b", "label": "negative"}]
    )
    with pytest.raises(InputError, match="glue/sst2' has the label 'good'; it may have: 'negative', 'positive'"):
        read_published(folder)


@real_data
def test_real_glue() -> None:
    tasks = read_published(Path(DATA or "") / "glue")
    rows = [row for row in of_source("glue") if row.labels]
    assert [task.name for task in tasks] == [row.name for row in rows]
    for task, row in zip(tasks, rows, strict=True):
        check_labels(task, len(row.labels))
        assert set(task.pools["train"][0]) == {*row.columns, "label"}


@real_data
def test_real_leopard() -> None:
    folder = Path(DATA or "") / "leopard"
    assert published_in(folder) == of_source("leopard")
    for task in read_published(folder):
        check_labels(task, len(BY_NAME[task.name].labels))
        assert {shots: len(sets) for shots, sets in task.supports.items()} == {4: 10, 8: 10, 16: 10}
        for shots, sets in task.supports.items():
            assert all(len(rows) == shots * len(task.labels) for rows in sets)


def check_labels(task: Task, classes: int) -> None:
    assert len(task.labels) == classes
    for rows in task.pools.values():
        assert {row["label"] for row in rows} == set(range(classes))
