"""What is written is on the disk, or is said not to be."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from metanlp.errors import StorageError


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
    """A file or folder onto the disk; a rename is there once its folder is."""
    held = os.open(path, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)
