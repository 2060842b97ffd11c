"""From text to a learner in all its stages, as recipes/from_scratch.py runs them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Here, mini_tasks
from near import near

from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.evaluation.results import Report, read_report
from metanlp.experiment.options import Trail
from metanlp.experiment.prepare import roles_of
from metanlp.experiment.trail import META, MULTITASK, PRETRAINED, RANDOM, STAGES, claim, experiment_of, trail
from metanlp.learner.learner import Learner
from metanlp.report.stages import ADAPTED, FROZEN, row_of, stage_rows

RECIPE = Path(__file__).parents[2] / "recipes" / "from_scratch.py"
FROZEN_OF = Path("baselines", "frozen")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    lines = [row["text"] for task in mini_tasks().values() for row in task.pools["train"] if "text" in row]
    documents = [" ".join(lines[at : at + 6]) for at in range(0, len(lines), 6)]
    (folder / "mini.txt").write_text("\n\n".join(documents))
    return folder


@pytest.fixture(scope="module")
def asked(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Trail:
    return Trail(
        text=str(text), data="mini/emotions,mini/formality", validation="mini/politeness", test="mini/urgency",
        mix=0.5, layers=2, width=16, heads=2, vocabulary=300, steps=(3, 2, 2), meta_batch=1, shots=(2,), episodes=2,
        test_rows=20, trials=2, threads=1, out=tmp_path_factory.mktemp("trail") / "out",
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(asked: Trail) -> Report:
    return trail(asked)


def learner(out: Path, stage: str, folder: str | Path = "") -> Learner:
    return Learner.load(out / stage / folder, base=str(out / (RANDOM if stage == RANDOM else PRETRAINED)))


def test_every_stage_is_tested_in_both_ways(found: Report, asked: Trail) -> None:
    assert list(found.methods) == [row_of(stage, way) for stage in STAGES for way in (FROZEN, ADAPTED)]
    assert read_report(asked.out / "results.json").scores == found.scores
    costs = found.protocol["stages"]
    assert list(costs) == list(STAGES)
    assert costs[RANDOM] == {"seconds": 0.0, "tokens": 0.0}
    assert all(costs[stage]["tokens"] > 0 for stage in STAGES[1:])
    near(found.protocol["chance"], 1 / 3)
    rows = stage_rows(found)
    assert rows[-1]["percent"] == round(100 * found.score(row_of(META, ADAPTED)).mean, 2)
    assert {path.name for path in (asked.out / "plots").iterdir()} >= {"stages.csv"}


def test_each_stage_begins_where_the_one_before_ended(found: Report, asked: Trail) -> None:
    with torch.no_grad():
        before, after = (learner(asked.out, stage, FROZEN_OF).net for stage in (RANDOM, PRETRAINED))
    assert before.base.sha256 != after.base.sha256
    assert before.encode([("a text",)]).ids.tolist() == after.encode([("a text",)]).ids.tolist()
    last, joint = learner(asked.out, META), learner(asked.out, MULTITASK)
    assert last.record["start"] == weights.checksum(joint.theta)
    assert joint.record["steps"] == last.record["steps"] == 2
    taught = last.record["tasks"]["train"]
    assert {name.partition("/")[0] for name in taught} == {"mini", "masked", "adjacent"}
    assert all(name.startswith("mini/") for name in joint.record["tasks"]["train"])
    assert weights.checksum(learner(asked.out, META, FROZEN_OF).theta) == weights.checksum(last.theta)


def test_a_stage_that_is_done_stays_as_it_is(found: Report, asked: Trail, tmp_path: Path) -> None:
    """As a run leaves it that is stopped before meta-training: its last stage is made anew, to the same scores."""
    out = tmp_path / "out"
    shutil.copytree(asked.out, out)
    (out / "results.json").unlink()
    shutil.rmtree(out / META)
    kept = [out / PRETRAINED / "results.json", out / MULTITASK / "meta_model.safetensors"]
    before = [path.stat().st_mtime_ns for path in kept]
    log = (out / MULTITASK / "metrics.jsonl").read_text()
    again = trail(replace(asked, out=out, resume=True))
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert (out / MULTITASK / "metrics.jsonl").read_text() == log
    assert weights.checksum(learner(out, META).theta) == weights.checksum(learner(asked.out, META).theta)
    for row in found.methods:
        near(again.score(row).mean, found.score(row).mean)


def test_a_whole_run_is_shown_again(found: Report, asked: Trail, capsys: pytest.CaptureFixture[str]) -> None:
    written = (asked.out / "results.json").stat().st_mtime_ns
    assert trail(replace(asked, resume=True)).scores == read_report(asked.out / "results.json").scores
    assert (asked.out / "results.json").stat().st_mtime_ns == written
    said = " ".join(capsys.readouterr().out.split())
    assert "chance: 33.3 %" in said
    assert "does not show how good a learner can be" in said


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"method": "mamel"}, "method 'mamel' is not known"),
        ({"method": "frozen"}, "learns nothing from tasks"),
        ({"steps": (1, 0, 1)}, "one length above 0"),
        ({"test": "mini/urgency", "shots": (500,)}, "no test task can give any of"),
        ({"text": "nowhere"}, "nowhere: is no file, folder"),
        ({}, "go on with --resume"),
        ({"resume": True, "seed": 1}, "was made with seed = 0, now it is 1; resume with the same"),
    ],
)
def test_what_can_not_be_is_said_before_anything_is_touched(
    found: Report, asked: Trail, tmp_path: Path, wrong: dict[str, object], said: str
) -> None:
    here = asked.out if not wrong or "resume" in wrong else tmp_path / "new"
    before = sorted(asked.out.rglob("*"))
    with pytest.raises(InputError, match=said):
        trail(replace(asked, out=here, **wrong))  # type: ignore[arg-type]
    assert sorted(asked.out.rglob("*")) == before
    assert not (tmp_path / "new").exists()


def test_the_recipe_says_one_line_where_the_text_is_too_little(here: Here, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("one two three.\n")
    code, _, said = here(
        "python", RECIPE, "--text", tmp_path / "short.txt", "--steps", "1", "1", "1", "--out", tmp_path / "out"
    )
    assert code == 2
    assert "words stand in 20 or more sentences" in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_run_that_replaces_another_takes_nothing_of_it(found: Report, asked: Trail, tmp_path: Path) -> None:
    anew = replace(asked, out=tmp_path / "out", replace=True)
    shutil.copytree(asked.out, anew.out)
    claim(anew, roles_of(experiment_of(anew, MULTITASK), anew.test))
    left = {path.name for path in anew.out.rglob("[!.]*") if path.is_file()}
    assert left == {"leakage.json", "options.json"}


def test_options_are_kept_beside_the_stages(found: Report, asked: Trail) -> None:
    kept = json.loads((asked.out / "options.json").read_text())
    assert kept["steps"] == [3, 2, 2]
    assert found.protocol["asked"]["text"] == Path(asked.text).name
