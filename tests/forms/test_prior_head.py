"""The head of answers: a prior for all students, and a Gaussian process of each one's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from near import LAYERS, near
from planted_students import planted

from metanlp.core.types import Batch
from metanlp.episodes.traces import History, packed
from metanlp.forms.heads.prior import FLOOR, PriorHead

HEAD = PriorHead()


def answers(*sizes: int) -> Batch:
    histories = [History.of(s) for s in planted(len(sizes), max(sizes), 0)]
    return packed([(h, slice(0, n)) for h, n in zip(histories, sizes, strict=True)])


def features(batch: Batch, seed: int = 0) -> torch.Tensor:
    return torch.randn(len(batch.targets), 1, 4, generator=torch.Generator().manual_seed(seed))


def residual(batch: Batch) -> dict[str, torch.Tensor]:
    return HEAD.residual(4, batch)


def test_it_is_one_newton_step_of_a_logistic_regression_with_a_gaussian_prior() -> None:
    """In weight space: v = (XᵀWX + I)⁻¹ Xᵀ(y − p), from m."""
    batch = answers(7)
    x = features(batch)
    found = HEAD.finish({}, residual(batch), x, batch)["head/weight"][0]
    rows, p = x[:, 0, :3].double(), x[:, 0, 3].double().sigmoid()
    weight = (p * (1 - p)).clamp(min=FLOOR)
    solved = torch.linalg.solve(rows.T @ (weight[:, None] * rows) + torch.eye(3), rows.T @ (batch.targets - p))
    near(found[1, :3], solved.float(), LAYERS)
    assert not found[0].any()
    assert not found[1, 3]


def test_left_out_is_what_the_others_say() -> None:
    batch = answers(6, 4)
    x = features(batch)
    scores, counted = HEAD.left_out({}, residual(batch), x, batch)
    assert counted.tolist() == [1.0] * 10
    for row in range(10):
        task = int(batch.task_of[row])
        others = [n for n in range(10) if int(batch.task_of[n]) == task and n != row]
        part = answers(len(others))
        part = replace(part, targets=batch.targets[others])
        phi = HEAD.finish({}, HEAD.residual(4, part), x[others], part)
        single = answers(1)
        near(HEAD.scores(phi, x[row : row + 1], single)[0], scores[row], LAYERS)


def test_students_share_nothing() -> None:
    both, x = answers(5, 3), features(answers(5, 3))
    whole = HEAD.finish({}, residual(both), x, both)
    for number, part in enumerate((slice(0, 5), slice(5, 8))):
        own = answers(5, 3)
        alone = replace(answers(part.stop - part.start), targets=own.targets[part])
        found = HEAD.finish({}, HEAD.residual(4, alone), x[part], alone)
        near(found["head/weight"][0], whole["head/weight"][number], LAYERS)


def test_without_ways_to_differ_the_prior_stays() -> None:
    batch, x = answers(5), features(answers(5))
    x[..., :3] = 0
    scores = HEAD.scores(HEAD.finish({}, residual(batch), x, batch), x, batch)
    near(scores, HEAD.known({}, x, batch), LAYERS)
    assert np.isfinite(scores.numpy()).all()
