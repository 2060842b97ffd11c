"""What an index looks like on the disk, and how it is held against its checksums and against the folder it is of.

`DIR/.metanlp-index/index.json` has the size and sha256 of the others, which share a random part of their names: tables
in Parquet and arrays over all rows. A build writes new files and replaces `index.json` last, so an index is there whole
or not at all, and one that somebody has open stays as it is."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from reprlib import repr as brief
from typing import IO, Any

import numpy as np

from metanlp.disk import sync
from metanlp.errors import DamagedError, InputError
from metanlp.tasks.files import ENDINGS, UNREAD
from metanlp.tasks.records import shown

HOME, HEAD = ".metanlp-index", "index.json"
SCHEMA = 1  # of the files, and of what the identity of a row is
HEAD_LIMIT = 100_000  # bytes of `index.json`
ARRAYS = {"keys": np.dtype("<u8"), "labels": np.dtype("<u4"), "words": np.dtype("<u4")}
ENDING = dict.fromkeys(("tasks", "sets", "files", "folders"), ".parquet") | dict.fromkeys(ARRAYS, ".npy")
READ = (*ENDINGS, *UNREAD, ".json")  # the last is how LEOPARD's own files end

Columns = Mapping[str, str]


@dataclass(frozen=True)
class Content:
    """An index whose files have proved to be those that a build wrote."""

    columns: dict[str, str]  # our names -> the files', with which it was built
    tasks: Any  # a table: name, path, labels, …, how many row sets, how many files
    sets: Any  # a table: pool or shots, rows, distinct rows a class; those of a task follow each other
    files: Any  # a table: path, size, mtime, sha256; those of a task follow each other
    folders: Any  # a table: path, a digest of the names in it
    keys: np.ndarray  # (R,) hashes of the identities of all rows, memory-mapped
    labels: np.ndarray  # (R,) their labels, 0 where they have none or several
    words: np.ndarray  # (R,) how many words, counted between spaces


def file_in(home: Path, name: str, token: str) -> Path:
    return home / f"{name}-{token}{ENDING[name]}"


def load(folder: Path) -> Content:
    """The index of `folder`. Raises DamagedError for whatever is not exactly what a build wrote."""
    home = folder / HOME
    head = _head(home / HEAD, folder)
    try:
        return _content(home, head, folder)
    except FileNotFoundError as error:
        if _head(home / HEAD, folder) == head:
            raise damaged(Path(error.filename), "is missing", folder) from None
        return load(folder)  # a build has ended in between


@contextmanager
def writing(folder: Path) -> Generator[Writer]:
    """A new index of `folder`, which takes the place of the old one when it is published; else the old one stays."""
    home = folder / HOME
    home.mkdir(exist_ok=True)
    try:
        with ExitStack() as held:
            yield Writer(home, held)
    finally:
        _tidy(folder)


class Writer:
    """The files of a new index, as they grow."""

    def __init__(self, home: Path, held: ExitStack) -> None:
        arrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
        self._home, self._token, self._held, self._arrow = home, secrets.token_hex(4), held, arrow
        self._tables: dict[str, Any] = {}
        self._arrays: dict[str, IO[bytes]] = {}
        self._counts = dict.fromkeys(ARRAYS, 0)
        for name, schema in _schemas(arrow).items():
            self._tables[name] = held.enter_context(parquet.ParquetWriter(self._path(name), schema))
        for name in ARRAYS:
            self._arrays[name] = held.enter_context(self._path(name).open("xb"))
            self._begin(name)

    def add(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows of a table."""
        table = self._tables[name]
        table.write_table(self._arrow.Table.from_pylist(rows, schema=table.schema))

    def append(self, name: str, values: np.ndarray) -> None:
        """A stretch of an array."""
        self._arrays[name].write(values.astype(ARRAYS[name]).tobytes())
        self._counts[name] += len(values)

    def publish(self, columns: Columns) -> None:
        """Everything on the disk first, then the file that names it in the place of the old one."""
        for name in ARRAYS:
            self._begin(name)
        self._held.close()
        paths = {name: self._path(name) for name in ENDING}
        files = {name: {"bytes": path.stat().st_size, "sha256": digest(path)} for name, path in paths.items()}
        head = self._home / f"index-{self._token}.json"
        head.write_bytes(sealed({"schema": SCHEMA, "token": self._token, "columns": dict(columns), "files": files}))
        for path in (*paths.values(), head):
            sync(path)
        os.replace(head, self._home / HEAD)
        sync(self._home)

    def _path(self, name: str) -> Path:
        return file_in(self._home, name, self._token)

    def _begin(self, name: str) -> None:
        """The header of an array; numpy leaves room in it for a larger count."""
        file = self._arrays[name]
        file.seek(0)
        shape = {"descr": ARRAYS[name].str, "fortran_order": False, "shape": (self._counts[name],)}
        np.lib.format.write_array_header_1_0(file, shape)


