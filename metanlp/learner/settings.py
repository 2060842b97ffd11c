"""An algorithm as `meta_config.json` has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from metanlp.algorithms import ALGORITHMS, Algorithm
from metanlp.core.errors import InputError
from metanlp.core.settings import from_json, to_json

# Settings that decide nothing and that files of earlier versions hold: training tasks with a head, and for protonet
# those of maml.
FORMER = {"classes", "head_only", "second_order", "multi_step"}


def algorithm_to_json(algorithm: Algorithm) -> dict[str, Any]:
    names = {cls: name for name, cls in ALGORITHMS.items()}
    return {"name": names[type(algorithm)], **to_json(algorithm)}


def algorithm_from_json(data: Mapping[str, Any]) -> Algorithm:
    """A setting that came after the file was written has its default, by which methods do what they did before. Raises
    InputError for a name or a key that this version does not know."""
    settings = dict(data)
    name = settings.pop("name", None)
    settings.pop("head", None)  # written by earlier versions: where the heads start, which θ has long left
    if not isinstance(name, str) or name not in ALGORITHMS:
        raise InputError(f"there is no algorithm {name!r}; known are {sorted(ALGORITHMS)}")
    for former in FORMER - {known.name for known in fields(ALGORITHMS[name])}:
        settings.pop(former, None)
    return from_json(ALGORITHMS[name], settings, whole=False)
