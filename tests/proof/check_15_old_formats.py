"""What earlier versions wrote: each format is read, or refused in a line that names both formats."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from case import Cases, attempt, refused
from hostile import resigned

from metanlp.core.errors import DamagedError
from metanlp.learner.artefact import CONFIG, read_config, verified
from metanlp.learner.learner import algorithm_from_json
from metanlp.training import checkpoint

KEPT = Path(__file__).parent / "formats"  # one small folder a format, as it was written then


def cases(count: int, folder: Path) -> Cases:
    """Of checkpoints and learners: every format kept, and the next one, which nobody has written yet."""
    del count
    for kept in sorted(KEPT.iterdir()):
        kind, number = kept.name.split("_")
        yield said(kept, attempt(lambda kept=kept, kind=kind: READ[kind](kept)))
        future = shutil.copytree(kept, folder / kept.name)
        number = 99 if kind == "learner" else 2
        path, key = (future / CONFIG, "schema") if kind == "learner" else (future / "MANIFEST.json", "format")
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: number}))
        resigned(future)
        reads = "reads format 1" if kind == "learner" else "reads 1"
        yield said(kept, refused(lambda f=future, k=kind: READ[k](f), DamagedError, number, reads))


def learner(folder: Path) -> None:
    verified(folder, "learner")
    algorithm_from_json(read_config(folder, "learner")["algorithm"])


READ: dict[str, Callable[[Path], object]] = {"checkpoint": checkpoint.load, "learner": learner}


def said(kept: Path, what: str) -> str:
    return what and f"{kept.name}: {what}"
