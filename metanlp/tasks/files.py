"""Tasks on disk: a file is a task, a folder of splits is a task, a folder of those is a task set."""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, cast

from metanlp.errors import InputError
from metanlp.tasks.answers import as_typed
from metanlp.tasks.build import build_task, check_apart, check_name, task_from_rows, with_labels
from metanlp.tasks.columns import column_names
from metanlp.tasks.leopard import has_supports, read_leopard, support_files
from metanlp.tasks.records import BY_LINE, READERS, check_regular, decoded_lines, entries, read_records, shown
from metanlp.tasks.rows import read_rows, unlabelled_rows
from metanlp.types import Row, Task

__all__ = ["read_rows", "read_task", "read_tasks", "read_texts", "task_from_rows", "with_labels"]

POOLS = ("train", "validation", "test")
ENDINGS = (".jsonl", ".csv", ".parquet")
OTHER_NAMES = {"training": "train", "dev": "validation", "val": "validation", "valid": "validation", "eval": "test"}
DEEPEST = 30  # folders on the way to a task
UNREAD = (".tsv", ".ndjson", ".xlsx", ".xls", ".arrow", ".feather", ".gz", ".zip", ".pkl")


def read_task(
    path: str | Path, *, columns: Mapping[str, str] | None = None, name: str | None = None, published: bool = False
) -> Task:
    """One task from a file (all rows are "train"), or from a folder of splits or of fixed support sets.

    `columns` maps our names to the file's: {"text": "sentence", "label": "class"}. The name is the file's or the
    folder's where none is given. Splits may share rows only where others `published` them so. Raises InputError."""
    path = Path(path)
    name = check_name(name or (path.resolve().name if os.path.isdir(path) else path.stem))
    if os.path.isdir(path) and has_supports(path):
        if "train" in split_files(path):
            raise InputError(f"{shown(path)}: has a train file and fixed support sets; keep one of the two")
        return read_leopard(path, columns=columns, name=name)
    files = split_files(path) if os.path.isdir(path) else {"train": _data_file(path)}
    if "train" not in files:
        allowed = ", ".join(f"train{ending}" for ending in ENDINGS)
        raise InputError(f"{shown(path)}: has no training rows; add one of {allowed}")
    pools = {pool: read_rows(file, columns) for pool, file in files.items()}
    # The bare name, as a source is published with the model and a full path would tell of the machine.
    task = build_task(name, pools, source=path.resolve().name)
    if not published:
        check_apart(pools)
    return task


def read_tasks(
    folder: str | Path, *, columns: Mapping[str, str] | None = None, name: str | None = None
) -> tuple[Task, ...]:
    """The tasks of a file or folder, sorted by path: names are paths below `folder`, after `name/` where it is given.

    Nothing that looks like a task is passed over. Raises InputError."""
    folder = Path(folder)
    if not os.path.isdir(folder) or is_task_folder(folder):
        return (read_task(folder, columns=columns, name=name),)
    found = task_paths(folder, name)
    return tuple(read_task(path, columns=columns, name=full) for full, path in found.items())


def task_paths(folder: Path, name: str | None = None) -> dict[str, Path]:
    """The files and folders below `folder` that are a task each, sorted by path, by the name of the task: its path
    below `folder`, after `name/` where it is given. Raises InputError."""
    found = dict[str, Path]()
    for path in _find(folder, ()):
        short = path.relative_to(folder)
        full = "/".join(
            ([name] if name else []) + list((short if os.path.isdir(path) else short.with_suffix("")).parts)
        )
        if full in found:
            raise InputError(
                f"{shown(path)}: {shown(found[full].name)} beside it is also the task {full!r}; rename one"
            )
        found[full] = path
    if not found:
        inside = ", ".join(shown(entry.name) for entry in entries(folder)[:5]) or "nothing"
        raise InputError(f"{shown(folder)}: holds no task but {inside}; put .jsonl, .csv or .parquet files there")
    return found


