"""Prototypes and a logistic regression as one head, weighed by rows that were left out."""

from __future__ import annotations

import torch
from head_inputs import labelled, random
from near import INNER_STEPS, near
from torch import Tensor

from metanlp.core.types import Batch
from metanlp.forms.heads import linear_scores
from metanlp.forms.heads.mixture import mixed_heads, mixed_scores, mixture_factors

BATCH = labelled([[0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]])


def scores(batch: Batch, seed: int, right: float = 0.0) -> Tensor:
    """Noise, with `right` on top of each row's own class; −inf beyond a task's classes."""
    own = torch.nn.functional.one_hot(batch.targets, batch.max_ways)
    beyond = torch.arange(batch.max_ways) >= batch.ways[batch.task_of][:, None]
    found = random(len(own), batch.max_ways, seed=seed) + right * own
    return found.masked_fill(beyond, -torch.inf)


def factors(*heads: Tensor, batch: Batch = BATCH) -> tuple[Tensor, Tensor]:
    return mixture_factors(heads, torch.ones(len(batch.targets), dtype=torch.float64), batch)


def test_without_a_row_that_counts_heads_are_averaged_as_they_are() -> None:
    batch = labelled([[0, 1], [0, 1, 2]])
    found, by_row = mixture_factors([scores(batch, 0), scores(batch, 1)], torch.zeros(5, dtype=torch.float64), batch)
    near(found, torch.full((2, 2), 0.5, dtype=torch.float64), INNER_STEPS)
    near(by_row, torch.full((5, 2), 0.5, dtype=torch.float64), INNER_STEPS)


def test_the_head_that_is_right_counts_more_and_the_more_rows_say_so() -> None:
    few, many = labelled([[0, 1] * 2]), labelled([[0, 1] * 20])
    for batch, least, most in ((few, 0.5, 0.95), (many, 0.999, 1.0)):
        (found,), _ = factors(scores(batch, 0, right=3.0), scores(batch, 1), batch=batch)
        assert least < float(found[0] / found.sum()) <= most


def test_scores_that_are_too_sure_are_made_less_so() -> None:
    batch = labelled([[0, 1, 2] * 8])
    doubtful = scores(batch, 0, right=1.0)
    (sure,), _ = factors(4 * doubtful, batch=batch)
    (plain,), _ = factors(doubtful, batch=batch)
    assert float(sure) < 0.6 * float(plain)


def test_a_head_twice_is_the_head_once() -> None:
    one, two = scores(BATCH, 0, right=1.0), scores(BATCH, 1)
    alone, _ = factors(one)
    twice, by_row = factors(one, one)
    near(twice.sum(1), alone[:, 0], INNER_STEPS)
    assert mixed_scores([one, one], by_row, BATCH).isfinite().sum() == 2 * 6 + 3 * 6
    near(factors(one, two)[0].flip(1), factors(two, one)[0], INNER_STEPS)


def test_no_row_has_a_say_in_its_own_factors() -> None:
    one, two = scores(BATCH, 0, right=1.0), scores(BATCH, 1)
    _, before = factors(one, two)
    other = one.clone()
    other[2, 0] += 3.0
    _, after = factors(other, two)
    near(after[2], before[2], INNER_STEPS)
    near(after[6:], before[6:], INNER_STEPS)  # another task
    assert ((after - before)[[0, 1, 3, 4, 5]].abs().sum(1) > 1e-3).all()


def test_the_mixture_is_a_linear_head_that_scores_as_the_sum() -> None:
    features = random(12, 2, 5, seed=3)
    heads = [{"head/weight": random(2, 3, 10, seed=seed), "head/bias": random(2, 3, seed=seed + 1)} for seed in (4, 6)]
    each = [linear_scores(head["head/weight"], head["head/bias"], features, BATCH) for head in heads]
    found, _ = factors(*each)
    mixed = mixed_heads(heads, found)
    whole = linear_scores(mixed["head/weight"], mixed["head/bias"], features, BATCH)
    there = whole.isfinite()
    near(whole[there], mixed_scores(each, found[BATCH.task_of], BATCH)[there], INNER_STEPS)
