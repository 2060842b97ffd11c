"""Reads `mini`, the small task set that comes with metanlp."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from metanlp.core.types import Roles, Task
from metanlp.tasks.reading.build import with_labels
from metanlp.tasks.reading.files import read_task

ROLES = ("train", "validation", "test")


@dataclass(frozen=True)
class Entry:
    """What the set's index.json says of one task."""

    name: str  # without `mini/`
    role: str  # train, validation or test
    family: str  # what kind of question it asks: no family of the test tasks stands among the training tasks
    labels: tuple[str, ...]  # label words in label order
    about: str  # one sentence for people
    pair: bool = False  # two texts a row

    @property
    def file(self) -> str:
        return f"{self.name}.jsonl"


def index() -> tuple[Entry, ...]:
    """The tasks of the set, in its order."""
    with mini_file("index.json") as path:
        roles: dict[str, list[dict[str, Any]]] = json.loads(path.read_text(encoding="utf-8"))
    return tuple(
        Entry(role=role, labels=tuple(fields.pop("labels")), **fields) for role in ROLES for fields in roles[role]
    )


@contextmanager
def mini_file(name: str) -> Generator[Path]:
    """A file of the set as a path, from a checkout or an installed package."""
    with resources.as_file(resources.files("metanlp").joinpath("data", "mini", name)) as path:
        yield path


@cache  # a run asks once for each role
def read_entry(entry: Entry) -> Task:
    """One task of the set, under the name `mini/NAME`. Raises InputError."""
    with mini_file(entry.file) as path:
        task = with_labels(read_task(path, name=f"mini/{entry.name}"), entry.labels)
    return replace(task, source="mini", about=entry.about)


def read_mini() -> Roles:
    """The whole set by role. Raises InputError."""
    tasks = [(entry.role, read_entry(entry)) for entry in index()]
    return Roles(*(tuple(task for role, task in tasks if role == wanted) for wanted in ROLES))
