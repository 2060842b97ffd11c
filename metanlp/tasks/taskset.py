"""Sets of tasks: found by name or on disk, divided into roles, held against each other for leaks, described."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from metanlp.errors import InputError
from metanlp.forms import FORMS
from metanlp.tasks import glue, leopard, published
from metanlp.tasks.columns import nearest
from metanlp.tasks.files import is_task_folder, read_tasks
from metanlp.tasks.hub import read_hub
from metanlp.tasks.hub_client import HubName
from metanlp.tasks.index import are_pairs, counts_of, has_index, keys_of, open_index, ways_of, words_of
from metanlp.tasks.mini import ROLES, read_mini
from metanlp.types import Roles, Task


@dataclass(frozen=True)
class TaskSet:
    """Tasks with different names."""

    tasks: Sequence[Task]  # kept as a tuple

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise InputError(f"two tasks are called {twice[0]!r}; name each once, or rename the file of one of them")

    @classmethod
    def from_files(cls, path: str | Path, columns: Mapping[str, str] | None = None) -> TaskSet:
        """The tasks of a file or folder; `columns` maps our names to theirs: {"text": "body"}. With an index, the
        rows are read when they are asked for. Raises InputError, DamagedError."""
        return cls(_read_users(Path(path), columns, None))

    @classmethod
    def from_hub(
        cls, name: str, columns: Mapping[str, str] | None = None, group_by: str | Mapping[str, str] | None = None
    ) -> TaskSet:
        """A data set of the Hub, `owner/name:config@revision`, as one task or one a group; `columns` as above, found by
        the usual names where it is left out. More can be asked of `read_hub`. Raises InputError, StorageError."""
        return cls(_read_hub(HubName.parse(name) or HubName(name), columns, group_by))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tasks, in their order."""
        return tuple(task.name for task in self.tasks)

    def split(self, validation: Sequence[str] = (), test: Sequence[str] = ()) -> Roles:
        """The named tasks choose and judge, the rest teach. Raises InputError for a name that is unknown or in both."""
        for name in chain(validation, test):
            if name not in self.names:
                listed = ", ".join(self.names[:8]) + (", …" if len(self.names) > 8 else "")
                raise InputError(f"no task is called {name!r}; there are {listed}{nearest(name, self.names)}")
        both = set(validation) & set(test)
        if both:
            raise InputError(f"task {min(both)!r} is named for validation and for test; choose one")
        by_name = {task.name: task for task in self.tasks}
        train = tuple(task for task in self.tasks if task.name not in {*validation, *test})
        if not train:
            raise InputError(f"all {len(by_name)} tasks are named for validation or test; leave some to train on")
        return Roles(train, tuple(by_name[name] for name in validation), tuple(by_name[name] for name in test))


def read(names: str, *, data_root: Path | None, columns: Mapping[str, str] | None = None) -> tuple[Task, ...]:
    """The tasks behind comma-separated names: `mini`, `mini/train`, `mini/emotions`; files and folders; what stands
    below `data_root`: `glue`, `glue/mnli`, `leopard`; data sets of the Hub, `owner/name:config@revision`, and GLUE from
    there if it is not below `data_root`. `columns` is for users' files and the Hub. Raises InputError, StorageError."""
    several = [names] if os.path.lexists(os.path.expanduser(names)) else names.split(",")
    found = [_read_one(name.strip(), data_root, columns) for name in several]
    return tuple(TaskSet(tuple(chain.from_iterable(found))).tasks)


def _read_one(name: str, data_root: Path | None, columns: Mapping[str, str] | None) -> tuple[Task, ...]:
    if name.split("/")[0] == "mini":
        return _read_mini(name)
    here = os.path.expanduser(name)
    if name and os.path.lexists(here):
        return _read_path(Path(here), columns, None)
    if name and data_root is not None and os.path.lexists(data_root / name):
        return _read_path(data_root / name, columns, name)
    if data_root is not None and published.is_of_source(whole := (data_root / name).parent) and whole.is_dir():
        found = tuple(task for task in published.read_of_source(whole) if task.name == name)
        if found:
            return found
    source, _, rest = name.partition("/")
    if source == "glue":
        return tuple(map(glue.read_glue_from_hub, [rest] if rest else glue.WHOLE))
    if source not in published.SOURCES and (hub := HubName.parse(name)):
        return _read_hub(hub, columns)
    place = "METANLP_DATA is not set" if data_root is None else "the folder of METANLP_DATA holds none of that name"
    raise InputError(
        f"no tasks called {name!r}: no file or folder here, and {place}; "
        f"use --data mini, or set METANLP_DATA to the folder that holds it{nearest(name, ('mini', 'glue', 'leopard'))}"
    )


