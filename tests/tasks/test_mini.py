"""The embedded task set is what it says: enough tasks and rows, balanced, nothing twice, families kept apart."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest

from metanlp.core.types import Roles, Task
from metanlp.forms import FORMS
from metanlp.tasks.leaks import leakage
from metanlp.tasks.sources.mini import Entry, index, mini_file, read_entry, read_mini


@pytest.fixture(scope="module")
def roles() -> Roles:
    return read_mini()


def everything(roles: Roles) -> list[Task]:
    return [*roles.train, *roles.validation, *roles.test]


def test_size(roles: Roles) -> None:
    assert len(everything(roles)) >= 32
    assert min(len(roles.train), len(roles.validation), len(roles.test)) >= 3
    sizes: list[int] = []
    for entry in index():
        with mini_file(entry.file) as path:
            sizes.append(path.stat().st_size)
    assert sum(sizes) < 1_500_000


@pytest.mark.parametrize("entry", index(), ids=lambda entry: entry.name)
def test_each_task(entry: Entry) -> None:
    task = read_entry(entry)
    counts = Counter(row["label"] for row in task.pools["train"])
    assert (task.name, task.source, task.labels) == (f"mini/{entry.name}", "mini", entry.labels)
    assert 2 <= len(task.labels) <= 8
    assert set(counts) == set(range(len(task.labels))), "every label word is used"
    assert len(set(counts.values())) == 1, f"equal counts, not {counts}"
    assert min(counts.values()) >= (24 if entry.role == "test" else 16)
    assert all(("text_a" in row) == entry.pair for row in task.pools["train"])
    assert task.about.endswith(".")


def test_no_row_stands_twice(roles: Roles) -> None:
    owners = [(FORMS["classify"].key(row), task.name) for task in everything(roles) for row in task.pools["train"]]
    first = dict(reversed(owners))
    twice = [f"{name} repeats {first[identity]}: {identity}" for identity, name in owners if first[identity] != name]
    assert twice == []
    counts = Counter(owners)
    assert [owner for owner, count in counts.items() if count > 1] == []


def test_no_training_row_is_judged(roles: Roles) -> None:
    assert leakage(roles).overlaps == ()


def test_test_families_are_new() -> None:
    families = {
        role: {entry.family for entry in index() if entry.role == role} for role in ("train", "validation", "test")
    }
    assert not families["test"] & (families["train"] | families["validation"])


def test_one_writing_of_a_label() -> None:
    words = set(chain.from_iterable(entry.labels for entry in index()))
    assert len({word.casefold().replace("_", " ") for word in words}) == len(words)
