"""Sets of tasks: read by name or from disk, split by role, described in a table."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from reprlib import repr as brief
from typing import cast

import numpy as np

from metanlp.core.errors import InputError
from metanlp.core.hub import HubName
from metanlp.core.types import Roles, Task
from metanlp.forms import FORMS
from metanlp.tasks.index.files import has_index
from metanlp.tasks.index.index import open_index
from metanlp.tasks.reading.columns import nearest
from metanlp.tasks.reading.files import read_tasks
from metanlp.tasks.rowset import are_pairs, counts_of, keys_of, ways_of, words_of
from metanlp.tasks.sources.by_column import read_by_column
from metanlp.tasks.sources.hub import read_hub
from metanlp.tasks.sources.mini import index, read_entry
from metanlp.tasks.sources.published import published_in, read_from_hub, read_published
from metanlp.tasks.sources.recurring import recurring_spans
from metanlp.tasks.sources.table import BY_NAME, SOURCES
from metanlp.tasks.sources.unlabelled import adjacent_sentences, masked_words

# In front of files, folders or a data set of the Hub that hold plain text, and what makes tasks of it.
UNLABELLED: Mapping[str, Callable[[str], tuple[Task, ...]]] = {
    "masked": masked_words,
    "adjacent": lambda corpus: (adjacent_sentences(corpus),),
    "recurring": lambda corpus: (recurring_spans(corpus),),
}
BY = "by:"  # with the name of a column and another colon, in front of a file or a task's folder


@dataclass(frozen=True)
class TaskSet:
    """A sequence of tasks, no two of which have the same name."""

    tasks: Sequence[Task]  # kept as a tuple

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))
        if wrong := [task for task in self.tasks if not isinstance(cast(object, task), Task)]:
            raise InputError(f"a TaskSet holds tasks, and {brief(wrong[0])} is none; give a list of Task")
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise InputError(f"two tasks are called {twice[0]!r}; name each once, or rename the file of one of them")

    @classmethod
    def from_files(
        cls, path: str | Path, columns: Mapping[str, str] | None = None, *, drop_repeats: bool = False
    ) -> TaskSet:
        """Reads the tasks of a file or folder; `columns` maps our names to theirs: {"text": "body"}. With an index, the
        rows of a task are read when they are used. Test rows that stand in "train" are left out where that is asked.
        Raises InputError, DamagedError."""
        return cls(_read_users(Path(path), columns, drop_repeats=drop_repeats))

    @classmethod
    def from_hub(
        cls, name: str, columns: Mapping[str, str] | None = None, group_by: str | Mapping[str, str] | None = None
    ) -> TaskSet:
        """Reads a data set of the Hub, `owner/name:config@revision`, as one task, or as one for each group. Columns
        with usual names are found without `columns`. `read_hub` has more options. Raises InputError, StorageError."""
        return cls(read_hub(name, columns=columns, group_by=group_by))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tasks, in their order."""
        return tuple(task.name for task in self.tasks)

    def split(self, validation: Sequence[str] = (), test: Sequence[str] = ()) -> Roles:
        """Uses the named tasks for validation and test, and all others for training. Raises InputError for a name that
        is unknown, or in both."""
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


def read(
    names: str, *, data_root: Path | None, columns: Mapping[str, str] | None = None, drop_repeats: bool = False
) -> tuple[Task, ...]:
    """Reads the tasks of comma-separated names: `mini`, `mini/train`, `mini/emotions`; files and folders; names below
    `data_root`: `glue`, `glue/mnli`, `leopard`; data sets of the Hub, `owner/name:config@revision`; `by:COLUMN:FILE`, a
    task a value of the column; `masked:CORPUS`, `adjacent:CORPUS` and `recurring:CORPUS`, made from plain text. GLUE
    comes from the Hub if it is not below `data_root`. `columns` is for users' files and the Hub, `drop_repeats`, as in
    `read_task`, for users' files. Raises InputError, StorageError."""
    found = [_read_one(name, data_root, columns, drop_repeats) for name in listed_names(names)]
    return tuple(TaskSet(tuple(chain.from_iterable(found))).tasks)


def listed_names(names: str) -> list[str]:
    """The names between the commas; a path that exists is one name, whatever commas it has."""
    return [names] if os.path.lexists(os.path.expanduser(names)) else [name.strip() for name in names.split(",")]


def places(names: str) -> list[str]:
    """Where what `read` reads may lie: the names without the words in front that say how it becomes tasks."""
    return [
        _corpus(name)[1] or (name.split(":", 2)[-1] if name.startswith(BY) else name) for name in listed_names(names)
    ]