def _read_hub(
    name: HubName, columns: Mapping[str, str] | None, group_by: str | Mapping[str, str] | None = None
) -> tuple[Task, ...]:
    return read_hub(name.repo_id, name.config, revision=name.revision, columns=columns, group_by=group_by)


def _read_mini(name: str) -> tuple[Task, ...]:
    roles = read_mini()
    by_role = dict(zip(ROLES, (roles.train, roles.validation, roles.test), strict=True))
    everything = tuple(chain.from_iterable(by_role.values()))
    by_name = {"mini": everything} | {f"mini/{role}": tasks for role, tasks in by_role.items()}
    by_name |= {task.name: (task,) for task in everything}
    if name not in by_name:
        raise InputError(
            f"no tasks called {name!r}; use mini, mini/train, mini/test or one task{nearest(name, by_name)}"
        )
    return by_name[name]


def _read_path(path: Path, columns: Mapping[str, str] | None, name: str | None) -> tuple[Task, ...]:
    """The reader that knows the folder: of a published source, or the one for users' tasks."""
    parent = path.absolute().parent.name
    if os.path.isdir(path):
        if parent == "glue" and path.name in {*glue.BY_NAME, *glue.LEFT_OUT}:
            return (glue.read_glue_task(path),)
        if parent == "leopard" and path.name in leopard.BY_NAME:
            return (leopard.read_published(path),)
        if published.is_of_source(path.absolute()):
            return published.read_of_source(path.absolute())
        if published.is_source(path.absolute()):
            return published.read_source(path.absolute())
        if not is_task_folder(path) and glue.is_glue(path):
            return glue.read_glue(path)
        if not is_task_folder(path) and leopard.is_leopard(path):
            return leopard.read_published_set(path)
    return _read_users(path, columns, name)


def _read_users(path: Path, columns: Mapping[str, str] | None, name: str | None) -> tuple[Task, ...]:
    return open_index(path, columns, name) if has_index(path) else read_tasks(path, columns=columns, name=name)


def describe(tasks: Sequence[Task]) -> list[dict[str, str | int | float]]:
    """One line of a table a task, by column: over all pools, words counted between spaces, duplicates by identity; and
    how many rows were left out, where any were."""
    rows = [_described(task) for task in tasks]
    if any(task.left_out for task in tasks):
        return [row | {"left out": sum(task.left_out.values())} for row, task in zip(rows, tasks, strict=True)]
    return rows


def _described(task: Task) -> dict[str, str | int | float]:
    pools, form = task.pools.values(), FORMS[task.form]
    keys, words = (list(chain.from_iterable(of(rows, form).tolist() for rows in pools)) for of in (keys_of, words_of))
    counts = np.sum([counts_of(rows, form, ways_of(task)) for rows in pools], axis=0)
    a_class = [int(count) for count in counts if count or form.one_class] if form.by_class else []
    spread = f"{min(a_class)}, {statistics.median(a_class):g}, {max(a_class)}" if a_class else "-"
    return {
        "task": task.name,
        "form": task.form + (", pairs" if are_pairs(task.pools["train"]) else ""),
        "rows": len(keys),
        "classes": len(a_class) or "-",
        "least, median, most a class": spread,
        "mean words": round(statistics.fmean(words), 1),
        "repeats": len(keys) - len(set(keys)),
        "pools": ", ".join(f"{pool} {len(pool_rows)}" for pool, pool_rows in task.pools.items()),
        "fixed shots": ", ".join(str(shots) for shots in task.supports) or "-",
    }
