"""An index of a folder says of its tasks what the files say, opens without them, and is never trusted blindly."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from form_tasks import FORMS as FORM_NAMES
from form_tasks import write_tasks
from joblib import cpu_count

from metanlp.backbone import Backbone
from metanlp.cli.commands import main
from metanlp.core.errors import DamagedError, InputError, StorageError
from metanlp.core.types import Roles, Task
from metanlp.episodes.pool import Pool
from metanlp.episodes.sampling import Episodes, Sampling
from metanlp.forms import FORMS
from metanlp.tasks.index import build as indexing
from metanlp.tasks.index import index as index_module
from metanlp.tasks.index.build import build_index
from metanlp.tasks.index.files import FILE, HOME, has_index, load
from metanlp.tasks.index.index import IndexedRows, open_index
from metanlp.tasks.index.plain import plain_columns
from metanlp.tasks.leaks import drop_leaks, leakage
from metanlp.tasks.reading.build import task_from_rows
from metanlp.tasks.reading.files import read_tasks
from metanlp.tasks.rowset import counts_of, keys_of, row_sets
from metanlp.tasks.taskset import TaskSet, describe, read

OLD = 1_600_000_000  # seconds: a time at which nothing is being written any more


def jsonl(path: Path, rows: Sequence[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.utime(path, (OLD, OLD))


def texts(name: str, count: int, labels: Sequence[str | int] = ("yes", "no")) -> list[dict[str, object]]:
    return [{"text": f"{name} says {n}", "label": labels[n % len(labels)]} for n in range(count)]


def many(folder: Path, count: int, rows: int = 4) -> None:
    for number in range(count):
        jsonl(folder / f"t{number:03d}.jsonl", texts(f"t{number}", rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every kind of task that a folder may hold."""
    here = tmp_path / "tasks"
    jsonl(here / "moods.jsonl", [*texts("moods", 7, ("c", "a", "b")), {"text": "MOODS  says 1", "label": "a"}])
    jsonl(here / "ünder" / "numbers.jsonl", texts("numbers", 30, (11, 2, 5)))
    pairs = [{"text_a": f"a{n}", "text_b": f"b c {n}", "label": n % 2, "label_text": "ny"[n % 2]} for n in range(6)]
    jsonl(here / "pairs" / "train.jsonl", pairs)
    jsonl(here / "pairs" / "test.jsonl", [{**row, "text_a": "other"} for row in pairs[:3]])
    (here / "mails.csv").write_text("text,label\nwhere is my parcel,1\nrefund me,0\n")
    pq.write_table(pa.Table.from_pylist(texts("table", 5)), here / "table.parquet")
    for shots, number in ((8, 0), (4, 0), (4, 1)):
        jsonl(here / "deep" / "fixed" / f"train_{shots}shot_{number}.jsonl", texts(f"s{number}", 2 * shots))
    jsonl(here / "deep" / "fixed" / "test.jsonl", texts("judged", 6))
    for name in ("x_train_0_4.json", "x_train_1_4.json", "x_eval.json"):
        rows = [{"sentence1": f"{name} {n}", "label": "ab"[n % 2]} for n in range(4)]
        (here / "published").mkdir(exist_ok=True)
        (here / "published" / name).write_text(json.dumps(rows))
    (here / "notes.md").write_text("nothing to learn from")
    (here / "empty").mkdir()
    return here


def full(task: Task) -> Task:
    """The task with its rows read."""
    supports = {shots: tuple(map(tuple, sets)) for shots, sets in task.supports.items()}
    return replace(task, pools={pool: tuple(rows) for pool, rows in task.pools.items()}, supports=supports)


_watched: list[str] | None = None


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _watched is not None:
        _watched.append(str(arguments[0]))


sys.addaudithook(_note)


@contextmanager
def opened(folder: Path) -> Iterator[list[str]]:
    """Names of the data files below `folder` that Python opens."""
    global _watched
    _watched, found = [], list[str]()
    try:
        yield found
        found += [name for name in _watched if name.startswith(f"{folder}/") and HOME not in name]
    finally:
        _watched = None


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# What it says.


