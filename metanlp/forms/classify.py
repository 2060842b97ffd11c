"""One example is a text, or a pair of texts, with one label out of a task's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metanlp.forms.base import Form, Scored, mean_per_task, softmax
from metanlp.metrics import calibration, score
from metanlp.types import Batch, Row, Task


class Classify(Form):
    """Cross-entropy over the classes of an episode."""

    name, metric, answer = "classify", "accuracy", "label"

    def shots_of(self, row: Row) -> tuple[int, ...]:
        return (row["label"],)

    def gold(self, row: Row, task: Task) -> Sequence[int]:
        return (row.get("label", 0),)

    def renumbered(self, gold: np.ndarray, classes: Sequence[int] | np.ndarray) -> np.ndarray:
        return np.searchsorted(classes, gold)

    def loss(self, scores: Tensor, batch: Batch, weight: Tensor | None = None) -> Tensor:
        each = torch.nn.functional.cross_entropy(scores, batch.targets, reduction="none")
        return mean_per_task(each, batch, weight)

    def answers(
        self, scored: Scored, rows: Sequence[Row], labels: Sequence[str], scale: tuple[float, float]
    ) -> list[dict[str, Any]]:
        probabilities = softmax(scored.values)
        return [{"label": labels[int(p.argmax())], "probability": float(p.max())} for p in probabilities]

    def metrics(self, scored: Scored, rows: Sequence[Row], task: Task) -> dict[str, float]:
        targets = np.array([row["label"] for row in rows])
        found = score(scored.values.argmax(1), targets, len(task.labels))
        return found | {"ece": calibration(softmax(scored.values), targets)}

    def truth(self, row: Row, labels: Sequence[str]) -> Any:
        return labels[row["label"]]

    def sure(self, scored: Scored, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray] | None:
        return softmax(scored.values).max(1), scored.values.argmax(1) == np.array([row["label"] for row in rows])
