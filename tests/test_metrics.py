"""Scores against scikit-learn and numbers worked out by hand; intervals against what they promise."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as judge

from metanlp import metrics
from metanlp.errors import InputError
from metanlp.metrics import Interval, as_good, calibration, interval, paired, score


@pytest.mark.parametrize("ways", [2, 3, 7])
@pytest.mark.parametrize("skill", [0.0, 0.6, 1.0])
def test_scores_are_those_of_scikit_learn(ways: int, skill: float) -> None:
    rng = np.random.default_rng(ways)
    targets = rng.integers(0, ways, 200)
    predictions = np.where(rng.random(200) < skill, targets, rng.integers(0, ways, 200))
    found = score(predictions, targets, ways)
    assert found["accuracy"] == pytest.approx(judge.accuracy_score(targets, predictions), abs=1e-12)
    assert found["matthews"] == pytest.approx(judge.matthews_corrcoef(targets, predictions), abs=1e-12)
    mean = judge.precision_recall_fscore_support(targets, predictions, average="macro", zero_division=0)
    assert [found[name] for name in ("precision", "recall", "macro_f1")] == pytest.approx(mean[:3], abs=1e-12)
    assert ("f1" in found) == (ways == 2)
    if ways == 2:
        assert found["f1"] == pytest.approx(judge.f1_score(targets, predictions), abs=1e-12)


def test_scores_worked_out_by_hand() -> None:
    # Of class 1: one hit, one miss, one false alarm. Of class 0: two hits, one miss, one false alarm.
    found = score(np.array([0, 0, 1, 0, 1]), np.array([0, 0, 0, 1, 1]), 2)
    assert found == pytest.approx(
        {"accuracy": 3 / 5, "macro_f1": 7 / 12, "f1": 1 / 2, "precision": 7 / 12, "recall": 7 / 12, "matthews": 1 / 6}
    )


def test_classes_that_never_occur_count_for_nothing_and_nothing_is_divided_by_zero() -> None:
    constant = score(np.zeros(4), np.array([0, 0, 0, 1]), 5)
    assert constant["macro_f1"] == pytest.approx((6 / 7 + 0) / 2)
    assert constant["matthews"] == 0.0
    assert score(np.array([3]), np.array([3]), 5)["macro_f1"] == 1.0


@pytest.mark.parametrize(
    ("predictions", "targets", "said"),
    [
        ([0.0, math.nan], [0, 1], "nan"),
        ([0, math.inf], [0, 1], "inf"),
        ([0, 2], [0, 1], "0 to 1"),
        ([0, -1], [0, 1], "-1"),
        ([0.5, 1], [0, 1], "0.5"),
        ([0, 1], [0, 2], "targets"),
        ([0], [0, 1], "1 predictions for 2 targets"),
        ([], [], "at least one"),
        ([[0, 1]], [[0, 1]], "vector"),
    ],
)
def test_what_is_no_class_index_is_refused(predictions: list[float], targets: list[float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        score(np.array(predictions), np.array(targets), 2)


def test_the_metric_is_one_of_evaluate_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import evaluate

    monkeypatch.chdir(tmp_path)
    metric = metrics.classification()
    rng = np.random.default_rng(0)
    predictions, targets = rng.integers(0, 3, (2, 50))
    assert isinstance(metric, evaluate.Metric)
    metric.add_batch(predictions=predictions[:20], references=targets[:20])
    metric.add_batch(predictions=predictions[20:], references=targets[20:])
    expected = score(predictions, targets, 3)
    assert metric.compute() == expected
    assert evaluate.combine([metric]).compute(predictions=predictions, references=targets) == expected
    assert not list(tmp_path.iterdir())


def test_calibration_worked_out_by_hand() -> None:
    # Two rows at 0.95 of which one is right, two at 0.65 of which both are.
    rows = np.array([[0.95, 0.05], [0.95, 0.05], [0.35, 0.65], [0.35, 0.65]])
    assert calibration(rows, np.array([0, 1, 1, 1])) == pytest.approx((2 * 0.45 + 2 * 0.35) / 4)


def test_calibration_bounds() -> None:
    sure = np.eye(3)[[0, 1, 2]]
    assert calibration(sure, np.array([0, 1, 2])) == 0.0
    assert calibration(sure, np.array([1, 2, 0])) == 1.0


def test_calibration_of_honest_probabilities_is_small() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(20_000)
    targets = (rng.random(20_000) > first).astype(int)
    assert calibration(np.stack([first, 1 - first], 1), targets) < 0.02


@pytest.mark.parametrize(("rows", "targets"), [([[0.5, math.nan]], [0]), ([[0.5, 0.5]], [0, 1]), (np.ones((0, 2)), [])])
def test_calibration_refuses_what_it_cannot_judge(rows: list[list[float]], targets: list[int]) -> None:
    with pytest.raises(InputError, match="one row of finite numbers"):
        calibration(np.array(rows), np.array(targets))


def test_a_surer_interval_is_wider() -> None:
    few, many = np.array([1.0, 2.0, 4.0]), np.random.default_rng(0).random(40)
    for values in (few, many):
        usual, surer = interval(values), interval(values, 0.995)
        assert usual.mean == surer.mean
        assert surer.low < usual.low < usual.high < surer.high


def test_t_interval_worked_out_by_hand() -> None:
    # t at 0.975 with 2 degrees of freedom is 4.302653; the standard error of 1, 2, 3 is 1/√3.
    found = interval(np.array([1.0, 2.0, 3.0]))
    half = 4.302653 / math.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half), rel=1e-6)


def test_one_value_has_no_interval_and_equal_values_one_without_width() -> None:
    assert interval(np.array([0.7])) == Interval(0.7, None, None)
    for count in (2, 29, 30, 100):
        found = interval(np.full(count, 0.5))
        assert (found.low, found.high) == (0.5, 0.5)


def test_t_interval_holds_the_mean_in_95_of_100_samples() -> None:
    rng = np.random.default_rng(0)
    found = [interval(values) for values in rng.normal(3.0, 2.0, (1500, 8))]
    held = np.mean([one.low <= 3.0 <= one.high for one in found])
    assert held == pytest.approx(0.95, abs=3 * math.sqrt(0.05 * 0.95 / 1500))


def test_bootstrap_agrees_with_the_normal_law_and_with_itself() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.1, 400)
    found = interval(values)
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05 * half)
    assert interval(values) == found


def test_pairs_of_the_same_episodes_are_tighter_than_each_side() -> None:
    rng = np.random.default_rng(0)
    hardness = rng.normal(0.6, 0.2, 20)
    a, b = hardness + 0.02 + rng.normal(0, 0.01, 20), hardness + rng.normal(0, 0.01, 20)
    found = paired(a, b)
    assert found == interval(a - b)
    assert 0 < found.low < 0.02 < found.high < 0.04
    with pytest.raises(InputError, match="same episodes"):
        paired(a, b[:-1])


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf], [[1.0, 2.0]]])
def test_an_interval_of_nothing_is_refused(values: list[float]) -> None:
    with pytest.raises(InputError, match="at least one finite number"):
        interval(np.array(values))


def test_as_good_is_within_one_standard_error() -> None:
    best = np.array([0.9, 0.7, 0.8, 0.6])
    assert as_good(best, best)
    assert as_good(best - np.array([0.1, -0.1, 0.1, 0.0]), best)  # behind by 0.025, standard error 0.048
    assert not as_good(best - 0.05, best)  # behind by as much in every trial
    assert not as_good(np.array([0.4]), np.array([0.5]))  # one trial has no standard error
    assert as_good(np.array([0.5]), np.array([0.4]))