def test_an_index_says_what_the_files_say(folder: Path) -> None:
    direct = read_tasks(folder)
    built = build_index(folder)
    indexed = open_index(folder)
    assert [task.name for task in indexed] == [task.name for task in direct]
    assert [full(task) for task in indexed] == list(direct)
    assert all(isinstance(rows, IndexedRows) for task in indexed for rows in task.pools.values())
    assert (built.tasks, len(direct)) == (7, 7)
    assert built.rows == sum(len(rows) for task in direct for rows in row_sets(task))
    assert list(describe(indexed)) == describe(direct)


def test_lengths_counts_and_keys_are_those_of_the_rows(folder: Path) -> None:
    direct = read_tasks(folder)
    build_index(folder)
    for task, plain in zip(open_index(folder), direct, strict=True):
        for rows, theirs in zip(row_sets(task), row_sets(plain), strict=True):
            assert isinstance(rows, IndexedRows)
            first = {FORMS["classify"].key(row): row["label"] for row in reversed(theirs)}
            assert rows.counts == tuple(list(first.values()).count(label) for label in range(len(task.labels)))
            assert rows.targets.tolist() == [row["label"] for row in theirs]
            assert rows.keys.dtype == np.uint64
            assert rows.keys.tolist() == keys_of(theirs, FORMS["classify"]).tolist()
            assert len(set(rows.keys.tolist())) == len(first)


def test_rows_behave_as_a_sequence(folder: Path) -> None:
    build_index(folder)
    moods = next(task for task in open_index(folder) if task.name == "moods").pools["train"]
    plain = next(task for task in read_tasks(folder) if task.name == "moods").pools["train"]
    assert isinstance(moods, IndexedRows)
    assert (moods[0], moods[-1], moods[2:5]) == (plain[0], plain[-1], plain[2:5])
    assert moods[np.int64(3)] == plain[3]  # pyright: ignore
    with pytest.raises(IndexError):
        moods[len(plain)]
    view = moods.where(np.arange(8) % 2 == 1)
    assert (len(view), list(view), view[0], view[-1]) == (4, [*plain[1::2]], plain[1], plain[7])
    assert view[1:3] == plain[3:6:2]
    assert view.keys.tolist() == moods.keys.tolist()[1::2]
    assert list(view.where(np.array([False, True, False, True]))) == [plain[3], plain[7]]
    assert (moods.counts, view.counts) == ((2, 2, 3), (1, 1, 1))  # row 7 says again what row 1 does
    with pytest.raises(IndexError):
        view[4]


def test_every_door_finds_the_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_index(folder)
    for tasks in (TaskSet.from_files(folder).tasks, read(str(folder), data_root=None)):
        assert isinstance(tasks[0].pools["train"], IndexedRows)
    below = read("tasks", data_root=folder.parent)
    assert below[0].name == "tasks/deep/fixed"
    assert [full(task) for task in below] == list(read_tasks(folder, name="tasks"))


def test_columns_belong_to_an_index(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [{"body": f"b{n}", "text": f"t{n}", "label": n % 2} for n in range(4)])
    build_index(tmp_path, {"text": "body"})
    (task,) = open_index(tmp_path, {"text": "body"})
    assert task.pools["train"][0]["text"] == "b0"
    for other, said in ((None, "with --columns text=body"), ({"text": "text"}, "with --columns text=body")):
        with pytest.raises(InputError, match=said) as caught:
            TaskSet.from_files(tmp_path, other)
        one_line(caught)
    build_index(tmp_path)
    with pytest.raises(InputError, match="without --columns"):
        open_index(tmp_path, {"text": "body"})


# What it reads.


def test_opening_and_dropping_leaks_open_no_data_file(tmp_path: Path) -> None:
    many(tmp_path, 20)
    jsonl(tmp_path / "judge.jsonl", [*texts("t3", 2), *texts("own", 4)])
    build_index(tmp_path)
    with opened(tmp_path) as files:
        tasks = TaskSet.from_files(tmp_path)
        roles, dropped = drop_leaks(tasks.split(test=["judge"]))
        assert dropped == {"t003": 2}
        assert leakage(roles).count == 0
        describe([*roles.train, *roles.test])
        assert sum(sum(task.pools["train"].counts) for task in roles.train) == 20 * 4 - 2  # pyright: ignore
    assert files == []
    with opened(tmp_path) as files:
        assert [row["text"] for row in roles.train[3].pools["train"]] == ["t3 says 2", "t3 says 3"]
        assert roles.train[3].pools["train"][1]["label"] == 0
    assert files == [str(tmp_path / "t003.jsonl")]


