"""The task set that ships with metanlp: small, written by hand for it, read without any network."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from metanlp.tasks.build import with_labels
from metanlp.tasks.files import read_task
from metanlp.types import Roles, Task

ROLES = ("train", "validation", "test")


@dataclass(frozen=True)
class Entry:
    """What the index says of one task."""

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
    return tuple(_entry(role, fields) for role in ROLES for fields in roles[role])


def _entry(role: str, fields: dict[str, Any]) -> Entry:
    rest = {name: value for name, value in fields.items() if name != "labels"}
    return Entry(role=role, labels=tuple(fields["labels"]), **rest)


@contextmanager
def mini_file(name: str) -> Generator[Path]:
    """A file of the set as a path, from a checkout or an installed package."""
    with resources.as_file(resources.files("metanlp").joinpath("data", "mini", name)) as path:
        yield path


def read_entry(entry: Entry) -> Task:
    """One task of the set, under the name `mini/NAME`. Raises InputError."""
    with mini_file(entry.file) as path:
        task = with_labels(read_task(path, name=f"mini/{entry.name}"), entry.labels)
    return replace(task, source="mini", about=entry.about)


def read_mini() -> Roles:
    """The whole set by role. Raises InputError."""
    tasks = [(entry.role, read_entry(entry)) for entry in index()]
    return Roles(*(tuple(task for role, task in tasks if role == wanted) for wanted in ROLES))
