"""What labels mean, in words: a file with the columns `label` and `description`."""

from __future__ import annotations

from pathlib import Path

from metanlp.core.errors import InputError
from metanlp.forms.reading import came, listed
from metanlp.tasks.reading.records import read_records


def read_descriptions(path: Path) -> dict[str, str]:
    """Label -> description. Raises InputError for other columns, and for a label that stands twice."""
    found: dict[str, str] = {}
    for where, cells in read_records(path):
        named = {name.strip().casefold(): cell for name, cell in cells.items()}
        if not {"label", "description"} <= named.keys():
            raise InputError(f"{where}: found {listed(cells)}; name two columns `label` and `description`")
        label, text = str(named["label"]).strip(), named["description"]
        if label in found:
            raise InputError(f"{where}: label {label!r} is described for the second time; keep one of the rows")
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{where}: the description of label {label!r} is {came(text)}; write a text")
        found[label] = text
    return found