def test_of_many_tasks_few_stay_in_memory(tmp_path: Path) -> None:
    many(tmp_path, index_module.KEPT + 1)
    build_index(tmp_path)
    tasks = open_index(tmp_path)
    for wanted, at in ((1, [0, 0, 0]), (index_module.KEPT, range(1, len(tasks))), (1, [0, 0]), (0, [2, 3])):
        with opened(tmp_path) as files:
            for number in at:
                assert tasks[number].pools["train"][0]["text"] == f"t{number} says 0"
        assert len(files) == wanted


@pytest.mark.parametrize("form", FORM_NAMES)
def test_an_index_knows_every_form(tmp_path: Path, net: Backbone, form: str) -> None:
    folder = write_tasks(tmp_path / "tasks", form, range(3), count=20)
    lines = (folder / f"{form}_0.jsonl").read_text().splitlines(keepends=True)
    (folder / f"{form}_1.jsonl").write_text("".join([*lines[:2], *lines[5:], lines[3], lines[3]]))
    direct = read_tasks(folder)
    build_index(folder)
    indexed = open_index(folder)
    assert [full(task) for task in indexed] == list(direct)
    assert describe(indexed) == describe(direct)
    judged = [Roles(tasks[1:], (), tasks[:1]) for tasks in (indexed, direct)]
    assert leakage(judged[0]) == leakage(judged[1])
    with pytest.raises(InputError, match=f"'{form}_1': without its leaked rows"):
        drop_leaks(judged[0])
    first = [Roles(tasks[::2], (replace(tasks[1], pools={"train": tasks[1].pools["train"][:3]}),), ()) for tasks in
             (indexed, direct)]  # fmt: skip
    clean = [drop_leaks(roles)[0].train for roles in first]
    sampling = Sampling(shots=(2, 3), queries=2)
    with opened(folder) as files:
        lazy = Episodes(clean[0], net.encode, sampling, seed=1)
    assert not files or form in ("multilabel", "tag")  # rows that are of several classes are counted anew
    eager = Episodes(clean[1], net.encode, sampling, seed=1)
    assert lazy.counts == eager.counts
    assert [lazy[n].query_rows for n in range(9)] == [eager[n].query_rows for n in range(9)]


def test_rows_that_stand_as_they_are_are_known(folder: Path) -> None:
    """Those are read again without the checks of a reader."""
    build_index(folder)
    facts = [json.loads(task) for task in load(folder)[2]["task"].to_pylist()]
    assert {each["task"]["name"]: each["plain"] for each in facts if each["plain"]} == {
        "moods": {"text": "text", "label": "label"},
        "ünder/numbers": {"text": "text", "label": "label"},
    }


def test_a_score_is_no_plain_cell_where_it_changes_its_type(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [{"body": f"row {n}", "score": n} for n in range(5)])
    task = read_tasks(tmp_path, columns={"text": "body"})[0]
    sets, path = row_sets(task), tmp_path / "a.jsonl"
    assert plain_columns([path], sets, {"text": "body"}, ()) is None
    jsonl(tmp_path / "a.jsonl", [{"body": f"row {n}", "score": n / 1} for n in range(5)])
    assert plain_columns([path], sets, {"text": "body"}, ()) == {"text": "body", "score": "score"}
    assert plain_columns([path, path], sets, {"text": "body"}, ()) is None
    assert plain_columns([tmp_path / "b.jsonl"], sets, {}, ()) is None


def test_a_plain_file_that_lost_its_form_unnoticed_is_refused_by_its_reader(tmp_path: Path) -> None:
    many(tmp_path, 1)
    build_index(tmp_path)
    (task,), path = open_index(tmp_path), tmp_path / "t000.jsonl"
    path.write_text(path.read_text().replace('"text"', '"t\'xt"'))
    os.utime(path, (OLD, OLD))
    with pytest.raises(InputError, match="t000"):
        _ = task.pools["train"][0]


