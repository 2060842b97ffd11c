"""The regulariser that keeps features from saying all the same."""

from __future__ import annotations

import torch
from few_rows import batch_of, features_of
from near import near
from torch.nn.functional import normalize

from metanlp.algorithms.decorrelation import decorrelation


def test_it_is_the_sum_of_squared_correlations_a_feature() -> None:
    """Task by task and view by view, each correlation written out by torch."""
    batch = batch_of([0, 1, 2, 0, 1, 2, 0], [0, 1, 0, 1])
    features = features_of(batch).float()
    found = decorrelation(features, batch)
    for task, value in enumerate(found):
        mine, size = normalize(features[batch.task_of == task], dim=-1), features.shape[2]
        each = [torch.corrcoef(view.T).square().sum() - size for view in mine.unbind(1)]
        near(value, torch.stack(each).mean() / size)


def test_it_falls_when_its_gradient_is_followed_and_is_none_for_one_feature() -> None:
    batch = batch_of([0, 1, 2, 0, 1, 2, 0, 1])
    features = features_of(batch).requires_grad_()
    before = decorrelation(features, batch).sum()
    (grad,) = torch.autograd.grad(before, features)
    assert decorrelation(features - 0.1 * grad / grad.norm(), batch).sum() < before
    alike = torch.ones_like(features).requires_grad_()
    (grad,) = torch.autograd.grad(decorrelation(alike, batch).sum(), alike)
    assert torch.equal(grad, torch.zeros_like(grad)), "constant features are no NaN"
