"""Plain regressions as baselines: probabilities, a chosen C, and what they do with few rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import mini_tasks

from metanlp.core.types import Row, Task
from metanlp.evaluation.external import ExternalBaseline, Logistic, Tfidf
from metanlp.evaluation.external.plain import STRENGTHS, tuned
from metanlp.forms import DEFAULT
from metanlp.tasks.reading.build import task_from_rows


@pytest.fixture(scope="module")
def task() -> Task:
    return mini_tasks()["mini/commit_types"]


@pytest.fixture(params=["tfidf", "logistic"])
def baseline(request: pytest.FixtureRequest, tiny: Path) -> ExternalBaseline:
    return Tfidf() if request.param == "tfidf" else Logistic(str(tiny))


def support_of(task: Task, shots: int, classes: int) -> list[Row]:
    rows = task.pools["train"]
    return [row for label in range(classes) for row in [each for each in rows if each["label"] == label][:shots]]


@pytest.mark.parametrize("shots", [1, 3])
def test_answers_are_probabilities_of_the_classes_that_were_seen(
    baseline: ExternalBaseline, task: Task, shots: int
) -> None:
    support = support_of(task, shots, 4)
    query = [DEFAULT.question(row) or {} for row in task.pools["train"]]
    found = baseline.answer(task, support, query, 0)
    odds = np.exp(found.values)
    assert odds.sum(1) == pytest.approx(np.ones(len(query)), abs=1e-6)  # a class without rows is a billionth likely
    assert odds[:, 4].max() < 1e-6  # no row of the last class
    again = baseline.answer(task, support, query, 0)
    assert np.array_equal(found.values, again.values)
    own = baseline.answer(task, support, [DEFAULT.question(row) or {} for row in support], 0).values.argmax(1)
    assert (own == [row["label"] for row in support]).mean() > 0.35  # a quarter by chance


def test_texts_without_a_letter_have_words_too() -> None:
    signs = {"up": ["+ +", "++ !", "+ ?"], "down": ["- -", "-- !", "- ?"]}
    task = task_from_rows("signs", [{"text": text, "label": label} for label in signs for text in signs[label]])
    found = Tfidf().answer(task, task.pools["train"], [{"text": "+"}, {"text": "-"}], 0)
    assert [task.labels[n] for n in found.values.argmax(1)] == ["up", "down"]


def test_c_is_chosen_where_each_class_has_two_rows() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(20) % 2
    features = rng.normal(labels[:, None] * 2.0, 1.0, (20, 3))
    assert tuned(labels, 0).fit(features, labels).best_params_["C"] in STRENGTHS
    assert tuned(labels[:3], 0).C == 1