def test_episodes_are_those_of_direct_tasks(tmp_path: Path, net: Backbone) -> None:
    many(tmp_path, 4, rows=14)
    build_index(tmp_path)
    direct, lazy = (
        Episodes(tasks, net.encode, Sampling(shots=(2, 3), queries=2), seed=7)
        for tasks in (read_tasks(tmp_path), open_index(tmp_path))
    )
    for number in range(12):
        one, other = direct[number], lazy[number]
        assert (one.task, one.support_rows, one.query_rows) == (other.task, other.support_rows, other.query_rows)
        assert one.support.ids.equal(other.support.ids)
        assert one.query.targets.equal(other.query.targets)


def test_drawn_rows_are_not_kept_in_memory(tmp_path: Path, net: Backbone) -> None:
    """Thousands of pools would hold gigabytes of texts; what an episode needs of them are tokens and classes."""
    jsonl(tmp_path / "distinct.jsonl", texts("distinct", 14))
    jsonl(tmp_path / "repeats.jsonl", [*texts("repeats", 14), *texts("REPEATS", 3)])
    direct = read_tasks(tmp_path)
    build_index(tmp_path)
    for lazy, eager in zip(open_index(tmp_path), direct, strict=True):
        pools = [Pool.of(task, net.encode) for task in (lazy, eager)]
        assert isinstance(pools[0].rows, IndexedRows)
        assert [*pools[0].rows] == [*pools[1].rows] == [*eager.pools["train"][:14]]
        assert [rows.tolist() for rows in pools[0].by_class] == [rows.tolist() for rows in pools[1].by_class]
        assert [rows.tolist() for rows in pools[0].by_class] == [[*range(0, 14, 2)], [*range(1, 14, 2)]][::-1]


# Leaks.


def test_leaks_are_those_of_direct_tasks(folder: Path) -> None:
    jsonl(folder / "copy.jsonl", [*texts("numbers", 4), *texts("JUDGED", 6), *texts("copy", 9)])
    jsonl(folder / "twin" / "train.jsonl", texts("moods", 9))
    jsonl(folder / "twin" / "test.jsonl", [*texts("s0", 3), *texts("copy", 2)])
    direct = read_tasks(folder)
    build_index(folder)
    indexed, mini = open_index(folder), task_from_rows("mine", texts("copy", 3))

    def roles(tasks: Sequence[Task]) -> Roles:
        by_name = {task.name: task for task in tasks}
        judges = [by_name.pop(name) for name in ("twin", "deep/fixed")]
        return Roles(tuple(by_name.values()), (mini,), tuple(judges))

    assert leakage(roles(indexed)) == leakage(roles(direct))
    assert leakage(roles(indexed)).count == 3 + 2 + 6
    (found, dropped), (expected, also) = drop_leaks(roles(indexed)), drop_leaks(roles(direct))
    assert dropped == also
    assert dropped.keys() == {"copy"}
    assert [full(task) for task in found.train] == list(expected.train)
    assert leakage(found).count == leakage(expected).count == 0
    for task, plain in zip(found.train, expected.train, strict=True):
        kept = task.pools["train"]
        assert isinstance(kept, IndexedRows)
        ways = len(task.labels)
        assert kept.counts == counts_of(plain.pools["train"], FORMS["classify"], ways)


def test_a_task_that_leaks_wholly_is_refused(tmp_path: Path) -> None:
    many(tmp_path, 3)
    jsonl(tmp_path / "judge.jsonl", [*texts("t1", 3), *texts("own", 4)])
    build_index(tmp_path)
    with pytest.raises(InputError, match="task 't001': without its leaked rows fewer than two classes"):
        drop_leaks(TaskSet.from_files(tmp_path).split(test=["judge"]))


# What changed since.


