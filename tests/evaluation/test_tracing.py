"""Predictions of answers see no later answer, and are judged by students."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from near import LAYERS, near
from planted_students import SKILLS, planted
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score

from metanlp.algorithms import Maml
from metanlp.algorithms.base import Inner
from metanlp.backbone.skills import SkillNet
from metanlp.core.errors import InputError
from metanlp.episodes.traces import BEFORE, History
from metanlp.evaluation import classroom
from metanlp.evaluation.external import recurrent
from metanlp.evaluation.external.recurrent import dkt
from metanlp.evaluation.external.regressions import REGRESSIONS, Given
from metanlp.evaluation.mastery import Mastery, loss, posterior, sigmoid
from metanlp.evaluation.traces import Window, bootstrap, by_steps, judged, searched, unadapted
from metanlp.forms.metrics import auc

HISTORIES = [History.of(s) for s in planted(60, 30, 0)]
JUDGE = [History.of(s) for s in planted(40, 30, 1, "j")]
GIVEN = Given(HISTORIES[:48], HISTORIES[48:], np.eye(len(SKILLS)), most=20)
LEARN = {**REGRESSIONS, "dkt": dkt}


@pytest.fixture(scope="module")
def few_epochs() -> None:
    recurrent.EPOCHS = 12


@pytest.mark.parametrize("name", LEARN)
def test_baselines_see_no_later_answer_and_beat_a_constant(name: str, few_epochs: None) -> None:
    predict = LEARN[name](GIVEN)
    student = JUDGE[3].student
    whole = predict(JUDGE[3])
    for cut in (0, 5, 19):
        other = replace(student, right=np.where(np.arange(30) < cut, student.right, ~student.right))
        near(predict(History.of(other))[: cut + 1], whole[: cut + 1], LAYERS, size=1.0)
    assert predict(History.of(student.first(1))).shape == (1,)
    constant = np.concatenate([h.student.right for h in GIVEN.teach]).mean()
    plain = loss(JUDGE, [np.full(20, constant) for _ in JUDGE])
    assert loss(JUDGE, [predict(h) for h in JUDGE]) < plain - 0.02


def test_skills_of_ones_own_are_worth_knowing() -> None:
    """Half of the planted skills are easy for some students and hard for others: ability alone misses that."""
    alone, apart = (LEARN[name](GIVEN) for name in ("irt", "mastery"))
    costs = [loss(JUDGE, [predict(h)[10:20] for h in JUDGE], 10) for predict in (alone, apart)]
    assert costs[1] < costs[0] - 0.02


def test_the_posterior_is_the_mode() -> None:
    kernel = np.array([[1.5, 1.0, 0.3], [1.0, 1.2, 0.2], [0.3, 0.2, 1.0]])
    ease, counts, right = np.array([0.5, -1.0, 0.0]), np.array([4.0, 0.0, 9.0]), np.array([4.0, 0.0, 2.0])

    def cost(own: np.ndarray) -> float:
        p = sigmoid(ease + own)
        return float(own @ np.linalg.solve(kernel, own) / 2 - (right @ np.log(p) + (counts - right) @ np.log(1 - p)))

    found = posterior(kernel, ease, counts[None], right[None])[0]
    best = minimize(cost, np.zeros(3), tol=1e-12).x
    assert np.abs(found - best).max() < 1e-4


def test_mastery_narrows_with_answers() -> None:
    model = Mastery(np.zeros(4), np.eye(4), able=1.0, apart=0.5)
    few, many = (model.all_skills(History.of(JUDGE[1].student.first(n))) for n in (2, 30))
    for _, low, high in (few, many):
        assert (low < high).all()
    assert (many[2] - many[1]).mean() < (few[2] - few[1]).mean() - 0.1
    none = model.all_skills(History.of(JUDGE[1].student.first(0)))
    assert none[0].tolist() == [0.5] * 4


def test_the_area_is_that_of_scikit_learn_in_every_draw() -> None:
    rng = np.random.default_rng(0)
    p, right, owner = rng.integers(0, 20, 200) / 20, rng.random(200) < 0.5, rng.integers(0, 9, 200)
    level = np.unique(p, return_inverse=True)[1]
    for draw in bootstrap(9, 5, 0):
        assert auc(level, right, draw[owner]) == pytest.approx(roc_auc_score(right, p, sample_weight=draw[owner]))


def test_scores_and_their_paired_difference() -> None:
    window, drawn = Window(3, 10), bootstrap(len(JUDGE), 400, 0)
    truth = [h.student.right[2:10] for h in JUDGE]
    rng = np.random.default_rng(0)
    good, bad = ([0.3 + 0.4 * t + s * rng.normal(size=8) for t in truth] for s in (0.3, 0.35))
    found, worse = (judged(JUDGE, each, window, drawn) for each in (good, bad))
    for metric in ("auc", "accuracy"):
        interval, gap = found[metric].interval, (found[metric] - worse[metric]).interval
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low < interval.mean < interval.high
        assert gap.mean == pytest.approx(found[metric].value - worse[metric].value)
    same = (found["auc"] - found["auc"]).interval
    assert (same.low, same.high) == (0, 0)
    with pytest.raises(
        InputError, match="answers 3–10 of the students who judge are 0, of which 0 are right; give more"
    ):
        judged(JUDGE, [np.zeros(0)] * len(JUDGE), window, drawn)


def test_meta_learners_adapt_to_the_first_answers_alone() -> None:
    net, window = SkillNet(torch.zeros(len(SKILLS), 0), BEFORE), Window(3, 10)
    method = Maml(inner=Inner(1, 0.1, 0.1))
    theta = method.init(net, torch.Generator().manual_seed(0))
    short = History.of(JUDGE[0].student.first(2))
    histories = [*JUDGE[:18], short]
    found = by_steps(method, net, theta, histories, window, {0, 1})
    assert found.keys() == {0, 1}
    assert [len(each) for each in found[1]] == [8] * 18 + [0]
    student = histories[4].student
    other = History.of(replace(student, right=np.where(np.arange(30) < 5, student.right, ~student.right)))
    changed = by_steps(method, net, theta, [*histories[:4], other], window, {1})[1][4]
    near(changed[:4], found[1][4][:4], LAYERS, size=1.0)
    plain = unadapted(method, net, theta, histories, window)
    assert [len(each) for each in plain] == [8] * 18 + [0]
    assert np.abs(plain[4] - found[1][4]).max() > 1e-4
    chosen = searched(method, net, theta, histories, window)
    assert chosen.inner.steps in (0, 1, 3, 8)


def test_what_a_teacher_looks_at() -> None:
    model = Mastery(np.zeros(4), np.eye(4), able=1.0, apart=1.0)
    able, weak = JUDGE[1], JUDGE[2]
    found = classroom.pupil(weak, model, SKILLS, np.arange(4), target=0.5, practise=2)
    assert found.success.mean < classroom.pupil(able, model, SKILLS, np.arange(4), 0.5, 2).success.mean
    assert sum(skill.answers for skill in found.skills) == found.answers == 30
    assert [s.chance.mean for s in found.skills] == sorted(s.chance.mean for s in found.skills)
    gaps = {skill.skill: abs(skill.chance.mean - 0.5) for skill in found.skills}
    assert {skill.skill for skill in found.practise} == set(sorted(gaps, key=gaps.__getitem__)[:2])
    curve = classroom.learning_curve(JUDGE, 0)
    assert [row["attempt"] for row in curve] == [*range(1, classroom.ATTEMPTS + 1)]
    assert all(row["low"] <= row["percent"] <= row["high"] for row in curve)
    assert classroom.learning_curve([History.of(weak.student.first(3))], 0) == []
    check = classroom.warned_rightly(JUDGE, model, 0.5, 0)
    assert check.warned + check.others == len(JUDGE)
    assert check.warned_right is not None
    assert check.others_right is not None
    assert check.warned_right.mean < check.others_right.mean - 0.2
    assert classroom.warned_rightly([], model, 0.5, 0).warned_right is None
