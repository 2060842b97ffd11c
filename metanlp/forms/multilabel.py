"""One example is a text, or a pair of texts, with any number of a task's labels, or none."""

from __future__ import annotations

from collections.abc import Sequence
from reprlib import repr as brief
from typing import TYPE_CHECKING, Any

import numpy as np

from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Meaning, Row
from metanlp.forms.base import Form, Scored, mean_per_task
from metanlp.forms.metrics import label_sets
from metanlp.forms.reading import (
    Cells,
    LabelledRow,
    Numbering,
    Pools,
    label_word,
    numbers_of,
    require_known,
    taught_words,
)

if TYPE_CHECKING:
    from torch import Tensor

    from metanlp.forms.heads.ridge import RidgeHead


def label_loss(scores: Tensor, batch: Batch, weight: Tensor | None = None) -> Tensor:
    """The loss of `Multilabel`: (N, K) -> (T,)."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    absent = scores.isneginf()  # beyond a task's own labels
    each = binary_cross_entropy_with_logits(scores.masked_fill(absent, 0), batch.targets, reduction="none")
    labels = batch.ways[batch.task_of].to(each.dtype)
    return mean_per_task(each.masked_fill(absent, 0).sum(1) / labels, batch, weight)


class Multilabel(Form):
    """Each label is a question of its own, yes or no: mean binary cross-entropy over the labels."""

    name, metric, answer = "multilabel", "micro_f1", "labels"
    answer_columns, lists, answer_type = ("labels",), ("labels",), list
    prefix = "multilabel/"
    loss = staticmethod(label_loss)
    one_class, class_targets = False, False
    shot = "rows with each label"

    def make_head(self) -> RidgeHead:
        from metanlp.forms.heads.ridge import RidgeHead

        return RidgeHead(label_loss, even=True)

    def read_answer(self, cells: Cells, row: Row) -> tuple[str, ...]:
        """Any number of labels, none twice."""
        value, where = cells["labels"], cells.where
        if isinstance(value, str) and not value.strip().startswith("["):
            raise InputError(
                f'{where}: the labels are {brief(value)}; write a list, ["one", "two"]; a task with one label a row '
                "has the column `label`: --columns label=labels"
            )
        labels = tuple(label_word(label, f"{where}: a label") for label in cells.texts("labels"))
        if len({*labels}) < len(labels):
            raise InputError(f"{where}: the labels {brief(labels)} name one twice; remove one of the two")
        return labels

    def meaning(self, pools: Pools, name: str) -> Meaning:
        return Meaning(self.name, taught_words(pools, lambda row: row.label, [], name))

    def numbering(self, rows: Sequence[LabelledRow], meaning: Meaning) -> Numbering:
        numbers = numbers_of(meaning)
        require_known(rows, lambda row: row.label, numbers)
        return lambda row: {"labels": tuple(sorted(numbers[word] for word in row.label))}

    def shots_of(self, row: Row) -> tuple[int, ...]:
        return tuple(row["labels"])

    def gold(self, row: Row, meaning: Meaning) -> Sequence[np.ndarray]:
        return (indicator(row.get("labels", ()), len(meaning.labels)),)

    def renumbered(self, gold: np.ndarray, classes: Sequence[int] | np.ndarray) -> np.ndarray:
        return gold[:, list(classes)]

    def answers(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> list[dict[str, Any]]:
        return [
            {"labels": [name for name, p in by_name.items() if p > 0.5], "probabilities": by_name}
            for by_name in (dict(zip(meaning.labels, p, strict=True)) for p in sigmoid(scored.values).tolist())
        ]

    def metrics(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> dict[str, float]:
        return label_sets(*self._sets(scored, rows, meaning))

    def truth(self, row: Row, meaning: Meaning) -> Any:
        return [meaning.labels[n] for n in row["labels"]]

    def wrong_by(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> np.ndarray:
        """Number of labels that are predicted and wrong, or missed."""
        told, true = self._sets(scored, rows, meaning)
        return (told != true).sum(1)

    def _sets(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> tuple[np.ndarray, np.ndarray]:
        """Labels predicted and true: (R, K) bool each."""
        return scored.values > 0, np.stack([indicator(row["labels"], len(meaning.labels)) for row in rows]) > 0


def indicator(labels: Sequence[int], count: int) -> np.ndarray:
    """1 for the labels that a row has: (K,)."""
    return np.isin(np.arange(count), labels).astype(np.float32)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * values))
