"""What labels mean, in words: a file with the columns `label` and `description`."""

from __future__ import annotations

from pathlib import Path

from metanlp.core.errors import InputError
from metanlp.tasks.reading.columns import listed
from metanlp.tasks.reading.records import read_records


def read_descriptions(path: Path) -> dict[str, str]:
    """Label -> description. Raises InputError for other columns, and for a label that stands twice."""
    found: dict[str, str] = {}
    for where, cells in read_records(path):
        if not {"label", "description"} <= cells.keys():
            raise InputError(f"{where}: found {listed(cells)}; name two columns `label` and `description`")
        label = str(cells["label"])
        if label in found:
            raise InputError(f"{where}: label {label!r} is described for the second time; keep one of the rows")
        found[label] = str(cells["description"])
    return found
