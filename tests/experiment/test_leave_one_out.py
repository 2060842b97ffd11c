"""Each task judges once, after a training on all the others."""

from __future__ import annotations

import io
import json
import shlex
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metanlp.cli.commands import COMMANDS
from metanlp.core.errors import DamagedError, InputError
from metanlp.core.settings import parse
from metanlp.evaluation.answers import to_json
from metanlp.evaluation.results import Report
from metanlp.experiment import leave_one_out
from metanlp.experiment.options import LEAVE_ONE_OUT, Experiment
from metanlp.learner.artefact import CONFIG
from metanlp.learner.learner import Learner

TASKS = ["mini/emotions", "mini/answer_match", "mini/formality"]


@pytest.fixture(scope="module")
def asked(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return Experiment(
        model=str(tiny), data=",".join(TASKS), validation="mini/urgency", test=LEAVE_ONE_OUT, steps=2, rank=4,
        baselines=("frozen",), shots=(2, 4), episodes=3, test_rows=12, validation_trials=2, search_trials=1, threads=1,
        precision="fp32", out=tmp_path_factory.mktemp("one") / "out",
    )  # fmt: skip


@pytest.fixture(scope="module")
def told(asked: Experiment) -> tuple[Report, list[str]]:
    """What was found, and what was said of it."""
    with redirect_stdout(io.StringIO()) as said:
        report = leave_one_out.run(asked)
    return report, said.getvalue().splitlines()


@pytest.fixture(scope="module")
def found(told: tuple[Report, list[str]]) -> Report:
    return told[0]


def stored(path: Path) -> dict[str, Any]:
    return json.loads((path / "results.json").read_text())


def test_each_task_judges_once_and_does_not_teach_then(asked: Experiment, found: Report) -> None:
    for left_out in TASKS:
        record = json.loads((asked.out / left_out / CONFIG).read_text())["record"]
        assert record["tasks"] == {"train": [t for t in TASKS if t != left_out], "validation": ["mini/urgency"]}
        assert {*stored(asked.out / left_out)["scores"]["maml"]} == {left_out}
    assert {name: [*by_task] for name, by_task in found.scores.items()} == {"frozen": TASKS, "maml": TASKS}


def test_a_fold_is_one_line_and_the_forecast_is_of_all(told: tuple[Report, list[str]]) -> None:
    _, lines = told
    folds = [line for line in lines if "left out: " in line]
    assert [line.split(" left out: ")[0] for line in folds] == [f"{n} of 3, {task}" for n, task in enumerate(TASKS, 1)]
    assert all(line.endswith("shots)") for line in folds)  # whole, in a file too
    first = lines.index(folds[0])
    assert sum(line.startswith("memory: ") for line in lines) == 1
    assert lines[first : first + len(folds)] == folds  # and nothing between them
    assert all("maml " in line and "frozen " in line and line.endswith("% at 4 shots)") for line in folds)
    (forecast,) = [line for line in lines if line.startswith("forecast: ")]
    assert ", 3 tasks left out in turn" in forecast
    assert sum(line.startswith("model: ") for line in lines) == 1
    assert sum(line.startswith("Which method to take?") for line in lines) == 1
    assert sum(line.startswith("report: ") for line in lines) == 1


def test_it_ends_in_the_command_that_trains_on_all_tasks(asked: Experiment, found: Report) -> None:
    """Which the folder of the comparison, too, is answered with, as it has learners of all tasks but one."""
    command = json.loads((asked.out / "local.json").read_text())["train"]["maml"]
    words = shlex.split(command)
    assert words[:4] == ["metanlp", "train", "--data", ",".join(TASKS)]
    assert words[4:] == ["--method", "maml", "--model", asked.model, "--start", "none", "--out", f"{asked.out}-maml"]
    parsed = parse(COMMANDS, words[1:])
    assert (parsed.data, parsed.start) == (",".join(TASKS), "none")
    with pytest.raises(InputError, match=r"learners of all tasks but one; metanlp train .* trains one on all$"):
        Learner.load(asked.out)


def test_the_means_are_over_the_tasks_left_out(asked: Experiment, found: Report) -> None:
    folds = [stored(asked.out / task) for task in TASKS]
    assert stored(asked.out) == json.loads(json.dumps(to_json(found)))
    for method in ("frozen", "maml"):
        for k in ("2", "4"):
            means = [fold["means"][method][k]["accuracy"]["mean"] for fold in folds]
            assert found.means[method][k]["accuracy"]["mean"] == pytest.approx(np.mean(means), abs=1e-6)
            for task, fold in zip(TASKS, folds, strict=True):
                again, before = found.scores[method][task][k], fold["scores"][method][task][k]
                assert {m: one["episodes"] for m, one in again.items()} == {m: o["episodes"] for m, o in before.items()}
    mean = next(row for row in found.paired if row["task"] is None and row["k"] == 4)
    sides = [found.means[method]["4"]["accuracy"]["mean"] for method in ("maml", "frozen")]
    assert mean["difference"] == pytest.approx(sides[0] - sides[1], abs=1e-6)
    assert found.methods["maml"]["tokens"] == sum(fold["methods"]["maml"]["tokens"] for fold in folds)
    assert [*found.methods["maml"]["recipes"]] == TASKS
    for folder in (asked.out, *(asked.out / task for task in TASKS)):
        assert "Does meta-learning help" in (folder / "report.html").read_text()
    kept = json.loads((asked.out / "local.json").read_text())["learners"]
    assert {
        name: Learner.load(folder, base=asked.model).record["tasks"]["train"] for name, folder in kept.items()
    } == dict.fromkeys(("frozen", "maml"), TASKS[1:])
    assert str(asked.out) not in json.dumps(stored(asked.out))


def test_it_goes_on_where_it_stopped(asked: Experiment, found: Report, tmp_path: Path) -> None:
    """A task that is done stays as it is, one that was trained is not trained again, one that is missing is made."""
    out = tmp_path / "out"
    shutil.copytree(asked.out, out)
    for path in (out, out / TASKS[1]):  # as a run leaves it that is stopped before the test of the second task
        (path / "results.json").unlink()
    for path in (out / TASKS[1] / CONFIG, out / TASKS[1] / "baselines" / "frozen" / CONFIG):
        path.unlink()
    shutil.rmtree(out / TASKS[2])
    kept = (out / TASKS[0] / "results.json").stat().st_mtime_ns
    log = (out / TASKS[1] / "metrics.jsonl").read_text()
    again = leave_one_out.run(replace(asked, out=out, resume=True, page=False))
    assert (out / TASKS[0] / "results.json").stat().st_mtime_ns == kept
    assert (out / TASKS[1] / "metrics.jsonl").read_text() == log
    assert again.protocol == found.protocol
    assert again.paired == found.paired
    assert again.means == found.means
    first = [report.scores["maml"][TASKS[0]] for report in (again, found)]
    assert first[0] == first[1]  # the others were scored anew, so that the last digit of their calibration may differ


def test_what_was_asked_otherwise_or_is_damaged_is_not_taken(asked: Experiment, found: Report) -> None:
    with pytest.raises(InputError, match=r"was made with seed = 0, now it is 1; resume with the same"):
        leave_one_out.run(replace(asked, seed=1, resume=True))
    path = asked.out / TASKS[2] / "results.json"
    whole = path.read_text()
    path.write_text(whole[:100])
    with pytest.raises(DamagedError, match=r"results\.json is damaged"):
        leave_one_out.run(replace(asked, resume=True))
    path.write_text(whole)
    assert leave_one_out.run(replace(asked, resume=True, page=False)).means == found.means


def test_an_overview_may_be_asked_for_later(
    asked: Experiment, found: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leave_one_out.run(replace(asked, resume=True, overview=True, page=False)).means == found.means
    said = capsys.readouterr().out
    assert "Mean accuracy over held-out tasks" in said
    assert "− maml" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": "mini/emotions"}, "--data has one task to train on; without it none is left"),
        ({"shots": (500,)}, r"no test task can give any of \[500\] shots"),
        ({"data": "mini/emotoins"}, "no tasks called 'mini/emotoins'"),
    ],
)
def test_bad_input_leaves_nothing(asked: Experiment, change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said) as caught:
        leave_one_out.run(replace(asked, out=tmp_path / "out", **change))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "mamll"}, "'mamll' is not known"),
        ({"baselines": ("frozen", "llm")}, "--llm-url"),
        ({"tasks_per_pass": 3}, "not a multiple of --tasks-per-pass 3"),
        ({"model": "nobody/nothing"}, "nobody/nothing"),
    ],
)
def test_bad_input_costs_nothing_of_an_earlier_run(
    asked: Experiment, found: Report, change: dict[str, Any], said: str
) -> None:
    before = {path: path.read_bytes() for path in asked.out.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=said):
        leave_one_out.run(replace(asked, replace=True, **change))
    assert {path: path.read_bytes() for path in asked.out.rglob("*") if path.is_file()} == before