def change(path: Path, text: str, *, keep_time: bool = False) -> None:
    before = path.stat()
    path.write_text(text)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_file_that_changed_is_named_when_its_rows_are_asked_for(tmp_path: Path) -> None:
    many(tmp_path, 4)
    build_index(tmp_path)
    for name, replaced in (("t000", "says it"), ("t001", "SAYS")):
        path = tmp_path / f"{name}.jsonl"
        change(path, path.read_text().replace("says", replaced))
    (tmp_path / "t002.jsonl").touch()
    tasks = open_index(tmp_path)
    (tmp_path / "t003.jsonl").unlink()
    for number, what in ((0, "has changed"), (1, "has changed"), (3, "is gone")):
        with pytest.raises(InputError, match=what) as caught:
            tasks[number].pools["train"][0]
        said = one_line(caught)
        assert f"t00{number}.jsonl" in said
        assert f"run `metanlp tasks build {tmp_path}`" in said
    assert tasks[2].pools["train"][0]["text"] == "t2 says 0"  # touched, but the same
    with pytest.raises(InputError, match=r"t000\.jsonl: has changed since"):
        index_module.check_unchanged(tasks)


def test_a_file_written_while_its_time_stood_still_is_hashed(tmp_path: Path) -> None:
    """Of a file that was young when it was indexed, size and time alone prove nothing."""
    jsonl(tmp_path / "a.jsonl", texts("a", 4))
    os.utime(tmp_path / "a.jsonl")
    build_index(tmp_path)
    change(tmp_path / "a.jsonl", (tmp_path / "a.jsonl").read_text().replace("says", "SAYS"), keep_time=True)
    with pytest.raises(InputError, match="has changed"):
        open_index(tmp_path)[0].pools["train"][0]


def test_rows_that_do_not_add_up_are_refused(tmp_path: Path) -> None:
    """A file replaced by one of the same size and time, which is all that a glance can see."""
    path = tmp_path / "a.jsonl"
    jsonl(path, texts("a", 4))
    build_index(tmp_path)
    text, last = path.read_text(), json.dumps(texts("a", 4)[3]) + "\n"
    change(path, text.removesuffix(last) + " " * (len(last) - 1) + "\n", keep_time=True)
    with pytest.raises(InputError, match="has changed"):
        open_index(tmp_path)[0].pools["train"][0]


def test_a_copy_of_the_folder_is_as_good(folder: Path, tmp_path: Path) -> None:
    direct = read_tasks(folder)
    build_index(folder)
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    assert [full(task) for task in open_index(tmp_path / "copy")] == list(direct)


CAME_OR_WENT: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file": (lambda here: jsonl(here / "new.jsonl", texts("new", 4)), "tasks/new.jsonl: came since"),
    "a file deeper": (lambda here: jsonl(here / "ünder" / "new.csv", []), "ünder/new.csv: came since"),
    "where no task was": (lambda here: jsonl(here / "empty" / "new.jsonl", []), "empty/new.jsonl: came since"),
    "a folder": (lambda here: jsonl(here / "more" / "train.jsonl", []), "tasks/more: came since"),
    "a split": (lambda here: jsonl(here / "pairs" / "validation.jsonl", []), "validation.jsonl: came since"),
    "a support set": (
        lambda here: jsonl(here / "deep/fixed/train_4shot_2.jsonl", []),
        "_2.jsonl: came since",
    ),
    "one of LEOPARD's": (lambda here: (here / "published/x_train_2_4.json").write_text("[]"), "x_train_2_4.json: came"),
    "a file that is not read": (lambda here: (here / "rows.xlsx").touch(), "rows.xlsx: came since"),
    "gone": (lambda here: (here / "mails.csv").unlink(), "mails.csv: is gone since"),
    "gone deeper": (lambda here: (here / "pairs" / "test.jsonl").unlink(), "pairs/test.jsonl: is gone since"),
    "a folder gone": (lambda here: shutil.rmtree(here / "ünder"), "tasks/ünder: is gone since"),
    "renamed": (lambda here: (here / "moods.jsonl").rename(here / "mood.jsonl"), "tasks/mood.jsonl: came since"),
}


@pytest.mark.parametrize("what", CAME_OR_WENT)
def test_files_that_came_or_went_are_named_when_it_is_opened(folder: Path, what: str) -> None:
    alter, said = CAME_OR_WENT[what]
    build_index(folder)
    alter(folder)
    with pytest.raises(InputError, match=said) as caught:
        TaskSet.from_files(folder)
    assert f"run `metanlp tasks build {folder}`" in one_line(caught)


