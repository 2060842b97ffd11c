"""The trials that choose θ, rates and recipes: which they are, and that a run goes on with no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metanlp.core.errors import InputError
from metanlp.experiment.options import Experiment
from metanlp.experiment.prepare import Run, prepare, roles_of
from metanlp.experiment.run import run
from metanlp.training.processes import Ranks


@pytest.fixture
def asked(tiny: Path, tmp_path: Path) -> Experiment:
    return Experiment(
        model=str(tiny), data="mini/emotions,mini/formality", validation="mini/politeness", test="mini/urgency",
        method="protonet", baselines=(), steps=2, rank=4, shots=(2, 3, 4), episodes=2, test_rows=20, threads=1,
        validations=1, validation_trials=4, search_trials=1, precision="fp32", out=tmp_path / "out", page=False,
    )  # fmt: skip


def prepared(asked: Experiment) -> Run:
    return prepare(asked, Ranks.alone(), roles_of(asked, asked.test), quiet=True)


def test_they_have_the_two_fewest_shots_in_whatever_order_these_are_asked(asked: Experiment) -> None:
    ordered, other = prepared(asked), prepared(replace(asked, shots=(4, 3, 2)))
    assert {support.shots for _, support in ordered.trials} == {2, 3}
    assert ordered.validated_on == other.validated_on


@pytest.mark.parametrize(
    "change",
    [{"validation": "mini/complaint_aspects"}, {"shots": (3, 4)}, {"validation_trials": 3}],
    ids=lambda change: next(iter(change)),
)
def test_a_run_does_not_go_on_with_others(asked: Experiment, change: dict[str, Any]) -> None:
    run(asked)
    before = (asked.out / "meta_config.json").read_bytes()
    with pytest.raises(InputError, match=r"was made with validation\.mini/(politeness|complaint_aspects) = "):
        run(replace(asked, resume=True, **change))
    assert (asked.out / "meta_config.json").read_bytes() == before
    assert run(replace(asked, resume=True))
