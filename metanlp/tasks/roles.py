"""Which tasks teach, which choose and which judge: the three options of a recipe, and what the published sources keep
for each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from metanlp.errors import InputError
from metanlp.tasks import glue
from metanlp.tasks.taskset import TaskSet, read
from metanlp.types import Roles, Task


@dataclass(frozen=True)
class Division:
    """What a source keeps from training, by task; the rest teaches."""

    validation: tuple[str, ...] = ()  # chosen by `--validation auto`, and then do not teach
    test: tuple[str, ...] = ()  # judge, and teach only where they are named one by one
    useless: tuple[str, ...] = ()  # teach only where they are named one by one


DIVISIONS = {
    # Entailment and paraphrase are still taught by GLUE's other tasks. WNLI's validation split is adversarial: it asks
    # about the premises of training, with answers set against them.
    "glue": Division(validation=("glue/rte", "glue/mrpc"), useless=("glue/wnli",)),
    # What CLINC150's domains teach is judged by a set of other makers, with other words for its labels. Of the two
    # domains that choose, one is near to what HWU64 asks, a helper in the house, and one is far from it.
    "intents": Division(validation=("intents/clinc150/home", "intents/clinc150/banking"), test=("intents/hwu64",)),
    # TREC asks what kind of answer a question wants: a new kind of task after topics of news and of encyclopaedias.
    "topics": Division(test=("topics/trec",)),
}
# `mini` says in its own index which task has which role.


def read_roles(
    data: str, validation: str, test: str | None, data_root: Path | None, columns: Mapping[str, str] | None = None
) -> Roles:
    """The tasks behind the three options of a recipe; without `test`, none judges.

    A source named alone means its tasks of that role; one that keeps none for it, all of them. `auto` validation is
    what the sources of `data` keep for it, where they have more tasks to teach, and mini's validation tasks. A task
    named for validation or test does not teach. Raises InputError, StorageError.
    """
    taught = read_role(data, "train", data_root, columns)
    if validation == "auto":
        judging = (*_kept(taught), *read("mini/validation", data_root=data_root))
    else:
        judging = read_role(validation, "validation", data_root, columns)
    tested = () if test is None else read_role(test, "test", data_root, columns)
    away = {task.name for task in (*judging, *tested)}
    train = tuple(task for task in taught if task.name not in away)
    if not train:
        raise InputError(f"every task of --data {data} is also a validation or test task; leave some to train on")
    return Roles(train, judging, tested)


def read_role(names: str, role: str, data_root: Path | None, columns: Mapping[str, str] | None) -> tuple[Task, ...]:
    """The tasks of one option: of a source named alone, those of that role."""
    if os.path.lexists(os.path.expanduser(names)):
        return _of_role(names, role, read(names, data_root=data_root, columns=columns))
    found = [
        _of_role(name, role, read(f"mini/{role}" if name == "mini" else name, data_root=data_root, columns=columns))
        for name in map(str.strip, names.split(","))
    ]
    return tuple(TaskSet(tuple(chain.from_iterable(found))).tasks)


def _of_role(name: str, role: str, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    """Those of a whole source that have the role; of anything else, all."""
    division = DIVISIONS.get(Path(name).name)
    if division is None or len(tasks) < 2 or not all(map(source_of, tasks)):
        return tasks
    if role == "train":
        return tuple(task for task in tasks if task.name not in (*division.test, *division.useless)) or tasks
    kept = division.validation if role == "validation" else division.test
    return tuple(task for task in tasks if task.name in kept) or tasks


def _kept(taught: tuple[Task, ...]) -> tuple[Task, ...]:
    """What the sources keep for validation, of those that have other tasks to teach."""
    names = {source: {task.name for task in taught if source_of(task) == source} for source in DIVISIONS}
    kept = {name for source, division in DIVISIONS.items() for name in division.validation if
            not names[source] <= {*division.validation}}  # fmt: skip
    return tuple(task for task in taught if task.name in kept)


def source_of(task: Task) -> str | None:
    """The published source that a task is of, by its key in `DIVISIONS`."""
    return "glue" if glue.is_of_glue(task) else task.source if task.source in DIVISIONS else None
