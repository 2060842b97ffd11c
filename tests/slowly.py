"""What minutes are saved by: of many cases of one law a few are run each time, all by `make proof`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_but(fast: Collection[Any], cases: Iterable[Any]) -> list[Any]:
    """The cases, those marked as slow that are not among the `fast` ones."""
    given = list(cases)
    assert all(case in given for case in fast)
    return [case if case in fast else pytest.param(*_values(case), marks=pytest.mark.slow) for case in given]


def _values(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)
