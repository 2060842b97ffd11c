"""Sets of tasks: found by name or on disk, divided into roles, held against each other for leaks, described."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, compress
from pathlib import Path
from textwrap import shorten

from metanlp.errors import InputError
from metanlp.tasks import glue, leopard
from metanlp.tasks.build import task_from_rows
from metanlp.tasks.columns import nearest
from metanlp.tasks.files import is_task_folder, read_tasks
from metanlp.tasks.hub import read_hub
from metanlp.tasks.hub_client import HubName
from metanlp.tasks.index import IndexedRows, are_pairs, has_index, keys_of, open_index, targets_of, words_of
from metanlp.tasks.mini import ROLES, read_mini
from metanlp.types import Roles, Row, Task

__all__ = ["Leakage", "Overlap", "TaskSet", "describe", "drop_leaks", "leakage", "read", "refuse", "task_from_rows"]

PUBLISHED = ("glue", "leopard")  # sources whose splits are fixed by others: their repeats are reported, never refused


@dataclass(frozen=True)
class TaskSet:
    """Tasks with different names."""

    tasks: Sequence[Task]

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


HELD_OUT = ("glue/rte", "glue/mrpc")  # of GLUE: entailment and paraphrase are still taught by its other tasks


def read_roles(
    data: str, validation: str, test: str, data_root: Path | None, columns: Mapping[str, str] | None = None
) -> Roles:
    """The tasks behind the three options of a recipe.

    `mini` alone means its tasks of that role. `auto` validation is `HELD_OUT`, where `data` has more tasks of GLUE than
    these, and mini's validation tasks. A task named for validation or test does not teach. Of several GLUE tasks,
    those that are no use for training are left out.
    """
    taught = read(_of_role(data, "train"), data_root=data_root, columns=columns)
    glue_tasks = {task.name for task in taught if glue.is_of_glue(task)}
    if validation == "auto":
        held = [task for task in taught if task.name in HELD_OUT and not glue_tasks <= {*HELD_OUT}]
        judging = (*held, *read("mini/validation", data_root=data_root))
    else:
        judging = read(_of_role(validation, "validation"), data_root=data_root, columns=columns)
    tested = read(_of_role(test, "test"), data_root=data_root, columns=columns)
    useless = glue_tasks - {*glue.TRAIN} if len(glue_tasks) > 1 else set[str]()
    away = {task.name for task in (*judging, *tested)} | useless
    train = tuple(task for task in taught if task.name not in away)
    if not train:
        raise InputError(f"every task of --data {data} is also a validation or test task; leave some to train on")
    return Roles(train, judging, tested)


def _of_role(names: str, role: str) -> str:
    return ",".join(f"mini/{role}" if name == "mini" else name for name in names.split(","))


def _read_one(name: str, data_root: Path | None, columns: Mapping[str, str] | None) -> tuple[Task, ...]:
    if name.split("/")[0] == "mini":
        return _read_mini(name)
    here = os.path.expanduser(name)
    if name and os.path.lexists(here):
        return _read_path(Path(here), columns, None)
    if name and data_root is not None and os.path.lexists(data_root / name):
        return _read_path(data_root / name, columns, name)
    source, _, rest = name.partition("/")
    if source == "glue":
        return tuple(map(glue.read_glue_from_hub, [rest] if rest else glue.BY_NAME))
    if source not in PUBLISHED and (hub := HubName.parse(name)):
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
    """The reader that knows the folder: GLUE's, LEOPARD's, or the one for users' tasks."""
    parent = path.absolute().parent.name
    if os.path.isdir(path):
        if parent == "glue" and path.name in {*glue.BY_NAME, *glue.LEFT_OUT}:
            return (glue.read_glue_task(path),)
        if parent == "leopard" and path.name in leopard.BY_NAME:
            return (leopard.read_published(path),)
        if not is_task_folder(path) and glue.is_glue(path):
            return glue.read_glue(path)
        if not is_task_folder(path) and leopard.is_leopard(path):
            return leopard.read_published_set(path)
    return _read_users(path, columns, name)


def _read_users(path: Path, columns: Mapping[str, str] | None, name: str | None) -> tuple[Task, ...]:
    return open_index(path, columns, name) if has_index(path) else read_tasks(path, columns=columns, name=name)


@dataclass(frozen=True)
class Overlap:
    """Rows by which one evaluation task is judged and from which one training task teaches."""

    evaluation: str  # name of the validation or test task
    training: str  # name of the training task, or the same name where a task's own pools share rows
    count: int  # rows of the evaluation pool that also stand in the training pool
    first: str  # the first of them, cut to fit a line
    published: bool  # whether the evaluation rows are fixed by others, so that this is reported and not refused


@dataclass(frozen=True)
class Leakage:
    """What training has seen of evaluation."""

    overlaps: tuple[Overlap, ...]

    @property
    def count(self) -> int:
        """Rows, over all pairs of tasks."""
        return sum(overlap.count for overlap in self.overlaps)


def query_pool(task: Task) -> str:
    """The pool by whose rows a task is judged: "test" where there is one."""
    return "test" if "test" in task.pools else "train"


