"""Reads the tasks for training, validation and test that the three options of a recipe name."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from metanlp.core.errors import InputError
from metanlp.core.types import Roles, Task
from metanlp.tasks.sources.table import SOURCES, role_of
from metanlp.tasks.taskset import TaskSet, listed_names, read

# `mini` says in its own index which task has which role.


def read_roles(
    data: str,
    validation: str,
    test: str | None,
    data_root: Path | None,
    columns: Mapping[str, str] | None = None,
    drop_repeats: bool = False,
) -> Roles:
    """Reads the tasks of the options `--data`, `--validation` and `--test`; `test` may be None.

    A source that is named as a whole gives its tasks of that role, or all where it has none of that role. Validation
    `auto` means the validation tasks of the sources of `data` that have training tasks left without them, and those of
    mini. A task of validation or test is not trained on. The other arguments are those of `read`. Raises
    InputError, StorageError."""
    taught = read_role(data, "train", data_root, columns, drop_repeats)
    if validation == "auto":
        judging = (*_kept(taught), *read("mini/validation", data_root=data_root))
    else:
        judging = read_role(validation, "validation", data_root, columns, drop_repeats)
    tested = () if test is None else read_role(test, "test", data_root, columns, drop_repeats)
    away = {task.name for task in (*judging, *tested)}
    train = tuple(task for task in taught if task.name not in away)
    if not train:
        raise InputError(f"every task of --data {data} is also a validation or test task; leave some to train on")
    return Roles(train, judging, tested)


def read_role(
    names: str, role: str, data_root: Path | None, columns: Mapping[str, str] | None, drop_repeats: bool = False
) -> tuple[Task, ...]:
    """Reads the tasks of one option; of a source that is named as a whole those of the role."""

    def tasks(name: str) -> tuple[Task, ...]:
        whole = f"mini/{role}" if name == "mini" else name
        return read(whole, data_root=data_root, columns=columns, drop_repeats=drop_repeats)

    found = [_of_role(name, role, tasks(name)) for name in listed_names(names)]
    return tuple(TaskSet(tuple(chain.from_iterable(found))).tasks)


def _of_role(name: str, role: str, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    """Of a whole source the tasks that have the role; of anything else all tasks."""
    roles = [role_of(task) for task in tasks]
    if Path(name).name not in SOURCES or len(tasks) < 2 or None in roles:
        return tasks
    wanted = ("train", "validation") if role == "train" else (role,)
    return tuple(task for task, its in zip(tasks, roles, strict=True) if its in wanted) or tasks


def _kept(taught: tuple[Task, ...]) -> tuple[Task, ...]:
    """The validation tasks of the sources that have training tasks left without them."""
    roles = [(task, task.name.partition("/")[0], role_of(task)) for task in taught]
    teaching = {source for _, source, role in roles if role not in (None, "validation")}
    return tuple(task for task, source, role in roles if role == "validation" and source in teaching)
