"""One example is a text, or a pair of texts, with any number of a task's labels, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from metanlp.forms.base import Form, Scored, mean_per_task
from metanlp.metrics import label_sets
from metanlp.types import Batch, Row, Task


class Multilabel(Form):
    """Each label is a question of its own, yes or no: mean binary cross-entropy over the labels."""

    name, metric, answer = "multilabel", "micro_f1", "labels"
    one_class, least, number = False, 1, np.float32

    def shots_of(self, row: Row) -> tuple[int, ...]:
        return tuple(row["labels"])

    def gold(self, row: Row, task: Task) -> Sequence[np.ndarray]:
        return (indicator(row.get("labels", ()), len(task.labels)),)

    def renumbered(self, gold: np.ndarray, classes: Sequence[int] | np.ndarray) -> np.ndarray:
        return gold[:, list(classes)]

    def loss(self, scores: Tensor, batch: Batch, weight: Tensor | None = None) -> Tensor:
        absent = scores.isneginf()  # beyond a task's own labels
        each = binary_cross_entropy_with_logits(scores.masked_fill(absent, 0), batch.targets, reduction="none")
        labels = batch.ways[batch.task_of].to(each.dtype)
        return mean_per_task(each.masked_fill(absent, 0).sum(1) / labels, batch, weight)

    def answers(
        self, scored: Scored, rows: Sequence[Row], labels: Sequence[str], scale: tuple[float, float]
    ) -> list[dict[str, Any]]:
        return [
            {"labels": [name for name, p in by_name.items() if p > 0.5], "probabilities": by_name}
            for by_name in (dict(zip(labels, p, strict=True)) for p in sigmoid(scored.values).tolist())
        ]

    def metrics(self, scored: Scored, rows: Sequence[Row], task: Task) -> dict[str, float]:
        true = np.stack([indicator(row["labels"], len(task.labels)) for row in rows])
        return label_sets(scored.values > 0, true > 0)

    def truth(self, row: Row, labels: Sequence[str]) -> Any:
        return [labels[n] for n in row["labels"]]

    def wrong_by(self, scored: Scored, rows: Sequence[Row], task: Task) -> np.ndarray:
        """Labels too many and too few."""
        true = np.stack([indicator(row["labels"], len(task.labels)) for row in rows])
        return ((scored.values > 0) != (true > 0)).sum(1)


def indicator(labels: Sequence[int], count: int) -> np.ndarray:
    """1 for the labels that a row has: (K,)."""
    found = np.zeros(count, dtype=np.float32)
    found[list(labels)] = 1
    return found


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * values))
