"""The report: the same episodes for every method, honest intervals, one serial form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from form_tasks import task_of

from metanlp.algorithms import Frozen, Maml, ProtoNet
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone, Lora
from metanlp.core.errors import InputError
from metanlp.core.types import Task
from metanlp.evaluation.held_out import HeldOutTask, Protocol, Support
from metanlp.evaluation.meta_test import (
    Judge,
    blocks_of,
    by_block,
    count_trials,
    dealt,
    examine,
    meta_test,
    overlap,
)
from metanlp.evaluation.results import Report, Result
from metanlp.learner.learner import Learner
from metanlp.tasks.reading.build import task_from_rows

PROTOCOL = Protocol(shots=(1, 2), episodes=3, test_rows=20, seed=1)


def untrained(net: Backbone, algorithm: Any, **record: Any) -> Learner:
    return Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0)), record)


@pytest.fixture(scope="module")
def learners(net: Backbone) -> dict[str, Learner]:
    return {
        "frozen": untrained(net, Frozen()),
        "protonet": untrained(net, ProtoNet(), train_s=2.5, tokens=1000, curve={"0": 0.5, "1": 0.6}),
        "maml": untrained(net, Maml(inner=Inner(steps=1))),
    }


@pytest.fixture(scope="module")
def tasks(toy_tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    """Three tasks that draw their support sets, and one that brings its own."""
    emotions, matches, _, intents, _ = toy_tasks
    rows = matches.pools["train"]
    chosen = [[next(r for r in rows[at:] if r["label"] == label) for label in (0, 1)] for at in (0, 9)]
    fixed = replace(matches, name="fixed", supports={1: chosen}, pools={"train": rows[:20], "test": rows[20:40]})
    few = task_from_rows("few", [{"text": f"{word} {n}", "label": word} for word in ("good", "bad") for n in range(2)])
    return emotions, intents, fixed, few


@pytest.fixture(scope="module")
def report(learners: dict[str, Learner], tasks: tuple[Task, ...]) -> Report:
    return meta_test(learners, tasks, PROTOCOL)


def test_results_json_is_all_of_it(report: Report) -> None:
    data = report.to_json()
    text = json.dumps(data, allow_nan=False)
    assert json.loads(text) == data
    assert Report.from_json(json.loads(text)) == report
    assert list(data)[:7] == ["protocol", "versions", "methods", "scores", "means", "paired", "curves"]
    assert data["schema"] == 1


def test_two_runs_are_the_same_but_for_time(
    learners: dict[str, Learner], tasks: tuple[Task, ...], report: Report
) -> None:
    again = meta_test(dict(learners), tasks, PROTOCOL)
    assert again.protocol == report.protocol
    assert len(report.protocol["episodes_sha256"]) == 64
    assert (again.scores, again.means, again.paired) == (report.scores, report.means, report.paired)


def test_other_episodes_have_another_hash(
    learners: dict[str, Learner], tasks: tuple[Task, ...], report: Report
) -> None:
    one = {"frozen": learners["frozen"]}
    found = [meta_test(one, tasks[:1], p).protocol["episodes_sha256"] for p in (PROTOCOL, replace(PROTOCOL, seed=2))]
    assert len({*found, report.protocol["episodes_sha256"]}) == 3


def test_a_method_does_not_differ_from_itself(learners: dict[str, Learner], tasks: tuple[Task, ...]) -> None:
    found = meta_test({"a": learners["maml"], "b": learners["maml"]}, tasks, PROTOCOL)
    assert found.paired
    assert all(row["difference"] == 0 for row in found.paired)
    assert {(row["low"], row["high"]) for row in found.paired} <= {(0, 0), (None, None)}
    assert found.scores["a"] == found.scores["b"]


def test_every_method_task_and_shot_is_there(
    report: Report, learners: dict[str, Learner], tasks: tuple[Task, ...]
) -> None:
    for name in learners:
        assert {task: list(by_k) for task, by_k in report.scores[name].items()} == {
            "mini/emotions": ["1", "2"],
            "mini/intents_home": ["1", "2"],
            "fixed": ["1"],
            "few": ["1"],
        }
        assert list(report.means[name]) == ["1", "2"]
    counts = {t: [len(c["accuracy"]["episodes"]) for c in by_k.values()] for t, by_k in report.scores["maml"].items()}
    assert counts == {"mini/emotions": [3, 3], "mini/intents_home": [3, 3], "fixed": [2], "few": [3]}


def test_what_a_task_cannot_give_is_listed_with_the_reason(report: Report) -> None:
    left_out = report.protocol["left_out"]
    assert left_out["mini/emotions"]["shots"] == {}
    assert left_out["fixed"]["shots"] == {"2": "its support sets are for [1] shots"}
    assert left_out["few"]["shots"] == {"2": "its smallest class has 2 rows"}


def test_intervals_hold_their_means(report: Report) -> None:
    by_k = [cells for by_task in report.scores.values() for cells in by_task.values()] + list(report.means.values())
    cells = [cell for columns in by_k for by_metric in columns.values() for cell in by_metric.values()]
    assert len(cells) > 50
    for cell in (cell for cell in cells if cell["low"] is not None):
        assert cell["low"] - 1e-9 <= cell["mean"] <= cell["high"] + 1e-9
        assert cell["low"] >= 0 or cell["low"] >= -1
        assert "episodes" not in cell or cell["mean"] == pytest.approx(np.mean(cell["episodes"]), abs=1e-6)
    for row in (row for row in report.paired if row["low"] is not None):
        assert row["low"] - 1e-9 <= row["difference"] <= row["high"] + 1e-9


def test_the_mean_is_over_tasks_and_differences_are_of_episodes(report: Report) -> None:
    names = ["mini/emotions", "mini/intents_home"]
    columns = {m: [report.scores[m][t]["2"]["accuracy"]["episodes"] for t in names] for m in report.methods}
    means = {m: np.mean(columns[m]) for m in report.methods}
    for name in report.methods:
        assert report.means[name]["2"]["accuracy"]["mean"] == pytest.approx(means[name], abs=1e-6)
    (row,) = [r for r in report.paired if (r["a"], r["b"], r["k"], r["task"]) == ("maml", "frozen", 2, None)]
    assert row["difference"] == pytest.approx(means["maml"] - means["frozen"], abs=1e-6)
    assert {(r["a"], r["b"]) for r in report.paired} == {("maml", "frozen"), ("maml", "protonet")}
    tasks = [r["task"] for r in report.paired if (r["b"], r["k"]) == ("frozen", 1)]
    assert tasks == ["mini/emotions", "mini/intents_home", "fixed", "few", None]


def test_the_one_to_compare_may_be_named(learners: dict[str, Learner], tasks: tuple[Task, ...]) -> None:
    found = meta_test(learners, tasks[2:], PROTOCOL, main="frozen")
    assert {(r["a"], r["b"]) for r in found.paired} == {("frozen", "protonet"), ("frozen", "maml")}


def test_cost_curves_and_calibration(report: Report, learners: dict[str, Learner]) -> None:
    assert report.curves == {"protonet": {"0": 0.5, "1": 0.6}}
    assert report.methods["protonet"]["train_s"] == 2.5
    assert report.methods["protonet"]["tokens"] == 1000
    for name, cost in report.methods.items():
        assert cost["adapt_s"] > 0
        assert cost["peak_mb"] > 50
        taught = name == "protonet"  # the others' records tell of no token
        assert cost["parameters"] == taught * sum(value.numel() for value in learners[name].theta.values())
        assert set(report.calibration[name]) == {"1", "2"}
        assert all(0 <= error <= 1 for error in report.calibration[name].values())
    assert report.methods["maml"]["recipe"]["inner"]["steps"] == 1
    assert report.versions["torch"] == torch.__version__.split("+")[0] or report.versions["torch"] == torch.__version__


def test_a_task_that_can_be_told_is_told(net: Backbone) -> None:
    """Two classes of one word each: what reads the texts is always right, and always wrong on a mislabelled copy."""
    rows = [{"text": " ".join([word] * n), "label": word} for word in ("good", "terrible") for n in range(3, 11)]
    wrong = [{**row, "label": "good" if row["label"] == "terrible" else "terrible"} for row in rows]
    told = task_from_rows("told", rows)
    pools = {"train": told.pools["train"], "test": task_from_rows("wrong", wrong).pools["train"]}
    swapped = replace(told, name="swapped", pools=pools)
    found = meta_test({"frozen": untrained(net, Frozen())}, [told, swapped], Protocol(shots=(4,), episodes=5))
    cells = found.scores["frozen"]
    for metric in ("accuracy", "macro_f1", "precision", "recall", "f1", "matthews"):
        cell = cells["told"]["4"][metric]
        assert (cell["mean"], cell["low"], cell["high"], cell["episodes"]) == (1.0, 1.0, 1.0, [1.0] * 5)
    assert cells["swapped"]["4"]["matthews"]["mean"] == -1.0


def test_learners_on_two_backbones_are_refused(net: Backbone, tiny: Path, tasks: tuple[Task, ...]) -> None:
    other = Backbone.load(str(tiny), Lora(rank=4, alpha=8), precision="fp32")
    two = {"a": untrained(net, ProtoNet()), "b": untrained(other, ProtoNet())}
    with pytest.raises(InputError, match="share one backbone"):
        meta_test(two, tasks, PROTOCOL)


def test_shots_that_nobody_can_give_are_refused(learners: dict[str, Learner], tasks: tuple[Task, ...]) -> None:
    with pytest.raises(InputError, match=r"no test task can give any of \["):
        meta_test(learners, tasks, replace(PROTOCOL, shots=(500,)))
    with pytest.raises(InputError, match="--shots names no number"):
        replace(PROTOCOL, shots=())


def test_no_learner_and_an_unknown_main_are_refused(learners: dict[str, Learner], tasks: tuple[Task, ...]) -> None:
    with pytest.raises(InputError, match="the learners are none"):
        meta_test({}, tasks, PROTOCOL)
    with pytest.raises(InputError, match="'mamll'"):
        meta_test(learners, tasks, PROTOCOL, main="mamll")


def test_progress_is_told_no_more_often_than_counted(learners: dict[str, Learner], tasks: tuple[Task, ...]) -> None:
    ticks: list[int] = []
    meta_test(learners, tasks, PROTOCOL, tick=lambda: ticks.append(1))
    assert 0 < len(ticks) <= count_trials(tasks, PROTOCOL) * len(learners)
    assert len(ticks) == (6 + 6 + 2 + 3) * len(learners)


def test_a_learner_is_examined_as_it_would_be_used(
    learners: dict[str, Learner], tasks: tuple[Task, ...], net: Backbone
) -> None:
    held_out = HeldOutTask(tasks[2], net, PROTOCOL)
    support, learner = held_out.supports[0], learners["maml"]
    judge, seconds, _ = examine(learner, held_out, support)
    rows = [{**row, "label": tasks[2].labels[row["label"]]} for row in tasks[2].supports[1][0]]
    predicted = learner.adapt(rows).predict(held_out.rows)
    right = [word == tasks[2].labels[row["label"]] for word, row in zip(predicted, held_out.rows, strict=True)]
    assert judge(support)["accuracy"] == pytest.approx(np.mean(right))
    assert seconds > 0


def test_blocks_of_query_rows_are_dealt_once_for_all(net: Backbone, tasks: tuple[Task, ...]) -> None:
    held_out = HeldOutTask(tasks[2], net, PROTOCOL)
    blocks = blocks_of(held_out)
    assert np.bincount(blocks).tolist() == [5, 5, 5, 5]
    assert (blocks == blocks_of(HeldOutTask(tasks[2], net, replace(PROTOCOL, episodes=1)))).all()


@pytest.mark.parametrize(
    ("rows", "sizes"), [(3, [3]), (4, [2, 2]), (9, [5, 4]), (15, [5, 5, 5]), (101, [11] + [10] * 9)]
)
def test_as_many_blocks_as_tell_the_spread(rows: int, sizes: list[int]) -> None:
    assert np.bincount(dealt(rows, seed=0)).tolist() == sizes


def test_a_block_of_a_mean_over_rows_is_its_own_mean() -> None:
    right, blocks = np.random.default_rng(0).random(60) < 0.7, np.arange(60) % 6
    judge: Judge = lambda support: {"accuracy": float(right[~support.excluded].mean())}  # noqa: E731
    found = by_block(judge, Support(1, 0, None, (), (), np.zeros(60, bool)), blocks)  # type: ignore[arg-type]
    assert found["accuracy"] == pytest.approx([right[blocks == block].mean() for block in range(6)])


def test_blocks_of_a_correlation_spread_as_much_as_the_correlation_does(net: Backbone) -> None:
    """Over query rows drawn anew, though it is no mean over rows."""
    task = task_of("regress")
    learner = untrained(net, Frozen())
    held_out = HeldOutTask(task, net, Protocol(shots=(2,), episodes=1, seed=1))
    support = held_out.supports[0]
    judge, _, _ = examine(learner, held_out, support)
    metric, rng = "pearson", np.random.default_rng(0)
    blocks = by_block(judge, support, blocks_of(held_out))[metric]
    error = blocks.std(ddof=1) / len(blocks) ** 0.5
    halves = [judge(replace(support, excluded=support.excluded | (rng.random(len(held_out.rows)) < 0.5)))[metric]
              for _ in range(30)]  # fmt: skip
    assert error / 3 < np.std(halves) < error * 3, "half of the rows are as far from the whole as the whole is from all"


def test_overlap_is_the_share_of_rows_in_common() -> None:
    a, b, c = (frozenset((str(n),) for n in ns) for ns in ((1, 2), (2, 3), (4, 5)))
    assert overlap([a]) == 0
    assert overlap([a, b]) == 0.5
    assert overlap([a, b, c]) == pytest.approx(0.5 / 3, abs=1e-6)
    assert overlap([a, a]) == 1


def test_the_mean_over_tasks_is_of_those_that_gave_the_shots() -> None:
    each = {("a", 4): (0.1, 0.3), ("b", 4): (0.5,), ("c", 8): (1.0,)}
    rows = [Result("m", task, k, "accuracy", "episodes", n, value)
            for (task, k), values in each.items() for n, value in enumerate(values)]  # fmt: skip
    found = Report({"metrics": dict.fromkeys("abc", "accuracy")}, {}, {"m": {}}, tuple(rows), "m")
    assert found.score("m", shots=4).mean == pytest.approx((0.2 + 0.5) / 2)
    assert found.score("m", shots=8).mean == 1.0
    assert found.score("m").mean == pytest.approx((0.2 + 0.5 + 1.0) / 3)
    assert found.score("m", shots=4).low is None, "one support set of b says nothing of others"