def test_what_no_reader_looks_at_may_come(folder: Path) -> None:
    build_index(folder)
    for name in ("README.md", ".hidden.jsonl", "pairs/about.txt"):
        (folder / name).write_text("x")
    (folder / ".git").mkdir()
    assert len(open_index(folder)) == 7


def test_a_new_build_takes_what_came(folder: Path) -> None:
    build_index(folder)
    before = open_index(folder)
    jsonl(folder / "new.jsonl", texts("new", 4))
    (folder / "mails.csv").unlink()
    build_index(folder)
    assert [full(task) for task in open_index(folder)] == list(read_tasks(folder))
    assert len(list((folder / HOME).iterdir())) == 1  # nothing of the old one
    assert before[0].pools["test"].keys.tolist()  # pyright: ignore  # which who has it open may go on using


# Builds that fail.


def content(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in home.iterdir()} if home.exists() else {}


@pytest.mark.parametrize("first", [True, False])
def test_a_bad_file_ends_a_build_and_leaves_the_index_as_it_was(folder: Path, first: bool) -> None:
    if not first:
        build_index(folder)
    before = content(folder / HOME)
    jsonl(folder / "zz.jsonl", [{"text": "a", "label": 1}, {"text": " ", "label": 2}])
    with pytest.raises(InputError, match=r"zz.jsonl:2: 'text' is blank"):
        build_index(folder)
    assert content(folder / HOME) == before
    assert (folder / HOME).exists() != first


