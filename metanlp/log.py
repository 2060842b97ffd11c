"""What a run says of itself, step by step: `metrics.jsonl`, and the trackers that accelerate knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metanlp import checkpoint
from metanlp.errors import InputError


class Log:
    """One line a meta-step. A resumed run drops the lines that it will write again."""

    def __init__(
        self,
        folder: Path | None,
        step: int,
        trackers: Sequence[str] = (),
        name: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Without a `folder` it says nothing. `name` and `settings` are what trackers show of the run."""
        self._path = folder / "metrics.jsonl" if folder else None
        self._trackers = [tracker(kind, folder, name, settings or {}) for kind in trackers] if folder else []
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            kept = self._path.read_text().splitlines(keepends=True)[:step] if step and self._path.exists() else []
            checkpoint.atomic_write(self._path, "".join(kept).encode())

    def write(self, step: int, figures: Mapping[str, Any]) -> None:
        """`figures` by name; those that are not known yet are None."""
        if self._path:
            with self._path.open("a") as file:
                file.write(json.dumps(dict(figures)) + "\n")
        known = {key: value for key, value in figures.items() if value is not None and key != "step"}
        for each in self._trackers:
            each.log(known, step=step)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._trackers:
            each.finish()


def tracker(kind: str, folder: Path, name: str, settings: Mapping[str, Any]) -> Any:
    """A tracker of accelerate that has begun. Raises InputError for one that is not known or not installed."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    if kind not in LOGGER_TYPE_TO_CLASS:
        raise InputError(f"--log-with {kind} is not known; choose from {sorted(map(str, LOGGER_TYPE_TO_CLASS))}")
    if kind not in map(str, get_available_trackers()):
        raise InputError(f"--log-with {kind} needs a package that is not installed; pip install {kind}")
    made: Any = LOGGER_TYPE_TO_CLASS[kind]
    begun = made(name, logging_dir=folder / "trackers") if made.requires_logging_directory else made(name)
    begun.start()
    plain = (bool, int, float, str)
    begun.store_init_configuration({k: v if isinstance(v, plain) else str(v) for k, v in settings.items()})
    return begun
