"""A finished run is left alone, other settings are refused by name, two processes go on for one."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from case import Cases, content, refused, tests
from tiny_learner import shared

from metanlp.algorithms import Maml
from metanlp.core.errors import InputError
from metanlp.core.weights import equal

CHANGES: dict[str, dict[str, Any]] = {
    "seed": {"seed": 2},
    "plan.lr": {"plan": {"lr": 2e-2}},
    "plan.steps": {"steps": 7},
    "plan.meta_batch": {"plan": {"meta_batch": 4}},
    "plan.clip": {"plan": {"clip": 0.5}},
    "plan.exact": {"plan": {"exact": False}},
    "algorithm.": {"method": Maml()},
    "validation.": {"validated_on": {"mini/politeness": "4 shots, set 0"}},
}


def cases(count: int, folder: Path) -> Cases:
    """A finished run, each changed setting, and the tests of one run that two processes go on with."""
    yield from islice(each(folder), count)


def each(folder: Path) -> Cases:
    tiny = shared()
    first = tiny.trained(folder / "run")
    before = content(folder / "run")
    again = tiny.trained(folder / "run")
    same = equal(first.theta, again.theta) and content(folder / "run") == before
    yield "" if same else "a finished run did something"
    for key, change in CHANGES.items():
        said = refused(lambda change=change: tiny.trained(folder / "run", **change), InputError, key)
        yield said or ("" if content(folder / "run") == before else f"{key}: the run is another than before")
    yield from tests("tests/training/test_meta_train.py", "-k", "finished or older_run or other_ or more_processes")
