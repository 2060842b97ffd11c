"""Meta-training that begins from a learner: its θ is where the run starts, and its rows are remembered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metanlp.algorithms import Maml, ProtoNet
from metanlp.backbone import Backbone, Lora
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Task, Weights
from metanlp.episodes.sampling import Episodes, Sampling
from metanlp.learner.learner import Learner
from metanlp.tasks.leaks import seen_of
from metanlp.training.meta_train import Plan, meta_train

HARDLY = Plan(steps=1, meta_batch=1, lr=1e-9, validations=0)


@pytest.fixture(scope="module")
def episodes(net: Backbone, toy_tasks: tuple[Task, ...]) -> Episodes:
    return Episodes(toy_tasks, net.encode, Sampling(shots=(1, 2), queries=2, ways=3), seed=3)


@pytest.fixture(scope="module")
def start(net: Backbone, episodes: Episodes) -> Learner:
    return meta_train(ProtoNet(), net, episodes, replace(HARDLY, lr=1e-2, steps=3))


def farthest(one: Weights, other: Weights) -> float:
    return max(float((one[key] - other[key]).abs().max()) for key in one)


def test_training_begins_from_theta_of_the_start_in_every_method(
    net: Backbone, episodes: Episodes, start: Learner
) -> None:
    nothing = ProtoNet().init(net, torch.Generator().manual_seed(0))
    assert farthest(start.theta, nothing) > 1e-3
    for method in (ProtoNet(), Maml()):
        begun = meta_train(method, net, episodes, HARDLY, start=start)
        assert farthest({key: begun.theta[key] for key in start.theta}, start.theta) < 1e-6
        assert begun.record["start"] == weights.checksum(start.theta)


def test_what_the_start_has_seen_is_remembered_in_the_files(
    net: Backbone, tiny: Path, episodes: Episodes, start: Learner, tmp_path: Path
) -> None:
    np.testing.assert_array_equal(start.seen, seen_of(episodes.tasks))
    before = replace(start, seen=np.array([1, 5], np.uint64))
    begun = meta_train(ProtoNet(), net, episodes, HARDLY, start=before)
    assert {*begun.seen.tolist()} == {*start.seen.tolist(), 1, 5}
    begun.save(tmp_path)
    loaded = Learner.load(tmp_path, base=str(tiny))
    np.testing.assert_array_equal(loaded.seen, begun.seen)
    assert weights.equal(loaded.theta, begun.theta)


def test_a_run_goes_on_only_from_the_start_that_it_had(
    net: Backbone, episodes: Episodes, start: Learner, tmp_path: Path
) -> None:
    meta_train(ProtoNet(), net, episodes, HARDLY, folder=tmp_path, start=start)
    meta_train(ProtoNet(), net, episodes, HARDLY, folder=tmp_path, start=start, resume=True)
    with pytest.raises(InputError, match="was made with start"):
        meta_train(ProtoNet(), net, episodes, HARDLY, folder=tmp_path, resume=True)


def test_a_start_on_another_backbone_is_refused(net: Backbone, tiny: Path, episodes: Episodes, start: Learner) -> None:
    other = Backbone.load(str(tiny), Lora(rank=4), precision="fp32")
    with pytest.raises(InputError, match=r"start\.net"):
        meta_train(ProtoNet(), other, episodes, HARDLY, start=start)
