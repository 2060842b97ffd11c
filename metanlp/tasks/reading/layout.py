"""Tasks on disk: a file is a task; so is a folder of splits, or of fixed support sets; a folder of those is a task set.

A fixed support set is a file `train_{shots}shot_{number}.jsonl` beside `test.jsonl`, or, as LEOPARD was published,
`NAME_train_{number}_{shots}.json` beside `NAME_eval.json`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from metanlp.core.errors import InputError
from metanlp.core.outputs import OURS
from metanlp.tasks.reading.records import check_regular, shown

POOLS = ("train", "validation", "test")
ENDINGS = (".jsonl", ".csv", ".parquet", ".ndjson", ".tsv", ".xlsx")
OTHER_NAMES = {"training": "train", "dev": "validation", "val": "validation", "valid": "validation", "eval": "test"}
SUPPORTS = (
    re.compile(r"train_(?P<shots>[1-9][0-9]*)shot_(?P<number>[0-9]+)\.jsonl"),
    re.compile(r"(?P<task>.+)_train_(?P<number>[0-9]+)_(?P<shots>[1-9][0-9]*)\.json"),
)
PASSED = (".", "~$")  # what names of hidden files begin with, and of those by which Excel says that one is open
DEEPEST = 30  # folders on the way to a task
UNREAD = (".xls", ".ods", ".arrow", ".feather", ".gz", ".bz2", ".xz", ".zst", ".zip", ".pkl", ".npy")

Part = str | tuple[int, int]
"""A part of a task: the name of a pool, or (shots, number) of a fixed support set."""


def task_files(path: Path) -> dict[Part, Path]:
    """The files of the task at `path`, by part: support sets by their numbers, then pools, "train" first. {} for a
    folder that is no task. Raises InputError for files that do not go together, and for one that no reader knows."""
    if os.path.isdir(path):
        files = [entry for entry in entries(path) if not os.path.isdir(entry)]
        splits, supports = _splits(files), _supports(files)
        if supports and "train" in splits:
            raise InputError(f"{shown(path)}: has a train file and fixed support sets; keep one of the two")
        return supports or splits
    check_regular(path)
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{shown(path)}: files ending in {path.suffix!r} are not read; use {', '.join(ENDINGS)}")
    return {"train": path}


def task_paths(folder: Path, name: str | None = None) -> dict[str, Path]:
    """The files and folders below `folder` that are a task each, sorted by path, by the name of the task: its path
    below `folder`, after `name/` where it is given. Raises InputError."""
    found = dict[str, Path]()
    for path in _find(folder, ()):
        short = path.relative_to(folder)
        full = (Path(name or "") / (short if os.path.isdir(path) else short.with_suffix(""))).as_posix()
        if full in found:
            other = shown(found[full].name)
            raise InputError(f"{shown(path)}: {other} beside it is also the task {full!r}; rename one")
        found[full] = path
    if not found:
        inside = ", ".join(shown(entry.name) for entry in entries(folder)[:5]) or "nothing"
        raise InputError(
            f"{shown(folder)}: holds no task but {inside}; put .jsonl, .csv, .xlsx or .parquet files there"
        )
    return found


def entries(folder: Path) -> list[Path]:
    """What stands in a folder, sorted by name. Raises InputError for broken and circular links, and for a folder that
    cannot be read."""
    try:
        inside = sorted(folder.iterdir())
        for path in inside:
            path.stat()
    except OSError as error:
        broken = shown(error.filename or folder)
        raise InputError(f"{broken}: cannot be read ({error.strerror}); remove the link or mend it") from error
    return inside


def _splits(files: Sequence[Path]) -> dict[Part, Path]:
    """The files of a folder that are called like pools. Raises InputError for two of one pool, or an old name."""
    found: dict[Part, Path] = {}
    for pool in POOLS:
        paths = [path for ending in ENDINGS for path in files if path.name.lower() == f"{pool}{ending}"]
        if len(paths) > 1:
            raise InputError(f"{shown(paths[1])}: {paths[0].name} beside it holds {pool!r} too; keep one of the two")
        if paths:
            found[pool] = paths[0]
    for path in files if found else ():
        stem, ending = path.stem.lower(), path.suffix.lower()
        if stem in OTHER_NAMES and ending in ENDINGS:
            wanted = f"{OTHER_NAMES[stem]}{ending}; rename it"
            raise InputError(f"{shown(path)}: beside {', '.join(map(str, found))} this has to be called {wanted}")
    return found


def check_whole(folder: Path, files: Mapping[Part, Path]) -> None:
    """Raises InputError for a file beside those of a folder's task that would be a task by itself, and for one in a
    folder beside them."""
    for path in entries(folder) if "train" in files else ():
        if path in files.values() or path.name.startswith(PASSED):
            continue
        if other := _table(path) if os.path.isdir(path) else path if path.suffix.lower() in ENDINGS else None:
            stands = "lies in a folder" if os.path.isdir(path) else "stands"
            beside = ", ".join(shown(file.name) for file in files.values())
            raise InputError(f"{shown(other)}: {stands} beside {beside}, which make the folder one task; move it")


def _table(folder: Path) -> Path | None:
    """A file in a folder, or in one of its own, that would be a task; none where a command wrote what is there. Farther
    down are environments of Python and the like, whose tables are nobody's tasks."""
    if _written(folder):
        return None
    for place in (folder, *sorted(filter(os.path.isdir, folder.glob("[!.]*")))):
        names = sorted(path.name for path in place.glob("*") if not path.name.startswith(PASSED))
        found = next((name for name in names if Path(name).suffix.lower() in ENDINGS), None)
        if found and not _written(place):
            return place / found
    return None


def _written(folder: Path) -> bool:
    return any((folder / name).exists() for name in OURS)


def _supports(files: Sequence[Path]) -> dict[Part, Path]:
    """The files of a folder that are fixed support sets, with their test file. Raises InputError where that is missing,
    and for two files of one support set."""
    found: dict[tuple[int, int], Path] = {}
    test = "test.jsonl"
    for path in files:
        match = next(filter(None, (names.fullmatch(path.name) for names in SUPPORTS)), None)
        if match:
            test = f"{match['task']}_eval.json" if "task" in match.groupdict() else test
            other = found.setdefault((int(match["shots"]), int(match["number"])), path)
            if other != path:
                raise InputError(f"{shown(path)}: {other.name} is the same support set; keep one of the two")
    tests = [path for path in files if path.name == test]
    if found and not tests:
        raise InputError(f"{shown(files[0].parent)}: has support sets but no {test}; add the test rows")
    return {**dict(sorted(found.items())), "test": tests[0]} if found else {}


def _find(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Task files and task folders below `folder`; `above` are device and inode of the folders on the way."""
    here = (folder.stat().st_dev, folder.stat().st_ino)
    if here in above:
        raise InputError(f"{shown(folder)}: links back to a folder that holds it; remove the link")
    if len(above) > DEEPEST:
        raise InputError(f"{shown(folder)}: lies more than {DEEPEST} folders deep; give a folder nearer to the tasks")
    for path in entries(folder):
        ending = path.suffix.lower()
        if path.name.startswith(PASSED):
            continue
        if os.path.isdir(path) and not task_files(path):
            yield from _find(path, (*above, here))
        elif os.path.isdir(path) or ending in ENDINGS:
            yield path
        elif ending in UNREAD:
            raise InputError(
                f"{shown(path)}: files ending in {ending!r} are not read; use {', '.join(ENDINGS)} or move it"
            )
