"""Scores against scikit-learn and numbers worked out by hand; intervals against what they promise."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from near import near
from sklearn import metrics as judge

from metanlp.core.errors import InputError
from metanlp.forms import metrics
from metanlp.forms.metrics import calibration, score


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


def error_of(rows: np.ndarray, targets: np.ndarray) -> float:
    """The calibration error of probabilities (N, K), for classes (N,)."""
    return calibration(rows.max(1), rows.argmax(1) == targets)


def test_calibration_worked_out_by_hand() -> None:
    # Two rows at 0.95 of which one is right, two at 0.65 of which both are.
    rows = np.array([[0.95, 0.05], [0.95, 0.05], [0.35, 0.65], [0.35, 0.65]])
    assert error_of(rows, np.array([0, 1, 1, 1])) == pytest.approx((2 * 0.45 + 2 * 0.35) / 4)


def test_calibration_bounds() -> None:
    sure = np.eye(3)[[0, 1, 2]]
    assert error_of(sure, np.array([0, 1, 2])) == 0.0
    assert error_of(sure, np.array([1, 2, 0])) == 1.0


def test_calibration_of_honest_probabilities_is_small() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(20_000)
    targets = (rng.random(20_000) > first).astype(int)
    assert error_of(np.stack([first, 1 - first], 1), targets) < 0.02


@pytest.mark.parametrize(("sure", "right"), [([math.nan], [True]), ([0.5], [True, False]), ([], [])])
def test_calibration_refuses_what_it_cannot_judge(sure: list[float], right: list[bool]) -> None:
    with pytest.raises(InputError, match="one row of finite numbers"):
        calibration(np.array(sure), np.array(right, bool))


def test_an_answer_that_is_no_class_is_wrong_and_is_in_no_mean() -> None:
    right = np.array([0, 1] * 50)
    said = right.copy()
    said[0] = 2
    found = score(said, right, 2, invalid=True)
    assert found["accuracy"] == 0.99
    near(found["recall"], (0.98 + 1) / 2)
    near(found["precision"], 1.0)
    assert found["recall"] < score(right, right, 2)["recall"] == 1.0
    with pytest.raises(InputError, match="predictions hold 2"):
        score(said, right, 2)
