"""The small network of answers: weights are handed in, with or without an axis of students."""

from __future__ import annotations

import pytest
import torch
from near import near
from planted_students import SKILLS, planted

from metanlp.algorithms import ALGORITHMS
from metanlp.algorithms.base import Inner
from metanlp.backbone import Backbone
from metanlp.backbone.skills import SkillNet, names_read
from metanlp.core import weights
from metanlp.episodes.traces import BEFORE, Cuts, FirstAnswers, History
from metanlp.experiment.students import ABLE

GENERATOR = torch.Generator().manual_seed(0)
NET = SkillNet(torch.randn(len(SKILLS), 3, generator=GENERATOR), BEFORE)
DRAWS = FirstAnswers([History.of(s) for s in planted(6, 20, 0)], Cuts((3, 6), 5), seed=0)


def theta() -> dict[str, torch.Tensor]:
    made = NET.init(torch.Generator().manual_seed(1))
    return made | {"lora/skills": torch.randn(made["lora/skills"].shape, generator=torch.Generator().manual_seed(2))}


def test_a_task_axis_is_each_student_alone() -> None:
    (both,) = (build() for build in DRAWS.passes(0, 3, 3))
    each = [{key: value + n * 0.1 for key, value in theta().items()} for n in range(3)]
    stacked = {key: torch.stack([w[key] for w in each]) for key in each[0]}
    together = NET.features(stacked, both.query)
    alone = torch.cat([NET.features(w, DRAWS[n].query) for n, w in enumerate(each)])
    near(together, alone)
    near(NET.features(weights.expand(theta(), 3), both.query), NET.features(theta(), both.query))


@pytest.mark.parametrize("name", ABLE)
def test_every_method_learns_answers(name: str) -> None:
    """A gradient for θ that is finite, φ a slice a student, and θ as it was; where adapting is steps, also none."""
    kind = ALGORITHMS[name]
    method = kind(inner=Inner(2, 0.1, 0.1)) if kind().inner.steps else kind()
    start = method.init(NET, torch.Generator().manual_seed(0))
    before = weights.checksum(start)
    (both,) = (build() for build in DRAWS.passes(0, 3, 3))
    found = method.meta_grad(NET, start, both)
    assert weights.finite(found.grad)
    assert found.loss.isfinite().all()
    assert found.tokens > 0
    assert weights.flatten(found.grad).abs().sum() > 0
    phi = method.adapt(NET, start, both.support)
    scores = method.scores(NET, phi, both.query)
    assert scores.shape == (len(both.query.targets), 2)
    near(
        scores[: len(DRAWS[0].query.targets)],
        method.scores(NET, method.adapt(NET, start, DRAWS[0].support), DRAWS[0].query),
        4096,
    )
    assert weights.checksum(start) == before


def test_names_that_are_alike_are_near(net: Backbone) -> None:
    names = (*SKILLS, "area of a square", "adding fractions")
    found = names_read(net, names)
    assert found.shape[0] == len(names)
    assert found.isfinite().all()
    assert found.square().sum(1).mean() == pytest.approx(1, rel=1e-4)
    assert names_read(net, ("one",)).isfinite().all()
