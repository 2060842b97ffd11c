"""Options that several commands share, each with its sentence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

Printed = dict[str, Any] | None
"""The object that `--json` prints: what a command's `run` returns. Its lines for people it prints itself."""


@dataclass(frozen=True, kw_only=True)
class Json:
    """A command that programs may read."""

    json: bool = False  # one JSON object on standard output, everything else on standard error


@dataclass(frozen=True, kw_only=True)
class Source:
    """A command that reads a saved model."""

    source: Annotated[Path, tyro.conf.arg(name="from")]  # folder or zip of a model, or owner/name on the Hub
    base: str | None = None  # where the pretrained model is, if not at its public id


@dataclass(frozen=True, kw_only=True)
class Taught(Source):
    """A command that reads a learner."""

    # Folder or zip of a learner, or owner/name on the Hub; by default the learner that comes with the package.
    source: Annotated[Path, tyro.conf.arg(name="from")] = Path("default")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """A command that reads a user's files."""

    columns: str = ""  # your files' names for our columns: text=body,label=intent; text=body|message where files differ


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """A command that reads tasks with test rows."""

    drop_repeats: bool = False  # leave out test rows that stand in train too, in place of refusing their file


@dataclass(frozen=True, kw_only=True)
class Output:
    """A command that fills a folder."""

    out: Path  # folder for what is made
    replace: bool = False  # replace what is in --out already
