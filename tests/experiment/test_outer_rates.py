"""An experiment with a rate for each method: found, said, counted, foretold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from metanlp.core.errors import InputError
from metanlp.core.types import Roles
from metanlp.evaluation.results import Report
from metanlp.experiment.forecast import foretell
from metanlp.experiment.options import Experiment
from metanlp.experiment.prepare import prepare, roles_of
from metanlp.experiment.run import plan_of, run
from metanlp.learner.artefact import ADAPTER, CONFIG, META
from metanlp.report.tables import costs
from metanlp.training.processes import Ranks
from metanlp.training.rate_search import ALL, RATES

TRAINED = ("multitask", "protonet")


def asked(tiny: Path, out: Path) -> Experiment:
    return Experiment(
        model=str(tiny), data="mini/emotions,mini/formality", validation="mini/politeness", test="mini/urgency",
        method="protonet", baselines=("frozen", "multitask"), steps=17, lr="auto", rank=4, shots=(2,), episodes=2,
        test_rows=20, threads=1, validations=1, validation_trials=3, search_trials=1, precision="fp32", out=out,
        page=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    out = tmp_path_factory.mktemp("auto") / "out"
    found = run(asked(tiny, out))
    assert found
    return out, found


@pytest.mark.slow
def test_each_trained_method_says_its_rate_and_what_it_took(made: tuple[Path, Report]) -> None:
    out, found = made
    written = json.loads((out / "results.json").read_text())["methods"]
    for name in TRAINED:
        folder = out if name == "protonet" else out / "baselines" / name
        record = json.loads((folder / CONFIG).read_text())["record"]
        for said in (written[name], record):
            assert said["lr"] in RATES
            assert {*map(float, said["rate_scores"])} == {*RATES}
            assert 0 < said["rate_tokens"] < said["tokens"]
        assert not (folder / "rates").exists()
    assert written["frozen"]["rate_tokens"] == 0
    assert "lr" not in found.methods["frozen"]


@pytest.mark.slow
def test_the_training_is_that_of_the_rate_found(made: tuple[Path, Report], tiny: Path, tmp_path: Path) -> None:
    out, found = made
    given = replace(asked(tiny, tmp_path / "out"), lr=found.methods["protonet"]["lr"], baselines=())
    assert run(given)
    for name in (ADAPTER, META):
        assert (out / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


@pytest.mark.slow
def test_the_cost_shows_the_rates(made: tuple[Path, Report]) -> None:
    rows = {row["method"]: row for row in costs(made[1])}
    assert rows["protonet"]["outer rate"] in RATES
    assert rows["frozen"]["outer rate"] is None


def test_the_forecast_holds_the_short_runs(tiny: Path, tmp_path: Path) -> None:
    auto = replace(asked(tiny, tmp_path / "out"), steps=1000)
    shared = prepare(auto, Ranks.alone(), roles_of(auto, auto.test))
    with_rates = foretell(shared, plan_of(auto))
    given = foretell(replace(shared, asked=replace(auto, lr=1e-3)), plan_of(auto))
    assert with_rates.tokens == pytest.approx((1 + ALL) * given.tokens, rel=0.01)


def test_without_validation_tasks_a_rate_has_to_be_given(tiny: Path, tmp_path: Path) -> None:
    one = asked(tiny, tmp_path / "out")
    roles = roles_of(one, one.test)
    with pytest.raises(InputError, match="--lr auto is chosen on validation tasks, and there are none"):
        run(one, Roles(roles.train, (), roles.test))
    assert not (tmp_path / "out").exists()
