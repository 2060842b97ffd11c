"""One example is a text, or a pair of texts, with a number on a task's own scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Meaning, Row
from metanlp.forms.base import Form, Scored, mean_per_task
from metanlp.forms.metrics import correlation
from metanlp.forms.reading import Cells, Pools, came

if TYPE_CHECKING:
    from torch import Tensor

    from metanlp.forms.heads.ridge import RidgeHead

SPREAD = 0.25  # standard deviation of the error that a loss of nats presumes, as a part of the scale


def squared_error(scores: Tensor, batch: Batch, weight: Tensor | None = None) -> Tensor:
    """The loss of `Regress`: (N, 1) -> (T,)."""
    return mean_per_task((scores[:, 0] - batch.targets).square() / (2 * SPREAD**2), batch, weight)


class Regress(Form):
    """Scores are counted from 0, the lowest of the training rows, to 1, the highest. The loss is the negative
    log-likelihood of a normal distribution of fixed width, without its constant."""

    name, metric, answer = "regress", "pearson", "score"
    answer_columns, numbers, answer_type = ("score",), ("score",), float
    prefix = "regress/"
    loss = staticmethod(squared_error)
    by_class, class_targets = False, False
    curvature = 4 / SPREAD**2
    example = Form.pair

    def make_head(self) -> RidgeHead:
        from metanlp.forms.heads.ridge import RidgeHead

        return RidgeHead(squared_error, scale=1.0, offset=0.5, learned=True)

    def read_answer(self, cells: Cells, row: Row) -> float:
        value, what = cells["score"], f"{cells.where}: the score is"
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{what} {came(value)}; write a number")
        if not math.isfinite(value) or abs(value) > 1e15:
            raise InputError(f"{what} {value}; write a finite number of ordinary size")
        return float(value)

    def meaning(self, pools: Pools, name: str) -> Meaning:
        first, taught = pools["train"][0], [row.label for row in pools["train"]]
        low, high = min(taught), max(taught)
        if low == high:
            raise InputError(
                f"{first.where}: task {name!r} has only the score {low:g} to train on; give rows of different scores"
            )
        return Meaning(self.name, scale=(low, high))

    def gold(self, row: Row, meaning: Meaning) -> Sequence[float]:
        low, high = meaning.scale
        return ((row.get("score", low) - low) / (high - low),)

    def answers(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> list[dict[str, Any]]:
        return [{"score": value} for value in on_scale(scored, meaning.scale).tolist()]

    def metrics(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> dict[str, float]:
        return correlation(on_scale(scored, meaning.scale), np.array([row["score"] for row in rows]))

    def wrong_by(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> np.ndarray:
        return np.abs(on_scale(scored, meaning.scale) - np.array([row["score"] for row in rows]))


def on_scale(scored: Scored, scale: tuple[float, float]) -> np.ndarray:
    """Scores as the task counts them: (R,)."""
    low, high = scale
    return low + scored.values[:, 0].astype(np.float64) * (high - low)
