"""One example is a text, or a pair of texts, with a number on a task's own scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from metanlp.forms.base import Form, Scored, mean_per_task
from metanlp.metrics import correlation
from metanlp.types import Batch, Row, Task

SPREAD = 0.25  # standard deviation of the error that a loss of nats presumes, as a part of the scale


class Regress(Form):
    """Scores are counted from 0, the lowest of the training rows, to 1, the highest. The loss is the negative
    log-likelihood of a normal distribution of fixed width, without its constant."""

    name, metric, answer = "regress", "pearson", "score"
    by_class, least, number = False, 1, np.float32
    curvature = 4 / SPREAD**2

    def outputs(self, task: Task) -> int:
        return 1

    def shots_of(self, row: Row) -> tuple[int, ...]:
        return ()

    def gold(self, row: Row, task: Task) -> Sequence[float]:
        low, high = task.scale
        return ((row.get("score", low) - low) / (high - low),)

    def loss(self, scores: Tensor, batch: Batch, weight: Tensor | None = None) -> Tensor:
        each = (scores[:, 0] - batch.targets).square() / (2 * SPREAD**2)
        return mean_per_task(each, batch, weight)

    def answers(
        self, scored: Scored, rows: Sequence[Row], labels: Sequence[str], scale: tuple[float, float]
    ) -> list[dict[str, Any]]:
        return [{"score": value} for value in on_scale(scored, scale).tolist()]

    def metrics(self, scored: Scored, rows: Sequence[Row], task: Task) -> dict[str, float]:
        return correlation(on_scale(scored, task.scale), np.array([row["score"] for row in rows]))

    def truth(self, row: Row, labels: Sequence[str]) -> float:
        return row["score"]

    def wrong_by(self, scored: Scored, rows: Sequence[Row], task: Task) -> np.ndarray:
        return np.abs(on_scale(scored, task.scale) - np.array([row["score"] for row in rows]))


def on_scale(scored: Scored, scale: tuple[float, float]) -> np.ndarray:
    """Scores as the task counts them: (R,)."""
    low, high = scale
    return low + scored.values[:, 0].astype(np.float64) * (high - low)
