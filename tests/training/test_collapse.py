"""Texts that become alike while θ learns: seen, said, and gone back from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from near import LAYERS, near
from torch.nn.functional import cosine_similarity

from metanlp.algorithms import Maml, ProtoNet
from metanlp.backbone import Backbone
from metanlp.core import weights
from metanlp.core.types import Pass, Task, Weights
from metanlp.episodes.sampling import Episodes, Sampling
from metanlp.learner.learner import Learner
from metanlp.training.collapse import ALIKE, LOOKED_AT, Likeness, mean_cosine
from metanlp.training.meta_train import Plan, meta_train
from metanlp.training.processes import Ranks

HEALTHY = Plan(steps=20, meta_batch=1, lr=1e-3, validations=4, patience=0, checkpoints=10)
HUGE = replace(HEALTHY, lr=1.0, warmup=0.0)


@pytest.fixture(scope="module")
def episodes(net: Backbone, toy_tasks: tuple[Task, ...]) -> Episodes:
    return Episodes(toy_tasks, net.encode, Sampling(shots=(1, 2), queries=2, ways=3), seed=3)


@pytest.fixture
def run(net: Backbone, episodes: Episodes, tmp_path: Path) -> Callable[..., Learner]:
    def start(plan: Plan, folder: str = "run", **options: Any) -> Learner:
        return meta_train(ProtoNet(), net, episodes, plan, folder=tmp_path / folder, ranks=Ranks.alone(), **options)

    return start


def log(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_the_mean_cosine_is_that_of_all_pairs_of_a_task(net: Backbone, toy_pass: Pass) -> None:
    theta = Maml().init(net, torch.Generator().manual_seed(0))
    features, tasks = net.features(weights.pick(theta, "lora/"), toy_pass.query), toy_pass.query.task_of.tolist()
    by_task = [
        [cosine_similarity(features[i], features[j], dim=-1).mean() for i, j in combinations(range(len(tasks)), 2)
         if tasks[i] == tasks[j] == task]
        for task in range(toy_pass.query.count_tasks)
    ]  # fmt: skip
    expected = torch.stack([torch.stack(each).mean() for each in by_task]).mean()
    near(mean_cosine(features, toy_pass.query), expected, LAYERS, 1.0)


def test_a_collapse_is_a_share_of_the_distance_at_the_start(net: Backbone, episodes: Episodes) -> None:
    theta = ProtoNet().init(net, torch.Generator().manual_seed(0))
    likeness = Likeness(net, episodes, theta)
    assert likeness.start == likeness.of(theta)
    assert not likeness.collapsed(likeness.start)
    far = 1 - likeness.start
    assert [likeness.collapsed(1 - share * far) for share in (1.01 * ALIKE, 0.99 * ALIKE)] == [False, True]
    assert len(episodes.passes(0, LOOKED_AT, 1)) == LOOKED_AT


def test_a_collapse_is_said_and_gone_back_from_at_half_the_rate(
    run: Callable[..., Learner], net: Backbone, episodes: Episodes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    learned = run(HUGE, name="toy")
    lines = [line for line in capfd.readouterr().err.splitlines() if "alike" in line]
    start = Likeness(net, episodes, ProtoNet().init(net, torch.Generator().manual_seed(0)))
    seen = log(tmp_path / "run")
    at = [line["step"] for before, line in pairwise(seen) if line["collapses"] > before["collapses"]]
    assert at
    assert len(lines) == len(at) == learned.record["collapses"] == seen[-1]["collapses"]
    assert lines[0].startswith(f"toy: after meta-step {at[0]} all texts look alike (mean cosine ")
    assert lines[0].endswith("and on at half the rate")
    assert all(start.collapsed(line["cosine"]) == (line["step"] in at) for line in seen if line["step"] % 2 == 0)
    assert not start.collapsed(start.of(learned.theta)), "what is left tells texts apart"


def test_a_healthy_run_is_left_alone(
    run: Callable[..., Learner], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(HEALTHY).record["collapses"] == 0
    assert "alike" not in capfd.readouterr().err
    cosines = [line["cosine"] for line in log(tmp_path / "run")]
    assert cosines[0] is None, "no look yet"
    assert max(cosines[1:]) < 0.95
    assert len({*cosines}) > 10, "one a look"


def test_each_collapse_halves_the_rest_of_the_schedule() -> None:
    assert [HEALTHY.rate(0.4, collapses) / HEALTHY.rate(0.4) for collapses in range(3)] == [1, 0.5, 0.25]


class CutError(Exception):
    """What ends a run in these tests."""


@pytest.mark.slow
def test_stopped_after_a_collapse_and_resumed_is_undisturbed(run: Callable[..., Learner], tmp_path: Path) -> None:
    looks = 0

    def cut(theta: Weights) -> list[float]:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise CutError
        return score(theta)

    plan = replace(HUGE, validations=10, checkpoints=5)
    whole = run(plan, "whole", validate=score)
    assert whole.record["collapses"]
    with pytest.raises(CutError):
        run(plan, validate=cut)
    resumed = run(plan, validate=score, resume=True)
    assert weights.equal(whole.theta, resumed.theta)
    assert log(tmp_path / "run") == log(tmp_path / "whole")


def score(theta: Weights) -> list[float]:
    """A function of θ."""
    return [float(weights.norm(weights.pick(theta, "lora/")))]
