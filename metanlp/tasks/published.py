"""Folders of intents and topics with their published splits: CLINC150 (Larson et al. 2019), HWU64 (Liu et al. 2019),
AG News and DBpedia (Zhang et al. 2015), TREC (Li & Roth 2002)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from metanlp.tasks.files import read_task, split_files
from metanlp.tasks.records import entries, read_records
from metanlp.types import Row, Task

FOLDERS = {"intents": ("clinc150", "hwu64"), "topics": ("agnews", "dbpedia14", "trec")}  # source -> its folders
SOURCES = ("glue", "leopard", *FOLDERS)  # splits are fixed by others: their repeats are reported, never refused
GROUPS = {"clinc150": "domain"}  # a set that is many tasks, and the column that divides its labels


def is_source(folder: Path) -> bool:
    """Whether the sub-folders of `folder`, all of them, are those of the source of that name."""
    inside = [entry.name for entry in entries(folder) if entry.is_dir() and not entry.name.startswith(".")]
    return bool(inside) and {*inside} <= {*FOLDERS.get(folder.name, ())}


def is_of_source(folder: Path) -> bool:
    return folder.name in FOLDERS.get(folder.parent.name, ())


def read_source(folder: Path) -> tuple[Task, ...]:
    """The tasks present of a source, in the order of the table. Raises InputError."""
    present = [folder / name for name in FOLDERS[folder.name] if (folder / name).is_dir()]
    return tuple(task for path in present for task in read_of_source(path))


def read_of_source(folder: Path) -> tuple[Task, ...]:
    """`SOURCE/NAME`, or one task a group of labels, `SOURCE/NAME/GROUP`. Raises InputError."""
    source, name = folder.parent.name, folder.name
    task = replace(read_task(folder, name=f"{source}/{name}", published=True), source=source)
    if name not in GROUPS:
        return (task,)
    cells = [cells for _, cells in read_records(split_files(folder)["train"])]
    groups = {str(row.get("label_text") or row.get("label")): str(row.get(GROUPS[name])) for row in cells}
    return by_group(task, groups)


def by_group(task: Task, groups: Mapping[str, str]) -> tuple[Task, ...]:
    """One task a group, from label words to groups; its labels keep their order."""

    def part(group: str) -> Task:
        labels = tuple(word for word in task.labels if groups[word] == group)
        places = {task.labels.index(word): place for place, word in enumerate(labels)}
        pools: dict[str, tuple[Row, ...]] = {
            pool: tuple({**row, "label": places[row["label"]]} for row in rows if row["label"] in places)
            for pool, rows in task.pools.items()
        }
        return replace(task, name=f"{task.name}/{group}", labels=labels, pools=pools)

    return tuple(part(group) for group in sorted(set(groups.values())))
