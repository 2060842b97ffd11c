"""The file of an index: how it is written, verified, and compared with the folder that it describes.

`DIR/.metanlp-index/index.arrow` is an Arrow stream followed by the sha256 of its bytes. The stream holds one table, a
row a task; the metadata of its schema say in JSON how the tasks were read and which names every folder held. The file
is memory-mapped and only ever replaced as a whole, so a process that has an older index open can go on using it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from reprlib import repr as brief
from typing import Any

from metanlp.core.errors import DamagedError, InputError
from metanlp.core.storage import atomic_write
from metanlp.tasks.reading.layout import ENDINGS, PASSED, UNREAD
from metanlp.tasks.reading.records import shown

HOME, FILE, OLDER = ".metanlp-index", "index.arrow", "index.json"
SCHEMA = 3  # of the file, and of how the identity of a row is computed; 1 was a folder of files with OLDER
SEAL = hashlib.sha256().digest_size
READ = (*ENDINGS, *UNREAD, ".json")  # the last is the ending of LEOPARD's own files

Columns = Mapping[str, str]
"""Our names of columns -> those of the files."""

Folders = Mapping[str, Sequence[str]]
"""Path of a folder below the indexed one -> `names_in` it."""


def table(tasks: Sequence[Mapping[str, Any]]) -> Any:
    """A table with a row a task: `task` and `files` are JSON, the arrays are over all rows of a task, set after set."""
    arrow: Any = import_module("pyarrow")
    kinds = {"task": arrow.large_string(), "files": arrow.large_string(), "keys": arrow.large_list(arrow.uint64())}
    kinds |= dict.fromkeys(("targets", "words"), arrow.large_list(arrow.uint32()))
    return arrow.Table.from_pylist(tasks, schema=arrow.schema(kinds))


def write_index(folder: Path, columns: Columns, folders: Folders, parts: Sequence[Any]) -> None:
    """Writes the index of `folder`, in the place of an older one; each of `parts` is the `table` of some tasks, which
    were read with `columns`. Raises StorageError."""
    arrow: Any = import_module("pyarrow")
    head = {"schema": SCHEMA, "columns": dict(columns), "folders": folders}
    # One piece a column, so that what is read of it is one array.
    whole = arrow.concat_tables(parts).combine_chunks().replace_schema_metadata({"metanlp": json.dumps(head)})
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_stream(sink, whole.schema) as stream:
        stream.write_table(whole)
    data = sink.getvalue()
    atomic_write(folder / HOME / FILE, b"".join((data, hashlib.sha256(data).digest())))
    for other in (folder / HOME).iterdir():  # of an older schema, or of a build that was killed
        if other.name != FILE:
            other.unlink()


def has_index(folder: str | Path) -> bool:
    """Whether `folder` has an index, of this schema or an older one."""
    return any(os.path.lexists(Path(folder, HOME, name)) for name in (FILE, OLDER))


def load(folder: Path) -> tuple[Columns, Folders, Any]:
    """What `write_index` was given, the tasks as one table. Raises DamagedError unless the file is what it wrote."""
    arrow: Any = import_module("pyarrow")
    path = folder / HOME / FILE
    if not os.path.lexists(path):
        raise damaged(path.with_name(OLDER), "is the index of an older metanlp", folder)
    try:
        with arrow.memory_map(str(path)) as mapped:
            buffer = mapped.read_buffer()
        data = buffer.slice(0, max(0, buffer.size - SEAL))
        if hashlib.sha256(data).digest() != buffer.slice(data.size).to_pybytes():
            raise damaged(path, "is cut or altered", folder)
        tasks = arrow.ipc.open_stream(data).read_all()
    # Where the checksum is right, this is the disk's fault.
    except (OSError, ValueError, arrow.ArrowException) as error:
        raise damaged(path, f"cannot be read ({brief(str(error))})", folder) from error
    head = json.loads(tasks.schema.metadata[b"metanlp"])
    if head["schema"] != SCHEMA:
        raise damaged(path, f"has schema {brief(head['schema'])}, this metanlp reads {SCHEMA}", folder)
    return head["columns"], head["folders"], tasks


def check_folders(folder: Path, known: Folders) -> None:
    """Raises InputError where files or folders came or went since the index was built."""
    for path, before in known.items():
        here = folder / path
        try:
            now = names_in(here)
        except OSError:
            raise stale(here, "is gone, or can't be read,", folder) from None
        if now != before:
            came, gone = {*now} - {*before}, {*before} - {*now}
            raise stale(here / min(came or gone), "came" if came else "is gone", folder)


def names_in(folder: Path) -> list[str]:
    """What a reader of tasks would look at in `folder`, sorted; the names of folders end in a slash."""
    with os.scandir(folder) as inside:
        return sorted(
            f"{entry.name}/" if entry.is_dir() else entry.name
            for entry in inside
            if not entry.name.startswith(PASSED) and (entry.name.lower().endswith(READ) or entry.is_dir())
        )


def again(folder: Path) -> str:
    return f"run `metanlp tasks build {shown(folder)}`"


def stale(path: Path, what: str, folder: Path) -> InputError:
    return InputError(f"{shown(path)}: {what} since {shown(folder)} was indexed; {again(folder)}")


def damaged(path: Path, what: str, folder: Path) -> DamagedError:
    return DamagedError(f"{shown(path)}: {what}; {again(folder)}, which writes the index anew")
