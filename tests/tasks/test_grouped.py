"""One file, a task for each value of a column."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metanlp.core.errors import InputError
from metanlp.tasks.taskset import places, read

ROWS: list[dict[str, object]] = [
    {"q": q, "reference": f"because of {q}", "text": f"{q} answer {n}", "label": ("no", "yes")[n % 2]}
    for n in range(6)
    for q in ("gap", "switch/on")
]  # fmt: skip


def written(folder: Path, rows: list[dict[str, object]]) -> Path:
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "answers.jsonl"


def test_each_group_is_a_task_of_its_own_rows(tmp_path: Path) -> None:
    path = written(tmp_path, ROWS)
    columns = {"text_a": "reference", "text_b": "text"}
    for name, root in ((f"grouped:q:{path}", None), ("grouped:q:answers.jsonl", tmp_path)):
        found = {task.name: task for task in read(name, data_root=root, columns=columns)}
        assert [*found] == ["answers/gap", "answers/switch-on"]
        assert found["answers/gap"].labels == ("no", "yes")
        assert [row["text_b"] for row in found["answers/gap"].pools["train"]] == [f"gap answer {n}" for n in range(6)]
    assert places(f"mini,grouped:q:{path}") == ["mini", str(path)]


def test_bad_groups(tmp_path: Path) -> None:
    path = written(tmp_path, ROWS)
    for name, said in (
        ("grouped:p", "names no column and file"),
        (f"grouped:p:{path}", "answers.jsonl:1: no column 'p'"),
    ):
        with pytest.raises(InputError, match=said):
            read(name, data_root=None)
    written(tmp_path, [*ROWS, ROWS[0] | {"q": " "}])
    with pytest.raises(InputError, match=r"answers.jsonl:13: the group, 'q', is blank"):
        read(f"grouped:q:{path}", data_root=None)
    written(tmp_path, [])
    with pytest.raises(InputError, match="has no rows"):
        read(f"grouped:q:{path}", data_root=None)
