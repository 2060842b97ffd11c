"""Frozen features: a logistic regression, and what it reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import pack_rows
from kinds import one_token_each

from metanlp.algorithms import Frozen
from metanlp.backbone import Backbone, Lora
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Pass
from metanlp.forms.heads import linear_scores
from metanlp.forms.heads.logistic import logistic_heads


@pytest.mark.parametrize("ways", [2, 3])
def test_logistic_regression_separates_what_is_separable(ways: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [{"text": "x", "label": n % ways} for n in range(24)]
    batch = pack_rows(rows, ways, one_token_each)
    features = torch.eye(6)[batch.targets][:, None] + 0.1 * torch.randn(24, 1, 6, generator=generator)
    heads = logistic_heads(features, batch, 10.0)
    scores = linear_scores(heads["head/weight"], heads["head/bias"], features, batch)
    assert (scores.argmax(1) == batch.targets).all()
    assert (scores.softmax(1).max(1).values > 0.6).all()


def test_logistic_regression_with_a_class_that_the_support_set_lacks() -> None:
    batch = pack_rows([{"text": "x", "label": n} for n in (0, 2, 0, 2)], 3, one_token_each)
    features = torch.eye(4)[batch.targets][:, None]
    heads = logistic_heads(features, batch, 10.0)
    scores = linear_scores(heads["head/weight"], heads["head/bias"], features, batch)
    assert (scores.argmax(1) == batch.targets).all()


def test_frozen_asks_for_a_frozen_view_and_reads_nothing_else(tiny: Path, net: Backbone, toy_pass: Pass) -> None:
    adapted = Backbone.load(str(tiny), Lora(rank=4), views=["adapted.4.all"], precision="fp32")
    with pytest.raises(InputError, match="needs a frozen view"):
        Frozen().init(adapted, torch.Generator())
    theta = Frozen().init(net, torch.Generator().manual_seed(0))
    other = theta | weights.scale(weights.pick(theta, "lora/"), 9.0)
    for algorithm in (Frozen(), Frozen(classifier="logistic")):
        one, two = (algorithm.adapt(net, w, toy_pass.support) for w in (theta, other))
        assert weights.equal(one, two)
        assert not weights.pick(one, "lora/")
