"""LEOPARD: tasks with fixed support sets, ten each of 4, 8 and 16 shots, and one test file (Bansal et al. 2020).

Read in our own layout, `train_{k}shot_{e}.jsonl` with `test.jsonl`, and in the published one, `NAME_train_{e}_{k}.json`
with `NAME_eval.json`. Any task may come like this."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from metanlp.errors import InputError
from metanlp.forms import FORMS
from metanlp.tasks.build import build_task, check_name, with_labels
from metanlp.tasks.records import entries, read_records, shown
from metanlp.tasks.rows import LabelledRow, read_rows
from metanlp.types import Task


@dataclass(frozen=True)
class Published:
    """What we know of a published task beyond its files."""

    name: str  # its folder
    written: tuple[str, ...]  # label words as in the files, in label order
    labels: tuple[str, ...]  # the same in words for people
    about: str  # one sentence
    metric: str = "accuracy"  # what the paper reports


LEOPARD = (
    Published("airline", ("negative", "neutral", "positive"), ("negative", "neutral", "positive"),
              "How a tweet to an airline feels about it."),
    Published("conll", ("I-LOC", "I-MISC", "I-ORG", "I-PER"), ("location", "miscellaneous", "organisation", "person"),
              "What kind of entity the phrase in the second field is, in the sentence of the first."),
    Published("scitail", ("entails", "neutral"), ("entails", "neutral"),
              "Whether a statement of science follows from a sentence."),
    Published("sentiment_books", ("negative", "positive"), ("negative", "positive"),
              "Whether a review recommends the book."),
)  # fmt: skip
BY_NAME = {row.name: row for row in LEOPARD}

OURS = re.compile(r"train_(?P<shots>[1-9][0-9]*)shot_(?P<episode>[0-9]+)\.jsonl")
THEIRS = re.compile(r"(?P<task>.+)_train_(?P<episode>[0-9]+)_(?P<shots>[1-9][0-9]*)\.json")
SPELLINGS = (
    {"text_a": "text_a", "text_b": "text_b"},
    {"text_a": "sentence1", "text_b": "sentence2"},
    {"text": "text"},
    {"text": "sentence"},
    {"text": "sentence1"},
)


def has_supports(folder: Path) -> bool:
    """Whether `folder` holds files of fixed support sets."""
    return any(OURS.fullmatch(entry.name) or THEIRS.fullmatch(entry.name) for entry in entries(folder))


def support_files(folder: Path) -> tuple[Path, ...]:
    """The files of a task with fixed support sets, its test file last. Raises InputError."""
    files, test_file = _layout(folder)
    return (*(path for numbered in files.values() for path in numbered.values()), test_file)


def is_leopard(folder: Path) -> bool:
    """Whether the sub-folders of `folder`, all of them, are LEOPARD tasks we know."""
    inside = [entry for entry in entries(folder) if entry.is_dir() and not entry.name.startswith(".")]
    return bool(inside) and all(entry.name in BY_NAME and has_supports(entry) for entry in inside)


def read_leopard(folder: str | Path, *, columns: Mapping[str, str] | None = None, name: str | None = None) -> Task:
    """One task with fixed supports: `supports[k]` in the order of the files' numbers, "train" their union without
    repeats, "test". The name is the folder's where none is given, the columns are ours or the published ones where
    `columns` does not say. Raises InputError."""
    folder = Path(folder)
    files, test_file = _layout(folder)
    sets = {
        shots: [_rows(path, columns) for _, path in sorted(paths.items())] for shots, paths in sorted(files.items())
    }
    rows = chain.from_iterable(chain.from_iterable(sets.values()))
    # Support sets of one task share rows: the first of those with the same identity stays.
    train = dict[tuple[str, ...], LabelledRow]()
    for row in rows:
        train.setdefault(FORMS[row.form].key(row.texts), row)
    name = check_name(name or folder.resolve().name)
    pools = {"train": list(train.values()), "test": _rows(test_file, columns)}
    return build_task(name, pools, source=folder.resolve().name, supports=sets)


def read_published(folder: Path) -> Task:
    """A task of the table above, under the name `leopard/NAME`, its labels in words for people. Raises InputError."""
    known = BY_NAME[folder.name]
    task = with_labels(read_leopard(folder, name=f"leopard/{known.name}"), known.written)
    return replace(task, labels=known.labels, source="leopard", metric=known.metric, about=known.about)


def read_published_set(folder: Path) -> tuple[Task, ...]:
    """The tasks of the table that are present as sub-folders, in its order. Raises InputError."""
    return tuple(read_published(folder / row.name) for row in LEOPARD if (folder / row.name).is_dir())


def count_support_rows_in_test(task: Task) -> int:
    """How many rows of the test pool also stand in a support set: the published files have a few."""
    key = FORMS[task.form].key
    taught = {key(row) for sets in task.supports.values() for rows in sets for row in rows}
    return sum(key(row) in taught for row in task.pools.get("test", ()))


def _layout(folder: Path) -> tuple[dict[int, dict[int, Path]], Path]:
    files: dict[int, dict[int, Path]] = {}
    tests = [folder / "test.jsonl"]
    for path in entries(folder):
        found = OURS.fullmatch(path.name) or THEIRS.fullmatch(path.name)
        if not found:
            continue
        if found.re is THEIRS:
            tests = [folder / f"{found['task']}_eval.json"]
        numbered = files.setdefault(int(found["shots"]), {})
        other = numbered.setdefault(int(found["episode"]), path)
        if other != path:
            raise InputError(f"{shown(path)}: {other.name} is the same support set; keep one of the two")
    if not files:
        wanted = "train_4shot_0.jsonl or NAME_train_0_4.json"
        raise InputError(f"{shown(folder)}: has no support sets; add files such as {wanted}")
    if not tests[0].exists():
        raise InputError(f"{shown(folder)}: has support sets but no {tests[0].name}; add the test rows")
    return files, tests[0]


def _rows(path: Path, columns: Mapping[str, str] | None) -> Sequence[LabelledRow]:
    if columns:
        return read_rows(path, columns)
    _, cells = next(read_records(path), ("", dict[str, object]()))
    spelling = next((spelling for spelling in SPELLINGS if all(name in cells for name in spelling.values())), None)
    return read_rows(path, spelling)
