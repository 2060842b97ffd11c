"""The tasks that taught a learner: its own, and before them those of the learner that its training began from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from metanlp.tasks.sources.table import licence_of


@dataclass(frozen=True)
class Origin:
    """Where the texts of a task come from."""

    source: str  # "" where nobody wrote it down
    licence: str


def taught_before(record: Mapping[str, Any]) -> dict[str, Origin]:
    """What taught the learner that training began from, and those before it, by task; of a learner's record."""
    return {name: Origin(**origin) for name, origin in record.get("began", {}).items()}


def origins(record: Mapping[str, Any], names: Iterable[str]) -> dict[str, Origin]:
    """Where the tasks of these names come from, as the record of the run that read them has it."""
    sources, licences = (record.get(key, {}) for key in ("sources", "licences"))
    found = {name: sources.get(name, "") for name in names}
    return {name: Origin(source, licences.get(name) or licence_of(name, source)) for name, source in found.items()}


def teachers(record: Mapping[str, Any]) -> dict[str, Origin]:
    """All tasks that taught a learner, from its record."""
    return taught_before(record) | origins(record, record.get("tasks", {}).get("train", ()))


def began(record: Mapping[str, Any]) -> dict[str, Any]:
    """What training that begins from a learner with this record writes down of it."""
    return {"began": {name: asdict(origin) for name, origin in teachers(record).items()}}