def leakage(roles: Roles) -> Leakage:
    """Every evaluation row that is also a training row, by pair of tasks, and within a task between its own pools."""
    judged = (*roles.validation, *roles.test)
    seen = set[int]().union(*(_keys(task.pools[query_pool(task)]) for task in judged))
    taught = ((task.name, _keys(task.pools["train"])) for task in roles.train)
    training = [(name, keys) for name, keys in taught if not keys.isdisjoint(seen)]
    return Leakage(tuple(chain.from_iterable(_overlaps(task, training) for task in judged)))


def _overlaps(task: Task, training: Sequence[tuple[str, set[int]]]) -> Iterator[Overlap]:
    pool = query_pool(task)
    rows = task.pools[pool]
    judged = keys_of(rows).tolist()
    own = [(task.name, _keys(task.pools["train"]))] if pool != "train" else []
    for name, taught in (*own, *training):
        leaked = [number for number, identity in enumerate(judged) if identity in taught]
        if leaked:
            first = " | ".join(value for value in rows[leaked[0]].values() if isinstance(value, str))
            published = bool(task.supports) or task.source in PUBLISHED or HubName.parse(task.source) is not None
            yield Overlap(task.name, name, len(leaked), shorten(first, 80, placeholder=" …"), published)


def _keys(rows: Sequence[Row]) -> set[int]:
    return set(keys_of(rows).tolist())


def refuse(roles: Roles) -> Leakage:
    """The leakage, to be reported; raises InputError where it is in users' tasks and could be mended."""
    found = leakage(roles)
    bad = [overlap for overlap in found.overlaps if not overlap.published]
    if bad:
        worst, more = bad[0], f" ({len(bad) - 1} more such pairs)" if len(bad) > 1 else ""
        ours = (
            f"its own {'train'!r} pool" if worst.training == worst.evaluation else f"training task {worst.training!r}"
        )
        raise InputError(
            f"task {worst.evaluation!r}: {worst.count} of its evaluation rows are also in {ours}{more}, "
            f"the first: {worst.first!r}; remove them from one side, or let `drop_leaks` do it"
        )
    return found


def drop_leaks(roles: Roles) -> tuple[Roles, dict[str, int]]:
    """The same roles without training rows that stand in an evaluation pool, and how many were dropped, by task.

    Rows of a task's "train" pool that stand in its own "test" pool go too; fixed support sets stay as published.
    Raises InputError where that leaves a task with fewer than two classes."""
    judged = set[int]().union(*(_keys(task.pools[query_pool(task)]) for task in (*roles.validation, *roles.test)))
    clean = Roles(
        tuple(_without(task, judged, _keys(task.pools.get("test", ()))) for task in roles.train),
        tuple(_without(task, _keys(task.pools.get("test", ()))) for task in roles.validation),
        tuple(_without(task, _keys(task.pools.get("test", ()))) for task in roles.test),
    )
    before, after = ({task.name: len(task.pools["train"]) for task in _all(each)} for each in (roles, clean))
    return clean, {name: count - after[name] for name, count in before.items() if count > after[name]}


def _all(roles: Roles) -> tuple[Task, ...]:
    return (*roles.train, *roles.validation, *roles.test)


def _without(task: Task, *unwanted: set[int]) -> Task:
    everything = task.pools["train"]
    keep = [not any(identity in keys for keys in unwanted) for identity in keys_of(everything).tolist()]
    if all(keep):
        return task
    lazy = isinstance(everything, IndexedRows)
    rows = everything.where(keep) if lazy else tuple(compress(everything, keep))
    if len({*targets_of(rows).tolist()}) < 2:
        raise InputError(f"task {task.name!r}: without its leaked rows fewer than two classes are left; leave it out")
    return replace(task, pools={**task.pools, "train": rows})


def describe(tasks: Sequence[Task]) -> list[dict[str, str | int | float]]:
    """One line of a table a task, by column: over all pools, words counted between spaces, duplicates by identity; and
    how many rows were left out, where any were."""
    rows = [_described(task) for task in tasks]
    if any(task.left_out for task in tasks):
        return [row | {"left out": sum(task.left_out.values())} for row, task in zip(rows, tasks, strict=True)]
    return rows


def _described(task: Task) -> dict[str, str | int | float]:
    pools = task.pools.values()
    keys, targets, words = (
        list(chain.from_iterable(of(rows).tolist() for rows in pools)) for of in (keys_of, targets_of, words_of)
    )
    counts = Counter(targets)
    a_class = [counts[label] for label in range(len(task.labels))]
    return {
        "task": task.name,
        "rows": len(keys),
        "classes": len(task.labels),
        "rows a class: min, median, max": f"{min(a_class)}, {statistics.median(a_class):g}, {max(a_class)}",
        "mean words": round(statistics.fmean(words), 1),
        "texts": "pair" if are_pairs(task.pools["train"]) else "single",
        "duplicates": len(keys) - len(set(keys)),
        "pools": ", ".join(f"{pool} {len(pool_rows)}" for pool, pool_rows in task.pools.items()),
        "fixed shots": ", ".join(str(shots) for shots in task.supports) or "-",
    }
