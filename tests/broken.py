"""What becomes of a tracker's files while a run writes into them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path


def _gone(folder: Path) -> None:
    shutil.rmtree(folder)


def _full(folder: Path) -> None:
    for path in _files(folder):
        path.unlink()
        path.symlink_to("/dev/full")


def _folders(folder: Path) -> None:
    for path in _files(folder):
        path.unlink()
        path.mkdir()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


BREAKS: dict[str, Callable[[Path], None]] = {"gone": _gone, "full": _full, "folders": _folders}
