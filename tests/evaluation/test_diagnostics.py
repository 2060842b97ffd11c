"""What a test shows beside its scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from form_tasks import FORMS as NAMES
from form_tasks import task_of
from near import near

from metanlp.algorithms import Frozen, Hypernet, Maml, ProtoNet
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone
from metanlp.core.types import Task
from metanlp.evaluation import diagnostics
from metanlp.evaluation.diagnostics import Diagnostics, TaskDiagnostics, nearest, view_shares
from metanlp.evaluation.held_out import HeldOutTask, Protocol
from metanlp.evaluation.meta_test import meta_test
from metanlp.evaluation.results import Report
from metanlp.experiment.leave_one_out import looked_at
from metanlp.forms import Scored
from metanlp.learner.learner import Learner
from metanlp.tasks.reading.build import task_from_rows

PROTOCOL = Protocol(shots=(2, 4), episodes=3, test_rows=20, seed=1)


def untrained(net: Backbone, algorithm: Any) -> Learner:
    return Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0)))


def examined(net: Backbone, tasks: Sequence[Task], protocol: Protocol = PROTOCOL) -> tuple[Report, Diagnostics]:
    seen = Diagnostics("maml")
    learners = {"frozen": untrained(net, Frozen()), "maml": untrained(net, Maml(inner=Inner(steps=1)))}
    return meta_test(learners, tasks, protocol, diagnostics=seen), seen


@pytest.fixture(scope="module")
def looked(net: Backbone, toy_tasks: tuple[Task, ...]) -> tuple[Report, Diagnostics]:
    return examined(net, toy_tasks)


def test_bins_hold_every_answer_once(net: Backbone, toy_tasks: tuple[Task, ...]) -> None:
    """With one support set the error that they give is the one that is reported."""
    found, _ = examined(net, toy_tasks[:1], replace(PROTOCOL, shots=(4,), episodes=1))
    for name in ("frozen", "maml"):
        bins = {key: np.array(values) for key, values in found.reliability[name]["4"].items()}
        assert set(bins) == {"answers", "sure", "right"}
        right = found.scores[name][toy_tasks[0].name]["4"]["accuracy"]["mean"]
        assert bins["right"].sum() / bins["answers"].sum() == pytest.approx(right)
        assert (bins["right"] <= bins["answers"]).all()
        assert (bins["sure"] <= np.linspace(0.1, 1, 10) * bins["answers"] + 1e-3).all()
        assert (bins["sure"] >= np.linspace(0, 0.9, 10) * bins["answers"] - 1e-3).all()
        error = np.abs(bins["sure"] - bins["right"]).sum() / bins["answers"].sum()
        assert error == pytest.approx(found.calibration[name]["4"], abs=1e-4)


def test_views_have_shares_of_one(
    looked: tuple[Report, Diagnostics], net: Backbone, toy_tasks: tuple[Task, ...]
) -> None:
    views = looked[0].views
    assert views["names"] == list(net.view_names)
    assert set(views["tasks"]) == {task.name for task in toy_tasks}
    for shares in (views["prior"], *views["tasks"].values()):
        assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert views["prior"] == pytest.approx([1 / len(net.view_names)] * len(net.view_names), abs=1e-3)
    assert any(max(shares) > 1.2 * min(shares) for shares in views["tasks"].values())


def test_a_view_that_is_trusted_counts_more(net: Backbone, toy_tasks: tuple[Task, ...]) -> None:
    support = HeldOutTask(toy_tasks[0], net, PROTOCOL).supports[0]
    for algorithm in (ProtoNet(), Maml(inner=Inner(steps=2)), Hypernet()):
        learner = untrained(net, algorithm)
        theta = learner.theta | {"views/prior": torch.tensor([0.0, 9.0, 0.0, 0.0, 0.0, 0.0])}
        share, prior = view_shares(replace(learner, theta=theta), support)
        assert share.argmax() == prior.argmax() == 1
        assert not share.requires_grad


def test_steps_of_the_adapters_do_not_move_the_shares(net: Backbone, toy_tasks: tuple[Task, ...]) -> None:
    support = HeldOutTask(toy_tasks[0], net, PROTOCOL).supports[0]
    shares = [view_shares(untrained(net, Maml(inner=Inner(steps=steps))), support)[0] for steps in (0, 2)]
    near(*shares)


def test_the_hardest_task_is_the_one_with_the_lowest_score(
    looked: tuple[Report, Diagnostics], toy_tasks: tuple[Task, ...]
) -> None:
    found, seen = looked
    hardest = found.hardest
    by_task = {name: cells["4"]["accuracy"]["mean"] for name, cells in found.scores["maml"].items()}
    assert hardest["task"] == min(by_task, key=lambda name: by_task[name]) == seen.mistakes["task"]
    assert hardest["score"] == pytest.approx(by_task[hardest["task"]], abs=1e-6)
    assert hardest["shots"] == 4
    counts = np.array(hardest["confusion"])
    (task,) = [task for task in toy_tasks if task.name == hardest["task"]]
    assert hardest["labels"] == list(task.labels)
    assert counts.diagonal().sum() / counts.sum() == pytest.approx(hardest["score"], abs=0.05)


def test_no_text_of_a_row_is_published(looked: tuple[Report, Diagnostics], toy_tasks: tuple[Task, ...]) -> None:
    found, seen = looked
    published = json.dumps(found.to_json(), ensure_ascii=False)
    assert seen.mistakes["rows"]
    texts = [text for row in seen.mistakes["rows"] for text in row["text"]]
    everything = {text for task in toy_tasks for row in task.pools["train"] for text in map(str, row.values())}
    assert {*texts} <= everything
    assert not [text for text in everything if len(text) > 20 and text in published]
    assert len(published) < 120_000


def test_the_worst_mistake_is_the_surest(looked: tuple[Report, Diagnostics]) -> None:
    rows = looked[1].mistakes["rows"]
    assert len(rows) <= diagnostics.WORST
    assert all(row["right"] != row["said"] for row in rows)
    assert [row["probability"] for row in rows] == sorted((row["probability"] for row in rows), reverse=True)


@pytest.mark.parametrize("form", NAMES)
def test_mistakes_of_every_form_are_told_in_words(net: Backbone, form: str) -> None:
    task = task_of(form)
    found, seen = examined(net, [task], Protocol(shots=(4,), episodes=2, seed=1))
    assert found.hardest["task"] == task.name
    assert ("confusion" in found.hardest) == (form == "classify")
    assert (found.reliability != {}) == (form in ("classify", "choose", "span"))
    assert found.views["tasks"].keys() == {task.name}
    json.dumps(seen.mistakes)
    for row in seen.mistakes["rows"]:
        assert row["right"] != row["said"] or form == "regress"
        assert all(isinstance(row[key], str) for key in ("right", "said"))
        assert all(len(part) <= diagnostics.LONGEST + 2 for part in row["text"])


def test_many_classes_make_a_small_table(net: Backbone) -> None:
    """The classes that are mixed up stay in sight, the others are added up; no row is lost."""
    words = [f"word{n:02}" for n in range(40)]
    task = task_from_rows("many", [{"text": f"{word} {n}", "label": word} for word in words for n in range(3)])
    held_out = HeldOutTask(task, net, Protocol(shots=(1,), episodes=1))
    look = TaskDiagnostics(held_out, 1)
    truth = np.array([row["label"] for row in held_out.rows])
    said = np.where(truth < 10, (truth + 1) % 10, truth)
    one = np.ones(len(truth), dtype=np.int64)
    look.add(held_out.supports[0], Scored(np.eye(40)[said], one, 0 * one))
    found = look.mixed_up()
    counts = np.array(found["confusion"])
    assert counts.shape == (diagnostics.MOST + 1,) * 2
    assert found["labels"][:10] == words[:10]
    assert found["labels"][-1] == f"{40 - diagnostics.MOST} others"
    assert counts.sum() == (~held_out.supports[0].excluded).sum()
    assert counts.diagonal()[:10].sum() == 0
    assert counts[-1, :-1].sum() == counts[:-1, -1].sum() == 0


def test_a_copy_is_the_nearest_training_task(net: Backbone, toy_tasks: tuple[Task, ...]) -> None:
    copies = [replace(task, name=f"copy of {task.name}") for task in toy_tasks[:2]]
    found = nearest(net, toy_tasks, copies)
    for task, copy in zip(toy_tasks, copies, strict=False):
        assert found[copy.name][0] == {"task": task.name, "cosine": pytest.approx(1, abs=1e-3)}
        cosines = [near["cosine"] for near in found[copy.name]]
        assert cosines == sorted(cosines, reverse=True)
        assert len(cosines) == diagnostics.NEAREST
    assert nearest(net, toy_tasks[:2], copies) == {}, "two tasks have nothing in common but their mean"


def test_several_tests_are_seen_as_one(net: Backbone, toy_tasks: tuple[Task, ...]) -> None:
    """As when each task is left out once: bins add up, the hardest is that of all."""
    whole, _ = examined(net, toy_tasks[:2])
    parts = [examined(net, [task])[0] for task in toy_tasks[:2]]
    joined = looked_at(parts)
    assert joined["hardest"] == whole.hardest
    assert joined["views"]["tasks"] == whole.views["tasks"]
    for name, by_k in whole.reliability.items():
        for k, bins in by_k.items():
            for key, values in bins.items():
                assert joined["reliability"][name][k][key] == pytest.approx(values, abs=1e-3)
    assert looked_at([Report({}, {}, {}, (), "maml")]) == {"reliability": {}, "views": {}, "hardest": {}, "nearest": {}}
