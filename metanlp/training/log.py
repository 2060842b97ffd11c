"""What a run writes at every step: `metrics.jsonl`, and the trackers that accelerate knows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metanlp.core import storage
from metanlp.core.errors import InputError


@contextmanager
def log(
    folder: Path | None, step: int, trackers: Sequence[str], name: str, settings: Mapping[str, Any]
) -> Generator[Callable[[Mapping[str, Any]], None]]:
    """Gives a function that writes the figures of a meta-step by name: "step" and others, None where not known yet.
    Lines after `step`, which a resumed run writes again, are dropped. `name` and `settings` are what trackers show of
    the run, which goes on without one that fails. Without a `folder` nothing is written."""
    if folder is None:
        yield lambda _: None
        return
    path, begun = folder / "metrics.jsonl", {kind: tracker(kind, folder, name, settings) for kind in trackers}
    kept = path.read_text().splitlines(keepends=True)[:step] if path.exists() else []
    storage.atomic_write(path, "".join(kept).encode())

    def tell(work: Callable[[Any], None]) -> None:
        """Each tracker does it; one that fails is left out from now on."""
        for kind, each in [*begun.items()]:
            try:
                work(each)
            except Exception as error:
                del begun[kind]
                _say(f"{name}: tracker {kind} failed ({' '.join(str(error).split()) or type(error).__name__})")

    def write(figures: Mapping[str, Any]) -> None:
        with storage.disk(path), path.open("a") as file:
            file.write(json.dumps(figures) + "\n")
        known = {key: value for key, value in figures.items() if value is not None and key != "step"}
        tell(lambda each: each.log(known, step=figures["step"]))

    try:
        yield write
    finally:
        tell(lambda each: each.finish())


def _say(failed: str) -> None:
    """A line, where somebody listens."""
    if sys.stderr:
        print(f"{failed}; the run goes on without it, and metrics.jsonl has all figures", file=sys.stderr)


def tracker(kind: str, folder: Path, name: str, settings: Mapping[str, Any]) -> Any:
    """A started tracker of accelerate. Raises InputError for one that is not known or not installed."""
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