@pytest.mark.parametrize("cores", ["1", "2"])
def test_a_bad_file_found_by_another_process_arrives_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: str
) -> None:
    """With one core nobody else is asked, and this process lives on."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", cores)
    monkeypatch.setattr(indexing, "ALONE", 0)
    monkeypatch.setattr(indexing, "PART", 3)
    many(tmp_path, 20)
    assert build_index(tmp_path).tasks == 20
    assert [full(task) for task in open_index(tmp_path)] == list(read_tasks(tmp_path))
    (tmp_path / "t011.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "t019.jsonl").write_text("")
    with pytest.raises(InputError, match=r"t011.jsonl:1: no column 'label'|t019.jsonl: has no rows") as caught:
        build_index(tmp_path)
    one_line(caught)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent", "is no folder of tasks"),
        ("tasks/moods.jsonl", "is no folder of tasks"),
        ("tasks/pairs", "is no folder of tasks"),
        ("tasks/empty", "holds no task"),
        ("glue", "as others published it"),
    ],
)
def test_what_has_no_index(folder: Path, name: str, said: str) -> None:
    jsonl(folder.parent / "glue" / "cola" / "train.jsonl", texts("cola", 4))
    with pytest.raises(InputError, match=said):
        build_index(folder.parent / name)
    assert not list(folder.parent.rglob(HOME))


def test_a_folder_that_may_not_be_written_to(folder: Path) -> None:
    (folder / HOME).write_text("somebody's file")
    with pytest.raises(StorageError, match="give permission") as caught:
        build_index(folder)
    one_line(caught)
    assert len(read_tasks(folder)) == 7


@pytest.mark.parametrize("first", [True, False])
def test_a_full_disk_leaves_the_index_as_it_was(folder: Path, first: bool) -> None:
    if not first:
        build_index(folder)
    before, limits = content(folder / HOME), resource.getrlimit(resource.RLIMIT_FSIZE)
    jsonl(folder / "new.jsonl", texts("new", 4))
    for size in (0, 4, 100, 300, 700, 1000, 2000, 3000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            with pytest.raises(StorageError, match="make room") as caught:
                build_index(folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        one_line(caught)
        assert content(folder / HOME) == before
    build_index(folder)
    assert len(open_index(folder)) == 8


def test_one_build_at_a_time(folder: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait(_: float) -> None:
        inside.set()
        assert go_on.wait(60)

    other = threading.Thread(target=build_index, args=(folder, None, wait))
    other.start()
    try:
        assert inside.wait(60)
        assert not has_index(folder)  # nobody sees a half of it
        with pytest.raises(InputError, match="is being indexed by another process"):
            build_index(folder)
    finally:
        go_on.set()
        other.join()
    assert len(open_index(folder)) == 7


def killed_at(event: int, folder: Path) -> bool:
    """Builds in a child that is killed at its nth touch of the index's folder; whether it was."""
    seen = 0

    def hook(name: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        ours = any(HOME in str(argument) for argument in arguments[:2])
        if ours and name in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir"):
            seen += 1
            if seen == event:
                os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        sys.addaudithook(hook)
        build_index(folder)
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.parametrize("first", [True, False])
def test_a_build_killed_anywhere_leaves_the_old_index_or_none(tmp_path: Path, first: bool) -> None:
    many(tmp_path / "tasks", 3)
    here, moment = tmp_path / "tasks", 0
    outcomes = set[str]()
    while True:
        moment += 1
        shutil.rmtree(here / HOME, ignore_errors=True)
        (here / "t003.jsonl").unlink(missing_ok=True)
        if not first:
            build_index(here)
        old = b"" if first else (here / HOME / FILE).read_bytes()
        jsonl(here / "t003.jsonl", texts("t3", 4))
        if not killed_at(moment, here):
            break
        if not has_index(here):
            outcomes.add("none")
            assert len(read_tasks(here)) == 4
        elif (here / HOME / FILE).read_bytes() == old:
            outcomes.add("old")
            with pytest.raises(InputError, match=r"t003\.jsonl: came since"):
                open_index(here)
        else:
            outcomes.add("new")
            assert [full(task) for task in open_index(here)] == list(read_tasks(here))
        build_index(here)
        assert len(list((here / HOME).iterdir())) == 1  # what the killed one left is gone
    assert moment > 8
    assert outcomes == {"none" if first else "old", "new"}


BUILD_APART = """
import sys, time
from metanlp.tasks.index import build as indexing
indexing.ALONE, indexing.PART = 0, 2
def show(done):
    print(done, flush=True)
    time.sleep(60)
indexing.build_index(sys.argv[1], None, show)
"""


CHILDREN = "/proc/{0}/task/{0}/children"


def alive(pid: str) -> bool:
    """Whether the process runs; one that nobody has buried yet has no command line."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(cpu_count() < 2, reason="one core, no other processes")
@pytest.mark.skipif(not Path(CHILDREN.format(os.getpid())).exists(), reason="asks Linux for a process's children")
def test_a_killed_build_leaves_no_process_behind(tmp_path: Path) -> None:
    many(tmp_path, 8)
    words = [sys.executable, "-c", BUILD_APART, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as build:
        assert build.stdout
        assert float(build.stdout.readline()) == 0.25
        children = Path(CHILDREN.format(build.pid)).read_text().split()
        build.kill()
    assert len(children) >= 2
    deadline = time.monotonic() + 30
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(map(alive, children))
    assert not has_index(tmp_path)


# Damage.


def damages(data: bytes, rng: random.Random) -> Iterator[bytes]:
    for length in {0, 1, len(data) // 2, len(data) - 1, *(rng.randrange(len(data)) for _ in range(12))}:
        yield data[:length]
    for _ in range(60):
        place = rng.randrange(len(data))
        yield data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
    yield data + b"\0"
    yield data[::-1]


def test_a_damaged_index_is_refused(folder: Path) -> None:
    build_index(folder)
    path = folder / HOME / FILE
    data = path.read_bytes()
    for damaged in damages(data, random.Random(0)):
        path.write_bytes(damaged)
        with pytest.raises(DamagedError) as caught:
            TaskSet.from_files(folder)
        said = one_line(caught)
        assert path.name in said
        assert f"run `metanlp tasks build {folder}`" in said
    path.unlink()  # then there is none
    assert TaskSet.from_files(folder).tasks == read_tasks(folder)
    build_index(folder)
    assert len(open_index(folder)) == 7


def test_an_index_of_another_schema_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metanlp.tasks.index.files.SCHEMA", 4)
    build_index(folder)
    monkeypatch.undo()
    with pytest.raises(DamagedError, match="has schema 4, this metanlp reads 3"):
        open_index(folder)


def test_an_index_of_the_first_schema_is_refused_and_built_anew(folder: Path) -> None:
    (folder / HOME).mkdir()
    for name in ("index.json", "tasks-0a0b0c0d.parquet", "keys-0a0b0c0d.npy"):
        (folder / HOME / name).write_text("{}")
    with pytest.raises(DamagedError, match=r"index\.json: is the index of an older metanlp; run `metanlp tasks build"):
        TaskSet.from_files(folder)
    build_index(folder)
    assert [path.name for path in (folder / HOME).iterdir()] == [FILE]
    assert len(open_index(folder)) == 7


# The command.


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["metanlp", *map(str, words)])
        code: object = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    return run


def test_the_command_builds_and_the_other_uses_it(command: Callable[..., tuple[int, str, str]], folder: Path) -> None:
    code, table, said = command("tasks", folder)
    assert (code, said) == (0, "")
    code, out, said = command("tasks", "build", folder)
    assert (code, said) == (0, "")
    assert out.startswith(f"{folder}: indexed 7 tasks, ")
    assert command("tasks", folder) == (0, table, "")
    change(folder / "moods.jsonl", '{"text": "a", "label": 1}\n')
    code, out, said = command("tasks", folder)
    assert (code, out) == (2, "")
    assert "moods.jsonl: has changed since" in said
    code, out, said = command("tasks", "build", folder)
    assert (code, out, said.count("\n")) == (2, "", 1)
    assert "moods.jsonl:1: task 'moods' has only the class 1" in said
    (folder / HOME / FILE).write_text("{}")
    code, out, said = command("tasks", folder)
    assert (code, out, said.count("\n")) == (3, "", 1)


@pytest.mark.parametrize(("words", "said"), [((), "PATH"), (("x", "--colums", "y"), "--columns")])
def test_the_command_misspelt(command: Callable[..., tuple[int, str, str]], words: tuple[str, ...], said: str) -> None:
    code, out, error = command("tasks", "build", *words)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert said in error


# Size.

MEASURE = """
import json, random, sys, time
from pathlib import Path
from metanlp.tasks.index.plain import plain_columns
from metanlp.tasks.leaks import drop_leaks
from metanlp.tasks.taskset import TaskSet
import pyarrow.parquet

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

def seconds(work, into, name):
    begun, busy = time.perf_counter(), time.process_time()
    made = work()
    into |= {name: time.perf_counter() - begun, f"{name}_cpu": time.process_time() - busy}
    return made

found, before = {}, resident()
tasks = seconds(lambda: TaskSet.from_files(sys.argv[1]), found, "open_s")
found |= {"tasks": len(tasks.tasks), "open_mb": resident() - before}
roles = tasks.split(test=[tasks.names[-1]])
roles, _ = seconds(lambda: drop_leaks(roles), found, "drop_leaks_s")
found["rows"] = sum(sum(task.pools["train"].counts) for task in roles.train)
rng, each = random.Random(0), {}
times = [seconds(lambda: rng.choice(roles.train).pools["train"][0], each, "x") and each["x"] for _ in range(2000)]
found |= {"first_row_ms": sorted(times)[1000] * 1000, "more_mb": resident() - before - found["open_mb"]}
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measures resident memory as Linux tells it")
@pytest.mark.parametrize("layout", ["{0:03d}/t{1:06d}.jsonl", "{0:03d}/t{1:06d}/train.jsonl"], ids=["files", "folders"])
def test_100_000_tasks(tmp_path: Path, layout: str) -> None:
    rows, count = 8, 100_000
    for number in range(count):
        path = tmp_path / layout.format(number // 1000, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in texts(f"t{number}", rows)))
    try:
        built = build_index(tmp_path)
        words = [sys.executable, "-c", MEASURE, str(tmp_path)]
        ended = subprocess.run(words, capture_output=True, text=True, check=True)
    finally:
        shutil.rmtree(tmp_path)  # else some later run of pytest would spend minutes on it
    assert (built.tasks, built.rows) == (count, count * rows)
    found = json.loads(ended.stdout)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print({"layout": layout, "build_s": round(built.seconds, 1), "build_peak_mb": peak, **found})
    assert found["tasks"] == count
    assert found["rows"] == (count - 1) * rows
    assert found["open_s_cpu"] < 10  # seconds of this process, whatever else the machine does
    assert found["open_mb"] < 400
    assert found["first_row_ms"] < 10
    assert found["more_mb"] < 100
