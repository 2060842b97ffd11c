"""An experiment that begins from a learner: with its adapters and views, and judged by rows that are new to it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metanlp.algorithms import ProtoNet
from metanlp.backbone import Backbone, Lora
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.outputs import LOCAL
from metanlp.evaluation.held_out import Protocol
from metanlp.experiment import leave_one_out
from metanlp.experiment.evaluate import evaluate
from metanlp.experiment.options import LEAVE_ONE_OUT, Experiment
from metanlp.experiment.run import run
from metanlp.learner.artefact import CONFIG
from metanlp.learner.learner import Learner
from metanlp.tasks.leaks import seen_of
from metanlp.tasks.taskset import read

HELD_OUT, SEEN = "mini/urgency", 7
VIEWS = ("adapted.4.all", "frozen.4.all")


@pytest.fixture(scope="module")
def start(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A learner of rank 8 with two views that has seen seven rows of the held-out task."""
    folder = tmp_path_factory.mktemp("start") / "learner"
    net = Backbone.load(str(tiny), Lora(rank=8, targets="all linear"), views=VIEWS, precision="fp32")
    theta = ProtoNet().init(net, torch.Generator().manual_seed(5))
    (task,) = read(HELD_OUT, data_root=None)
    some = replace(task, pools={"train": task.pools["train"][:SEEN]})
    Learner(ProtoNet(), net, theta, {"tasks": {"train": ["mini/one", "mini/two"]}}, seen_of([some])).save(folder)
    return folder


def asked(tiny: Path, start: Path, out: Path) -> Experiment:
    return Experiment(
        model=str(tiny), data="mini/emotions,mini/formality", validation="mini/politeness", test=HELD_OUT, steps=1,
        lr=1e-9, start=str(start), rank=4, baselines=("frozen", "multitask"), shots=(2,), episodes=2, threads=1,
        validation_trials=1, search_trials=1, precision="fp32", out=out, page=False,
    )  # fmt: skip


def test_every_trained_method_begins_there_and_rows_it_has_seen_do_not_judge(
    tiny: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(asked(tiny, start, tmp_path / "out"))
    assert found
    said = " ".join(capsys.readouterr().out.split())
    assert f"which learned from 2 tasks; {SEEN} evaluation rows left out, which it has seen" in said
    (task,) = read(HELD_OUT, data_root=None)
    assert found.protocol["seen_rows_left_out"] == {HELD_OUT: SEEN}
    assert found.protocol["asked"]["start"] == start.name
    assert found.counts[HELD_OUT]["available"] == len(task.pools["train"]) - SEEN
    before = Learner.load(start, base=str(tiny))
    assert list(found.methods) == ["start", "frozen", "multitask", "maml"], "it is tested as it is, too"
    beside = evaluate([start], read(HELD_OUT, data_root=None), Protocol((2,), 2), tmp_path / "as it is", base=str(tiny),
                      page=False)  # fmt: skip
    assert found.scores["start"] == beside.scores["protonet"]
    assert json.loads((tmp_path / "out" / LOCAL).read_text())["learners"]["start"] == str(start)
    for folder in (tmp_path / "out", tmp_path / "out" / "baselines" / "multitask"):
        learned = Learner.load(folder, base=str(tiny))
        assert learned.net.view_names == VIEWS
        assert json.loads((folder / CONFIG).read_text())["record"]["start"] == weights.checksum(before.theta)
        assert all(float((learned.theta[key] - before.theta[key]).abs().max()) < 1e-6 for key in before.theta)
        assert {*before.seen.tolist()} < {*learned.seen.tolist()}


def test_leave_one_out_is_refused_at_once_where_the_start_knows_a_task(tiny: Path, start: Path, tmp_path: Path) -> None:
    learner, (known,) = Learner.load(start, base=str(tiny)), read("mini/formality", data_root=None)
    replace(learner, seen=seen_of([known])).save(tmp_path / "knows")
    one = replace(asked(tiny, tmp_path / "knows", tmp_path / "out"), test=LEAVE_ONE_OUT, page=False)
    with pytest.raises(InputError, match="'mini/formality': the learner was trained on every row"):
        leave_one_out.run(one)
    assert not (tmp_path / "out").exists()


def test_evaluate_leaves_out_what_a_learner_has_seen(tiny: Path, start: Path, tmp_path: Path) -> None:
    found = evaluate([start], read(HELD_OUT, data_root=None), Protocol((2,), 2), tmp_path, base=str(tiny), page=False)
    assert found.protocol["seen_rows_left_out"] == {HELD_OUT: SEEN}


def test_another_encoder_than_the_starts_is_refused(tiny: Path, start: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    Backbone.load(str(tiny))._plain.save_pretrained(other)  # pyright: ignore[reportPrivateUsage, reportCallIssue]
    for file in tiny.glob("*"):
        if not (other / file.name).exists():
            (other / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="the adapter was learned on"):
        run(replace(asked(tiny, start, tmp_path / "out"), model=str(other)))
