"""Task sets: found by name, divided into roles, held against leaks, described."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from metanlp.core.errors import InputError
from metanlp.core.types import Roles, Row, Task
from metanlp.tasks.leaks import drop_leaks, leakage
from metanlp.tasks.reading.build import task_from_rows
from metanlp.tasks.taskset import TaskSet, describe, read


def rows(*texts: str) -> list[Row]:
    return [{"text": text, "label": "ab"[number % 2]} for number, text in enumerate(texts)]


def task(name: str, *texts: str, test: tuple[str, ...] = ()) -> Task:
    made = task_from_rows(name, rows(*texts))
    pools = {"train": made.pools["train"]} | (
        {"test": task_from_rows(name, rows(*test)).pools["train"]} if test else {}
    )
    return replace(made, pools=pools)


def write(path: Path, *texts: str, words: tuple[str, str] = ("x", "y")) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text, "label": words[number % 2]}) for number, text in enumerate(texts)]
    path.write_text("\n".join(lines))


# Sets and roles.


def test_the_rest_is_for_training(tmp_path: Path) -> None:
    for name in "abcd":
        write(tmp_path / f"{name}.jsonl", "one", "two")
    roles = TaskSet.from_files(tmp_path).split(validation=["b"], test=["d", "a"])
    assert [[task.name for task in each] for each in (roles.train, roles.validation, roles.test)] == [
        ["c"],
        ["b"],
        ["d", "a"],
    ]


def test_six_lines_from_python() -> None:
    tasks = TaskSet([task_from_rows("tickets", rows("a", "b")), task_from_rows("mails", rows("c", "d"))])
    assert tasks.names == ("tickets", "mails")


def test_splits_that_are_refused() -> None:
    tasks = TaskSet([task("tickets", "a", "b"), task("mails", "c", "d")])
    with pytest.raises(
        InputError, match="no task is called 'ticket'; there are tickets, mails; did you mean 'tickets'"
    ):
        tasks.split(test=["ticket"])
    with pytest.raises(InputError, match="'mails' is named for validation and for test"):
        tasks.split(validation=["mails"], test=["mails"])
    with pytest.raises(InputError, match="leave some to train on"):
        tasks.split(test=["mails", "tickets"])
    with pytest.raises(InputError, match="two tasks are called 'mails'"):
        TaskSet([*tasks.tasks, task("mails", "e", "f")])


# Names.


def test_the_embedded_set_by_name() -> None:
    everything = read("mini", data_root=None)
    by_role = [read(f"mini/{role}", data_root=None) for role in ("train", "validation", "test")]
    assert everything == by_role[0] + by_role[1] + by_role[2]
    (emotions,) = read("mini/emotions", data_root=None)
    assert emotions in by_role[2]
    with pytest.raises(InputError, match="did you mean 'mini/emotions'"):
        read("mini/emotion", data_root=None)


def test_names_are_looked_up_here_then_below_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "data" / "glue" / "sst2" / "train.jsonl", "a", "b", words=("negative", "positive"))
    write(tmp_path / "data" / "glue" / "cola" / "train.jsonl", "c", "d", words=("unacceptable", "acceptable"))
    write(tmp_path / "data" / "tweets" / "stance" / "train.jsonl", "e", "f")
    write(tmp_path / "here" / "tickets.jsonl", "g", "h")
    monkeypatch.chdir(tmp_path / "here")
    root = tmp_path / "data"

    def names(text: str) -> list[str]:
        return [task.name for task in read(text, data_root=root)]

    assert names("glue") == names(str(root / "glue")) == ["glue/sst2", "glue/cola"]
    assert names("glue/cola") == names(str(root / "glue" / "cola")) == ["glue/cola"]
    assert names("tweets") == names("tweets/stance") == ["tweets/stance"]
    assert names("tickets.jsonl, mini/grammar") == names("./tickets.jsonl,mini/grammar") == ["tickets", "mini/grammar"]
    with pytest.raises(InputError, match="two tasks are called 'glue/cola'"):
        names("glue,glue/cola")


def test_leopard_by_name(tmp_path: Path) -> None:
    words = ("entails", "neutral")
    for file in ("train_4shot_0", "train_4shot_1", "test"):
        write(tmp_path / "leopard" / "scitail" / f"{file}.jsonl", file, f"{file} too", words=words)
    for name in ("leopard", "leopard/scitail"):
        (found,) = read(name, data_root=tmp_path)
        assert (found.name, found.source, found.labels) == ("leopard/scitail", "leopard", words)
    write(tmp_path / "leopard" / "mine" / "train.jsonl", "a", "b")
    assert [task.name for task in read("leopard", data_root=tmp_path)] == ["leopard/mine", "leopard/scitail"]


def test_users_folders_are_not_taken_for_glue(tmp_path: Path) -> None:
    write(tmp_path / "drinks" / "cola.jsonl", "a", "b")
    write(tmp_path / "brands" / "cola" / "train.jsonl", "a", "b")
    write(tmp_path / "brands" / "juice" / "train.jsonl", "c", "d")
    assert [task.name for task in read(str(tmp_path / "drinks"), data_root=None)] == ["cola"]
    assert [task.name for task in read(str(tmp_path / "brands"), data_root=None)] == ["cola", "juice"]
    found = read(str(tmp_path / "drinks"), data_root=None, columns={"text": "text"})
    assert found[0].labels == ("x", "y")


@pytest.mark.parametrize("name", ["leopard", "nowhere/at/all", ""])
def test_unknown_names_show_the_way_out(name: str, tmp_path: Path) -> None:
    for root in (None, tmp_path):
        with pytest.raises(InputError, match="use --data mini, or set METANLP_DATA") as caught:
            read(f"mini/grammar,{name}", data_root=root)
        assert "\n" not in str(caught.value)


# Leaks.


def test_leaks_are_found_by_pair_and_within_a_task() -> None:
    train = task("t", "Same  text", "b", "c", "d")
    judged = task("e", "b", "x", test=("\uff53ame TEXT", "x", "y"))
    found = leakage(Roles((train,), (), (judged,)))
    assert [(each.evaluation, each.training, each.count) for each in found.overlaps] == [("e", "e", 1), ("e", "t", 1)]
    assert [(each.pool, each.rows) for each in found.overlaps] == [("test", ((1, 1),)), ("test", ((0, 0),))]
    assert found.first() == ("e test 2 = e train 2", "e test 1 = t train 1")
    assert found.count == 2


def test_support_rows_of_evaluation_are_no_leak() -> None:
    train = task("t", "a", "b")
    assert leakage(Roles((train,), (), (task("e", "a", "b", test=("c", "d")),))).count == 0
    assert leakage(Roles((train,), (task("e", "a", "c"),), ())).count == 1


def test_pairs_are_compared_whole() -> None:
    one = task_from_rows(
        "one", [{"text_a": "p", "text_b": "h", "label": 0}, {"text_a": "p", "text_b": "i", "label": 1}]
    )
    two = task_from_rows(
        "two", [{"text_a": "p", "text_b": "j", "label": 0}, {"text_a": "h", "text_b": "p", "label": 1}]
    )
    assert leakage(Roles((one,), (), (two,))).count == 0
    assert leakage(Roles((one,), (), (replace(one, name="copy"),))).count == 2


def test_every_planted_row_is_found_in_both_places() -> None:
    train = task("t", *(f"text {number}" for number in range(1000)))
    planted = task("e", "fresh", *(f"  TEXT {number}" for number in range(0, 1000, 10)))
    (overlap,) = leakage(Roles((train,), (), (planted,))).overlaps
    assert overlap.count == 100
    assert (overlap.evaluation, overlap.pool, overlap.training) == ("e", "train", "t")
    assert overlap.rows == tuple((1 + number, 10 * number) for number in range(100))
    clean, dropped = drop_leaks(Roles((train,), (), (planted,)))
    assert dropped == {"t": 100}
    assert leakage(clean).count == 0


def test_a_row_that_stands_in_training_twice_is_named_twice_and_counted_once() -> None:
    train = replace(task("t", "a", "b", "c", "d"), pools={"train": tuple(task("t", "a", "b", "A", "c").pools["train"])})
    (overlap,) = leakage(Roles((train,), (), (task("e", "x", "a"),))).overlaps
    assert (overlap.rows, overlap.count) == (((1, 0), (1, 2)), 1)


def test_rows_that_others_published_are_told_apart() -> None:
    train, (judged,) = task("t", "leaky row", "b"), (task("e", "leaky row", "c"),)
    fixed = replace(judged, supports={4: (judged.pools["train"],)})
    for each, published in ((judged, False), (fixed, True), (replace(judged, source="glue"), True)):
        (overlap,) = leakage(Roles((train,), (), (each,))).overlaps
        assert overlap.published == published


def test_dropping_leaves_no_leak() -> None:
    roles = Roles(
        (task("t", "a", "b", "c", "d"), task("u", "e", "f")), (), (task("v", "g", "h", "i", test=("a", "i")),)
    )
    clean, dropped = drop_leaks(roles)
    assert dropped == {"t": 1, "v": 1}
    assert [row["text"] for row in clean.train[0].pools["train"]] == ["b", "c", "d"]
    assert clean.test[0].pools["test"] == roles.test[0].pools["test"]
    assert leakage(clean).count == 0
    assert len(roles.train[0].pools["train"]) == 4
    with pytest.raises(InputError, match="task 't': without its leaked rows fewer than two classes"):
        drop_leaks(Roles((task("t", "a", "b"),), (), (task("v", "a", "c"),)))


# Tables.


def test_description_counts() -> None:
    (line,) = describe([task("t", "one two three", "one", "two", test=("ONE", "new"))])
    assert line == {
        "task": "t",
        "form": "classify",
        "rows": 5,
        "classes": 2,
        "least, median, most a class": "2, 2.5, 3",
        "mean words": 1.4,
        "repeats": 1,
        "pools": "train 3, test 2",
        "fixed shots": "-",
    }


def test_description_counts_what_was_left_out() -> None:
    lines = describe([replace(task("t", "a", "b"), left_out={"train": 2, "test": 3}), task("u", "c", "d")])
    assert [line["left out"] for line in lines] == [5, 0]
