"""What becomes of a tracker's files while a run writes into them."""

from __future__ import annotations

import shutil
import threading
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


def writers_end() -> None:
    """Waits for tensorboard's threads: the error one dies of is pytest's to hear before the next test, not in it."""
    for thread in threading.enumerate():
        if type(thread).__module__.startswith("tensorboard."):
            thread.join(30)
            assert not thread.is_alive()