def task_files(path: Path) -> tuple[Path, ...]:
    """The files of which `read_task` makes the task at `path`. Raises InputError."""
    if not os.path.isdir(path):
        return (path,)
    return support_files(path) if has_supports(path) else tuple(split_files(path).values())


def is_task_folder(folder: Path) -> bool:
    """Whether `folder` is one task: it holds files of splits or of fixed support sets."""
    return bool(split_files(folder)) or has_supports(folder)


def split_files(folder: Path) -> dict[str, Path]:
    """The files of a folder by pool, "train" first. Raises InputError for two files of one pool, or an old name."""
    files, inside = dict[str, Path](), {path.name for path in entries(folder)}
    for pool in POOLS:
        for path in (folder / name for name in _spellings(pool) if name in inside):
            if os.path.isdir(path):
                continue
            if pool in files:
                raise InputError(f"{shown(path)}: {files[pool].name} beside it holds {pool!r} too; keep one of the two")
            files[pool] = path
    for other, pool in OTHER_NAMES.items():
        misnamed = [folder / name for name in _spellings(other) if name in inside and (folder / name).is_file()]
        if files and misnamed:
            wanted = f"{pool}{misnamed[0].suffix}; rename it"
            raise InputError(f"{shown(misnamed[0])}: beside {', '.join(files)} this has to be called {wanted}")
    return files


def _spellings(pool: str) -> list[str]:
    return [f"{pool}{ending}" for ending in ENDINGS]


def _data_file(path: Path) -> Path:
    check_regular(path)
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{shown(path)}: files ending in {path.suffix!r} are not read; use {', '.join(ENDINGS)}")
    return path


def _find(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Task files and task folders below `folder`; `above` are device and inode of the folders on the way."""
    here = (folder.stat().st_dev, folder.stat().st_ino)
    if here in above:
        raise InputError(f"{shown(folder)}: links back to a folder that holds it; remove the link")
    if len(above) > DEEPEST:
        raise InputError(f"{shown(folder)}: lies more than {DEEPEST} folders deep; give a folder nearer to the tasks")
    for path in entries(folder):
        ending = path.suffix.lower()
        if path.name.startswith("."):
            continue
        if os.path.isdir(path) and not is_task_folder(path):
            yield from _find(path, (*above, here))
        elif os.path.isdir(path) or ending in ENDINGS:
            yield path
        elif ending in UNREAD:
            raise InputError(
                f"{shown(path)}: files ending in {ending!r} are not read; use {', '.join(ENDINGS)} or move it"
            )


def read_texts(
    source: str | Path | IO[str] | IO[bytes],
    *,
    columns: Mapping[str, str] | None = None,
    ending: str | None = None,
    labels: Collection[str] | None = None,
    form: str = "classify",
) -> list[Row]:
    """Rows without answers, to predict: {"text": …} or {"text_a": …, "text_b": …}, or as the `form` has them; other
    columns are passed over.

    A path is read by its ending: .jsonl, .csv, .parquet, anything else as one text a line. A stream is read as
    `ending` says (".jsonl", ".csv"), else as one text a line; lines have no `columns`. Blank lines may stand at the end
    alone. Where the rows have a label, it has to be one of `labels`, those that the model knows. Raises InputError."""
    if isinstance(source, str | Path):
        path = Path(source)
        ending = ending or path.suffix.lower()
        ending = ending if ending in READERS else ".txt"
        records, name = read_records(path, ending), shown(path)
    else:
        name, ending = "input", ending or ".txt"
        records = BY_LINE[ending](decoded_lines(_binary(source), name))
    if ending == ".csv":
        records = as_typed(records, column_names(columns))
    return list[Row](unlabelled_rows(records, columns if ending != ".txt" else None, name, labels, form))


def _binary(stream: IO[str] | IO[bytes]) -> IO[bytes]:
    """The bytes beneath a text stream, so that its own idea of encoding does not come between."""
    if not isinstance(stream, io.TextIOBase):
        return cast("IO[bytes]", stream)
    beneath: IO[bytes] | None = getattr(stream, "buffer", None)
    return beneath or io.BytesIO(cast("IO[str]", stream).read().encode("utf-8", "surrogatepass"))
