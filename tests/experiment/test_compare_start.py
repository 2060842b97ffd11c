"""Where training begins where the learner that comes with the package is asked for, or nothing is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metanlp.core.errors import InputError
from metanlp.core.types import Roles
from metanlp.experiment.options import AUTO, NOTHING, Experiment
from metanlp.experiment.start import settled_start, unfit
from metanlp.tasks.taskset import read

ASKED = Experiment(model="minilm", start=AUTO, shots=(2, 4))


def judging(name: str) -> Roles:
    return Roles((), (), tuple(read(name, data_root=None)))


def test_it_is_the_packaged_learner_where_it_fits() -> None:
    assert settled_start(ASKED, [judging("mini/urgency")]).start == "default"
    assert settled_start(replace(ASKED, start=NOTHING), [judging("mini/urgency")]).start is None
    assert settled_start(replace(ASKED, start=None), []).start is None


@pytest.mark.parametrize(
    ("changes", "task", "why"),
    [
        ({}, "mini/formality", "task 'mini/formality': the learner was trained on every row that judges"),
        ({"model": "bert-base-uncased"}, "mini/urgency", "it was learned on minilm, and --model is bert-base-uncased"),
        ({"rank": 4}, "mini/urgency", "it has a --rank of its own"),
        ({"layers": "all"}, "mini/urgency", "it has a --layers of its own"),
    ],
)
def test_else_it_is_nothing_and_a_line_says_why(
    changes: dict[str, Any], task: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, roles = replace(ASKED, **changes), [judging("mini/urgency"), judging(task)]
    assert settled_start(asked, roles).start == ""
    said = " ".join(capsys.readouterr().out.split())
    assert said == f"start: nothing, and not the learner that comes with the package: {why}"
    assert unfit(asked, roles) == why
    settled_start(asked, roles, speaks=False)
    assert capsys.readouterr().out == ""


def test_one_that_is_asked_for_is_refused_beside_another_model_and_not_for_want_of_a_network(tiny: Path) -> None:
    asked = replace(ASKED, start="default", model="bert-base-uncased")
    with pytest.raises(InputError, match=r"--start default was learned on \S+MiniLM\S+, and --model is bert-base") as e:
        settled_start(asked, [judging("mini/urgency")])
    assert "give --model minilm, or leave --start out" in str(e.value)
    for model in ("minilm", "sentence-transformers/all-MiniLM-L6-v2@main", str(tiny)):  # the last is looked at later
        assert settled_start(replace(asked, model=model), []).start == "default"
