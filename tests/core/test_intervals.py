"""Intervals: of values, of samples with two sources of chance, paired."""

from __future__ import annotations

import math

import numpy as np
import pytest

from metanlp.core.errors import InputError
from metanlp.core.intervals import Interval, Sample, as_good, bootstrap, interval, over_shots, over_tasks


def sample(sets: list[float], blocks: list[float], overlap: float = 0.0) -> Sample:
    return Sample(np.array(sets), np.array(blocks), overlap)


def width(found: Interval) -> float:
    assert found.low is not None
    assert found.high is not None
    return found.high - found.low


def test_t_interval_worked_out_by_hand() -> None:
    # t at 0.975 with 2 degrees of freedom is 4.302653; the standard error of 1, 2, 3 is 1/√3.
    found = interval(np.array([1.0, 2.0, 3.0]))
    half = 4.302653 / math.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half), rel=1e-6)
    assert width(interval(np.array([1.0, 2.0, 3.0]), level=0.995)) > width(found)


def test_one_value_has_no_interval_and_equal_values_one_without_width() -> None:
    assert interval(np.array([0.7])) == Interval(0.7, None, None)
    for count in (2, 30):
        assert interval(np.full(count, 0.5)) == Interval(0.5, 0.5, 0.5)


def test_t_interval_holds_the_mean_in_95_of_100_samples() -> None:
    rng = np.random.default_rng(0)
    found = [interval(values) for values in rng.normal(3.0, 2.0, (1500, 8))]
    held = np.mean([abs(one.mean - 3.0) <= width(one) / 2 for one in found])
    assert held == pytest.approx(0.95, abs=3 * math.sqrt(0.05 * 0.95 / 1500))


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf], [[1.0, 2.0]]])
def test_an_interval_of_nothing_is_refused(values: list[float]) -> None:
    with pytest.raises(InputError, match="at least one finite number"):
        interval(np.array(values))


def test_both_sources_add_up_with_satterthwaite_s_freedom() -> None:
    both = over_tasks([sample([0.4, 0.5, 0.6], [0.3, 0.5, 0.7, 0.5])])
    sets, rows = 0.01 / 3, (0.08 / 3) / 4
    freedom = (sets + rows) ** 2 / (sets**2 / 2 + rows**2 / 3)
    assert 4 < freedom < 5, "t at 0.975: 2.776 and 2.571"
    assert 2.571 < width(both) / 2 / math.sqrt(sets + rows) < 2.776


def test_support_sets_that_share_rows_tell_less() -> None:
    """By Nadeau & Bengio; the same set again and again tells nothing."""
    sets, nothing = [0.4, 0.5, 0.6, 0.5], []
    alone, half = (over_tasks([sample(sets, nothing, overlap)]) for overlap in (0.0, 0.5))
    assert width(half) == pytest.approx(width(alone) * math.sqrt((1 / 4 + 1) / (1 / 4)))
    assert over_tasks([sample([0.5] * 10, [0.4, 0.6], 1.0)]) == Interval(0.5, None, None)


def test_the_mean_over_tasks_has_the_variances_of_all() -> None:
    """Means that happen to agree do not make it tight: as many tasks of equal spread shrink it by their root alone."""
    one, other = sample([0.2, 0.5, 0.8, 0.5], [0.5, 0.6, 0.4]), sample([0.8, 0.5, 0.2, 0.5], [0.5, 0.4, 0.6])
    single, both = over_tasks([one]), over_tasks([one, other])
    assert both.mean == pytest.approx(0.5)
    assert width(single) / 2 < width(both) < width(single)


def test_nothing_lies_beyond_what_is_possible() -> None:
    found = over_tasks([sample([0.9, 1.0], [0.8, 1.0])], (0.5, 1.0))
    assert (found.low, found.high) == (0.5, 1.0)


def test_pairs_are_tighter_than_each_side_and_need_the_same_episodes() -> None:
    rng = np.random.default_rng(0)
    sets, blocks = rng.normal(0.6, 0.2, 10), rng.normal(0.6, 0.2, 10)
    a = Sample(sets + 0.02 + rng.normal(0, 0.01, 10), blocks + 0.02 + rng.normal(0, 0.01, 10))
    gap = over_tasks([a - Sample(sets, blocks)])
    assert gap.verdict == "better"
    assert width(gap) < 0.2 * width(over_tasks([a]))
    with pytest.raises(InputError, match="same episodes"):
        _ = a - Sample(sets[:5], blocks)


def test_shots_of_one_task_are_no_tasks_of_their_own() -> None:
    """The same rows judge all of them, so that more shots make the share of the rows no smaller."""
    one = sample([0.5, 0.5], [0.2, 0.4, 0.6, 0.8])
    assert over_tasks([over_shots([one, one])]) == over_tasks([one])
    assert width(over_tasks([one, one])) < width(over_tasks([one]))


def test_as_good_is_within_one_standard_error() -> None:
    best = np.array([0.9, 0.7, 0.8, 0.6])
    assert as_good(best, best)
    assert as_good(best - np.array([0.1, -0.1, 0.1, 0.0]), best)  # behind by 0.025, standard error 0.048
    assert not as_good(best - 0.05, best)  # behind by as much in every trial
    assert not as_good(best - np.array([0.06, 0.0, 0.06, 0.0]), best)  # behind by 0.03, standard error 0.017
    assert as_good(best - np.array([0.06, 0.0, 0.06, 0.0]), best, 2.0)
    assert not as_good(np.array([0.4]), np.array([0.5]))  # one trial has no standard error
    assert as_good(np.array([0.5]), np.array([0.4]))


def test_bootstrap_holds_the_mean_and_needs_two_values() -> None:
    rng = np.random.default_rng(0)
    found = [bootstrap(values) for values in rng.normal(3.0, 2.0, (200, 20))]
    held = np.mean([each.low <= 3.0 <= each.high for each in found if each.low is not None and each.high is not None])
    assert 0.88 < held < 0.98
    assert bootstrap(np.array([0.7])) == Interval(0.7, None, None)
    assert bootstrap(np.full(5, 0.5)) == Interval(0.5, 0.5, 0.5)
    assert bootstrap(np.arange(5.0)) == bootstrap(np.arange(5.0))
