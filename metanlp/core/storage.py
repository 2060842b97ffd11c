"""What is written is on the disk, or is said not to be."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import socket
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from metanlp.core.errors import InputError, StorageError

LOCK = ".lock"  # the file of a folder that its run holds


@contextmanager
def disk(path: Path) -> Generator[None]:
    """Turns what the operating system says while `path` is written into a StorageError."""
    try:
        yield
    except OSError as problem:
        said = problem.strerror or str(problem)
        raise StorageError(f"{path}: {said}; make room or give permission there, or choose another folder") from problem


def write(path: Path, data: bytes) -> None:
    """A new file, which has to be new."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Flush a folder to the disk, and with it the names in it."""
    held = os.open(path, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)


def atomic_write(path: Path, data: bytes) -> None:
    """Put `data` at `path`: readers see the old file or the new one, also after a crash. Raises StorageError."""
    write_together(path.parent, {path.name: data})


def write_together(folder: Path, files: Mapping[str, bytes]) -> None:
    """The same for several files of a folder, which take their places in the order given once all of them are on the
    disk: where there is no room for one, all are as they were. Raises StorageError."""
    temporaries = {name: temporary_beside(folder / name) for name in files}
    try:
        for name, data in files.items():
            with disk(folder / name):
                folder.mkdir(parents=True, exist_ok=True)
                write(temporaries[name], data)
        for name, temporary in temporaries.items():
            with disk(folder / name):
                os.replace(temporary, folder / name)
    finally:
        for temporary in temporaries.values():
            with suppress(OSError):  # what went wrong is on its way already
                temporary.unlink(missing_ok=True)
    with disk(folder):
        sync(folder)


def sha256_of(*paths: Path) -> str:
    """Of the content of files, end to end."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


@contextmanager
def lock(folder: Path) -> Generator[None]:
    """Hold `folder` for this run, made if missing, and removed again where nothing is left in it. Raises InputError if
    another run holds it.

    The operating system drops the lock of a process that dies, however it dies.
    """
    new = not folder.exists()
    try:  # from here on, as a signal may come at any moment
        with _opened(folder) as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                new = False
                raise InputError(
                    f"{folder} is in use by {_owner(folder)}; wait for it to end, stop it, or choose another folder"
                ) from None
            try:
                with disk(folder):
                    handle.truncate(0)
                    handle.write(f"{os.getpid()} {socket.gethostname()}")
                    handle.flush()
                yield
            finally:
                handle.truncate(0)
    finally:
        if new and [path.name for path in folder.glob("*")] in ([], [LOCK]):
            with suppress(OSError):
                (folder / LOCK).unlink(missing_ok=True)
                folder.rmdir()


def _opened(folder: Path) -> TextIO:
    """The file that is locked, in a folder that is made where it is missing."""
    with disk(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InputError(f"{folder} is a file or lies under one; choose a folder") from None
        return (folder / LOCK).open("a+")


def _owner(folder: Path) -> str:
    """Who holds the folder."""
    time.sleep(0.2)  # an owner that took the lock this moment has signed it by then
    pid, _, host = (folder / LOCK).read_text().partition(" ")
    return f"process {pid} on {host}" if pid else "another process"


def temporary_beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