def _corpus(name: str) -> tuple[str, str]:
    """The word in front of a corpus, and the corpus; ("", "") for what is none."""
    kind, colon, corpus = name.partition(":")
    return (kind, corpus) if colon and kind in UNLABELLED else ("", "")


def _read_one(
    name: str, data_root: Path | None, columns: Mapping[str, str] | None, drop_repeats: bool
) -> tuple[Task, ...]:
    if name.split("/")[0] == "mini":
        return _read_mini(name)
    kind, corpus = _corpus(name)
    if kind:
        return UNLABELLED[kind](corpus)
    if name.startswith(BY):
        return _read_divided(name, data_root, columns)
    here = os.path.expanduser(name)
    if name and os.path.lexists(here):
        return _read_path(Path(here), columns, None, drop_repeats)
    if name and data_root is not None and os.path.lexists(data_root / name):
        return _read_path(data_root / name, columns, name, drop_repeats)
    source, _, rest = name.partition("/")
    whole = f"{source}/{rest.partition('/')[0]}"  # a group's name stands below that of its set
    known = data_root is not None and whole in BY_NAME and (data_root / whole).is_dir()
    if data_root is not None and known and (found := [t for t in read_published(data_root / whole) if t.name == name]):
        return tuple(found)
    if source == "glue":
        return read_from_hub(name)
    if source not in SOURCES and HubName.parse(name):
        return read_hub(name, columns=columns)
    place = "METANLP_DATA is not set" if data_root is None else "the folder of METANLP_DATA holds none of that name"
    raise InputError(
        f"no tasks called {name!r}: no file or folder here, and {place}; "
        f"use --data mini, or set METANLP_DATA to the folder that holds it{nearest(name, ('mini', 'glue', 'leopard'))}"
    )


def _read_mini(name: str) -> tuple[Task, ...]:
    by_name = dict[str, list[Task]]()
    for entry in index():
        for each in ("mini", f"mini/{entry.role}", f"mini/{entry.name}"):
            by_name.setdefault(each, []).append(read_entry(entry))
    if name not in by_name:
        raise InputError(
            f"no tasks called {name!r}; use mini, mini/train, mini/test or one task{nearest(name, by_name)}"
        )
    return tuple(by_name[name])


def _read_divided(name: str, data_root: Path | None, columns: Mapping[str, str] | None) -> tuple[Task, ...]:
    """Reads `by:COLUMN:FILE`; tasks are called as those of FILE would be, and the value."""
    _, column, file = (*name.split(":", 2), "", "")[:3]
    if not (column and file):
        raise InputError(f"{name!r} is not of the form by:COLUMN:FILE; for example by:shop:products.csv")
    here = Path(os.path.expanduser(file))
    if data_root is not None and not os.path.lexists(here):
        return read_by_column(data_root / file, column, columns, str(Path(file).with_suffix("")))
    return read_by_column(here, column, columns)


def _read_path(path: Path, columns: Mapping[str, str] | None, name: str | None, drop_repeats: bool) -> tuple[Task, ...]:
    """Reads a file or folder; a folder of a published source as its publishers meant it."""
    if os.path.isdir(path) and published_in(path):
        return read_published(path)
    return _read_users(path, columns, name, drop_repeats=drop_repeats)


def _read_users(
    path: Path, columns: Mapping[str, str] | None, name: str | None = None, *, drop_repeats: bool
) -> tuple[Task, ...]:
    if has_index(path):  # whose tasks have no repeats, as it was built of such, or without these
        return open_index(path, columns, name)
    return read_tasks(path, columns=columns, name=name, drop_repeats=drop_repeats)


def describe(tasks: Sequence[Task]) -> list[dict[str, str | int | float]]:
    """One row of a table a task, by column. Everything is counted over all pools, words between spaces, repeats by the
    identity of rows. Where rows of any task were left out, a column says how many."""
    rows = [_described(task) for task in tasks]
    if any(task.left_out for task in tasks):
        return [row | {"left out": sum(task.left_out.values())} for row, task in zip(rows, tasks, strict=True)]
    return rows


def notes(tasks: Sequence[Task]) -> list[str]:
    """The notes of all tasks, each after the name of its task."""
    return [f"{task.name}: {note}" for task in tasks for note in task.notes]


def _described(task: Task) -> dict[str, str | int | float]:
    pools, form = task.pools.values(), FORMS[task.form]
    keys, words = (list(chain.from_iterable(of(rows, form).tolist() for rows in pools)) for of in (keys_of, words_of))
    counts = np.array([counts_of(rows, form, ways_of(task)) for rows in pools]).sum(axis=0)
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
