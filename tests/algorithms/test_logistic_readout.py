"""The logistic regression that may read adapted features in place of prototypes, or beside them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import pack_rows
from form_tasks import task_of
from head_inputs import random
from kinds import one_token_each
from near import INNER_STEPS, near
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import normalize

from metanlp.algorithms import Frozen, Maml, ProtoNet
from metanlp.algorithms.base import Reader
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone
from metanlp.core import weights
from metanlp.core.types import Batch, Pass
from metanlp.episodes.pool import Pool
from metanlp.forms.heads import linear_scores
from metanlp.forms.heads.logistic import FOLDS, _folds, logistic_heads, logistic_left_out


def support(ways: int, each: int) -> Batch:
    return pack_rows([{"text": "x", "label": n % ways} for n in range(ways * each)], ways, one_token_each)


def test_it_is_scikit_learns_on_views_stretched_by_their_shares() -> None:
    batch, features = support(3, 6), random(18, 2, 5)
    share = torch.tensor([[0.7, 0.3]])
    heads = logistic_heads(features, batch, 30.0, share)
    x = (normalize(features, dim=-1) * share[0].sqrt()[:, None]).flatten(1).numpy()
    fitted = LogisticRegression(C=30.0, max_iter=1000).fit(x, batch.targets.numpy())
    scores = linear_scores(heads["head/weight"], heads["head/bias"], features, batch)
    expected = fitted.decision_function(x)
    # Both stop where their own tolerance is reached.
    near(scores.softmax(1), torch.tensor(expected, dtype=torch.float32).softmax(1), 4 * INNER_STEPS)


def test_one_row_of_each_of_many_classes_is_no_reason_to_warn() -> None:
    batch, features = support(30, 1), random(30, 2, 5)
    heads = logistic_heads(features, batch, 10.0)  # warnings are errors here
    scores = linear_scores(heads["head/weight"], heads["head/bias"], features, batch)
    assert torch.equal(scores.argmax(1), batch.targets)


def test_a_row_that_is_left_out_has_no_say_in_its_own_score() -> None:
    batch, features = support(2, 4), random(8, 1, 5)
    scores, counted = logistic_left_out(features, batch, 10.0)
    assert counted.eq(1).all()
    flipped = replace(batch, targets=batch.targets.clone().index_fill(0, torch.tensor([0]), 1))
    again, _ = logistic_left_out(features, flipped, 10.0)
    near(again[0], scores[0], INNER_STEPS)
    assert (again[1:] - scores[1:]).abs().max() > 1e-3


def test_many_rows_are_scored_in_ten_parts_of_which_none_holds_a_class() -> None:
    batch = support(3, 20)
    fold = _folds(batch.targets)
    assert fold.bincount().tolist() == [6] * FOLDS
    assert all(len(fold[batch.targets == label].unique()) == FOLDS for label in range(3))
    assert _folds(torch.tensor([1, 0, 1, 2])).tolist() == [0, -1, 1, -1]


def test_a_row_alone_in_its_class_is_never_left_out() -> None:
    batch = pack_rows([{"text": "x", "label": n} for n in (0, 0, 1)], 2, one_token_each)
    scores, counted = logistic_left_out(random(3, 1, 4), batch, 10.0)
    assert counted.tolist() == [1, 1, 0]
    assert scores.isfinite().all()


@pytest.mark.parametrize("method", [ProtoNet(c=30.0), Maml(inner=Inner(steps=2), c=30.0)])
def test_adapters_are_those_of_the_method_and_the_head_is_the_regression(
    method: ProtoNet | Maml, net: Backbone, toy_pass: Pass
) -> None:
    theta = method.init(net, torch.Generator().manual_seed(0))
    phi, read = (m.adapt(net, theta, toy_pass.support) for m in (method, replace(method, classifier="logistic")))
    assert weights.equal(weights.pick(phi, "lora/"), weights.pick(read, "lora/"))
    assert not weights.equal(weights.pick(phi, "head/"), weights.pick(read, "head/"))
    chosen = replace(method, classifier="logistic")
    answers = chosen.scores(net, read, toy_pass.support).argmax(1)
    assert (answers == toy_pass.support.targets).float().mean() > 0.9
    scores, counted = chosen.left_out(net, theta, toy_pass.support)
    assert scores.shape == (len(toy_pass.support.targets), toy_pass.support.max_ways)
    assert counted.sum() > 0


@pytest.mark.parametrize("method", [ProtoNet(), Maml(inner=Inner(steps=2)), Frozen()])
def test_a_mixture_is_a_positive_share_of_prototypes_and_one_of_the_regression(
    method: ProtoNet | Maml | Frozen, net: Backbone, toy_pass: Pass
) -> None:
    theta = method.init(net, torch.Generator().manual_seed(0))
    kinds = ("prototypes", "logistic", "mixture")
    found = [replace(method, classifier=kind).adapt(net, theta, toy_pass.support) for kind in kinds]
    first, second, mixed = (torch.cat([phi["head/weight"].flatten(1), phi["head/bias"]], 1) for phi in found)
    for task in range(len(mixed)):
        both = torch.stack([first[task], second[task]], 1).double()  # (…, 2)
        share = torch.linalg.lstsq(both, mixed[task].double()).solution
        assert (share > 0).all()
        near(both @ share, mixed[task], INNER_STEPS)
    assert not any(weights.equal(weights.pick(found[2], "head/"), weights.pick(phi, "head/")) for phi in found[:2])


@pytest.mark.parametrize("form", ["tag", "regress"])
def test_forms_without_one_label_keep_their_head(form: str, net: Backbone) -> None:
    support = Pool.of(task_of(form), net.encode).pack(range(8))
    theta = ProtoNet().init(net, torch.Generator().manual_seed(0))
    mixing = ProtoNet(classifier="mixture")
    assert weights.equal(mixing.adapt(net, theta, support), ProtoNet().adapt(net, theta, support))
    assert torch.equal(mixing.left_out(net, theta, support)[0], ProtoNet().left_out(net, theta, support)[0])


def test_a_row_a_class_of_many_classes_is_scikit_learns_and_no_warning() -> None:
    batch, features = support(24, 1), random(24, 1, 30)
    heads = logistic_heads(features, batch, 10.0)
    x = normalize(features, dim=-1).flatten(1).numpy()
    with pytest.warns(UserWarning, match="number of unique classes"):
        expected = LogisticRegression(C=10.0, max_iter=1000).fit(x, batch.targets.numpy()).decision_function(x)
    scores = linear_scores(heads["head/weight"], heads["head/bias"], features, batch)
    near(scores.softmax(1), torch.tensor(expected, dtype=torch.float32).softmax(1), 4 * INNER_STEPS)


def test_how_a_mixture_weighs_and_scales_is_from_before_the_inner_steps(net: Backbone, toy_pass: Pass) -> None:
    """Rows that steps have learned from would speak too well of any head."""
    support = toy_pass.support
    method = Maml(inner=Inner(steps=2, lr=0.5, head_lr=0.5), classifier="mixture")
    theta = method.init(net, torch.Generator().manual_seed(0))
    before, *_, after = method.inner_loop(theta, Reader(net, support))
    there, here = (net.features(moved, support).detach() for moved in (before, after))
    factors = method.factors(theta, before, there, support)
    assert factors is not None
    expected = weights.detach(method.read_head(theta, after, here, support, factors))
    near(weights.pick(method.adapt(net, theta, support), "head/"), expected, INNER_STEPS)
    scores, _ = method.read_left_out(theta, after, here, support, factors)
    near(method.left_out(net, theta, support)[0], scores.detach(), INNER_STEPS)
    flattered = weights.detach(method.read_head(theta, after, here, support))
    assert max(float((flattered[key] - expected[key]).abs().max()) for key in expected) > 1e-3
