"""The recipe search: which adaptation a learner is given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from metanlp.algorithms import Finetune, Frozen, ProtoNet
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone
from metanlp.core.intervals import CLEARLY, as_good
from metanlp.core.types import Task
from metanlp.evaluation.held_out import HeldOutTask, Protocol
from metanlp.evaluation.recipe_search import choose, score_by_step, steps_to_try


def test_a_recipe_is_one_of_those_tried(net: Backbone, toy_tasks: tuple[Task, ...]) -> None:
    held_out = HeldOutTask(toy_tasks[4], net, Protocol(shots=(4,), episodes=2))
    trials = [(held_out, support) for support in held_out.supports]
    ticks: list[int] = []
    for algorithm in (Finetune(), ProtoNet(), Frozen()):
        theta = algorithm.init(net, torch.Generator().manual_seed(0))
        search = choose(algorithm, net, theta, trials, lambda: ticks.append(1))
        curve = {step: float(np.mean(each)) for step, each in search.by_step.items()}
        assert search.score == curve[search.algorithm.inner.steps] <= max(curve.values())
        steps = steps_to_try(algorithm)
        again = score_by_step(search.algorithm, net, theta, trials, steps)[search.algorithm.inner.steps]
        assert np.mean(again) == search.score
        assert set(curve) <= steps
    assert len(ticks) == sum(len(a.recipes()) for a in (Finetune(), ProtoNet(), Frozen())) * len(trials)


def test_the_own_setting_stays_unless_another_is_better(net: Backbone, toy_tasks: tuple[Task, ...]) -> None:
    held_out = HeldOutTask(toy_tasks[4], net, Protocol(shots=(4,), episodes=3))
    trials = [(held_out, support) for support in held_out.supports]
    own = Finetune(inner=Inner(steps=3, lr=0.01, head_lr=0.02))
    theta = own.init(net, torch.Generator().manual_seed(0))
    found = {
        (setting.classifier, setting.inner.lr, step): np.array(each)
        for setting in own.recipes()
        for step, each in score_by_step(setting, net, theta, trials, steps_to_try(own)).items()
    }
    assert {step for *_, step in found} == {0, 1, 3, 5}
    best = max(found.values(), key=lambda each: float(each.mean()))
    search = choose(own, net, theta, trials)
    assert (search.algorithm == replace(own, classifier="mixture")) == as_good(found["mixture", 0.01, 3], best, CLEARLY)
    hopeless = replace(own, inner=Inner(steps=3, lr=50.0, head_lr=50.0))  # one that is worse must give way
    other = choose(hopeless, net, theta, trials)
    assert other.algorithm != hopeless
    assert other.score > 0.5
