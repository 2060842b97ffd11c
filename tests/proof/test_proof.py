"""A short version of each check: the same code with fewer cases."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from case import UnableError
from checks import CHECKS


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of a tracker that breaks
@pytest.mark.parametrize("number", [number for number, check in CHECKS.items() if check.short])
def test_a_short_version_of_the_check(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "training")  # tests there are cases here
    check = CHECKS[number]
    try:
        found = [*importlib.import_module(check.module).cases(check.short, tmp_path)]
    except UnableError as error:
        pytest.skip(str(error))
    assert len(found) >= (1 if check.few else check.short)
    assert [said for said in found if said] == []