def _schemas(arrow: Any) -> dict[str, Any]:
    text, raw, small, large = arrow.string(), arrow.binary(), arrow.int32(), arrow.int64()
    described = [(name, text) for name in ("name", "source", "form", "metric", "about")]
    counted = [(name, small) for name in ("ways", "sets", "files")]
    tables = {
        "tasks": [
            *described,
            ("path", raw),
            ("labels", arrow.list_(text)),
            ("pair", arrow.bool_()),
            ("low", arrow.float64()),
            ("high", arrow.float64()),
            *counted,
        ],
        "sets": [("pool", text), ("shots", small), ("rows", large), ("counts", arrow.list_(large))],
        "files": [("path", raw), ("bytes", large), ("mtime", large), ("sha256", text)],
        "folders": [("path", raw), ("names", raw)],
    }
    return {name: arrow.schema(fields) for name, fields in tables.items()}


def _tidy(folder: Path) -> None:
    """Leaves what the published index names, and nothing where there is none. The caller holds the folder."""
    home = folder / HOME
    try:
        token = _head(home / HEAD, folder)["token"]
        named = {HEAD, *(file_in(home, name, token).name for name in ENDING)}
    except DamagedError:
        named = {HEAD}
    for path in home.iterdir():
        if path.name not in named:
            path.unlink()
    if not (home / HEAD).exists():
        home.rmdir()


def sealed(head: Mapping[str, Any]) -> bytes:
    """`index.json` with its own checksum. Equal heads are equal bytes."""
    text = json.dumps(head, sort_keys=True)
    return json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "index": head}, sort_keys=True).encode()


def _head(path: Path, folder: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            raw = stream.read(HEAD_LIMIT)
        head: Any = json.loads(raw)["index"]
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror})", folder) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise damaged(path, "is cut or altered", folder) from None
    if raw != sealed(head):
        raise damaged(path, "is cut or altered", folder)
    if head["schema"] != SCHEMA:
        raise damaged(path, f"has schema {brief(head['schema'])}, this metanlp reads {SCHEMA}", folder)
    if head["files"].keys() != ENDING.keys():
        raise damaged(path, f"names {brief(sorted(head['files']))} and not {brief(sorted(ENDING))}", folder)
    return head


def _content(home: Path, head: dict[str, Any], folder: Path) -> Content:
    arrow: Any = import_module("pyarrow")
    parquet: Any = import_module("pyarrow.parquet")
    found: dict[str, Any] = {}
    for name, ending in ENDING.items():
        path, listed = file_in(home, name, head["token"]), head["files"][name]
        try:
            if path.stat().st_size != listed["bytes"] or digest(path) != listed["sha256"]:
                raise damaged(path, "is cut or altered", folder)
            if ending == ".npy":
                found[name] = np.asarray(np.load(path, mmap_mode="r"))
            else:
                found[name] = parquet.ParquetFile(path).read(use_threads=False).combine_chunks()
        except FileNotFoundError:
            raise
        # The checksum is right, so this is the disk's fault or a stranger's work.
        except (OSError, ValueError, arrow.ArrowException) as error:
            raise damaged(path, f"cannot be read ({brief(str(error))})", folder) from error
    return Content(columns=head["columns"], **found)


def check_folders(folder: Path, content: Content) -> None:
    """Raises InputError where files or folders came or went since the index was built."""
    table = content.folders
    for path, names in zip(table["path"].to_pylist(), table["names"].to_pylist(), strict=True):
        here = folder / os.fsdecode(path)
        try:
            now = names_in(here)
        except OSError:
            raise stale(here, "is gone, or can't be read,", folder) from None
        if names_digest(now) != names:
            raise stale(*_difference(here, path, now, content), folder)


def _difference(here: Path, path: bytes, now: Collection[str], content: Content) -> tuple[Path, str]:
    """One name that came or went, and which of the two."""
    above = os.path.join(path, b"")
    known = content.files["path"].to_pylist() + [folder + b"/" for folder in content.folders["path"].to_pylist()]
    inside = {os.fsdecode(name.removeprefix(above)) for name in known if name.startswith(above)}
    before = {name for name in inside if name.strip("/") and "/" not in name[:-1]}
    for names, what in ((set(now) - before, "came"), (before - set(now), "is gone")):
        if names:
            return here / min(names), what
    return here, "has changed"


def names_in(folder: Path) -> list[str]:
    """What a reader of tasks would look at in `folder`, sorted; folders end in a slash."""
    with os.scandir(folder) as inside:
        return sorted(
            f"{entry.name}/" if entry.is_dir() else entry.name
            for entry in inside
            if not entry.name.startswith(".") and (entry.name.lower().endswith(READ) or entry.is_dir())
        )


def names_digest(names: Iterable[str]) -> bytes:
    return hashlib.sha256(b"\0".join(map(os.fsencode, names))).digest()


def digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def again(folder: Path) -> str:
    return f"run `metanlp tasks build {shown(folder)}`"


def stale(path: Path, what: str, folder: Path) -> InputError:
    return InputError(f"{shown(path)}: {what} since {shown(folder)} was indexed; {again(folder)}")


def damaged(path: Path, what: str, folder: Path) -> DamagedError:
    return DamagedError(f"{shown(path)}: {what}; {again(folder)}, which writes the index anew")
