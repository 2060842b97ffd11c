"""One example is a question with choices, of which one is right: one score a choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metanlp.forms.base import Form, Scored, folded, mean_per_task, softmax
from metanlp.metrics import confidence_error
from metanlp.types import Batch, Row, Task


class Choose(Form):
    """Cross-entropy over the choices of a question. The model reads the question once with each choice."""

    name, metric, answer, shown = "choose", "accuracy", "answer", "choice"
    asks = "(question, choices), or a row with `question` and `choices`"
    by_class, least, number = False, 1, np.float32

    def question(self, item: Any) -> Row | None:
        if isinstance(item, Mapping):
            item = (item.get("question"), item.get("choices"))
        if not isinstance(item, Sequence) or len(item) != 2 or not isinstance(item[0], str):
            return None
        choices = item[1]
        if isinstance(choices, str) or not isinstance(choices, Sequence) or len(choices) < 2:
            return None
        texts = all(isinstance(choice, str) for choice in choices)
        return {"question": item[0], "choices": tuple(choices)} if texts else None

    def texts(self, row: Row) -> tuple[tuple[str, ...], ...]:
        return tuple((row["question"], choice) for choice in row["choices"])

    def key(self, row: Row) -> tuple[str, ...]:
        """The question and its choices; in another order they are the same."""
        return folded(row["question"]), *sorted(map(folded, row["choices"]))

    def outputs(self, task: Task) -> int:
        return 1

    def shots_of(self, row: Row) -> tuple[int, ...]:
        return ()

    def gold(self, row: Row, task: Task) -> Sequence[float]:
        return [float(number == row.get("answer", 0)) for number in range(len(row["choices"]))]

    def loss(self, scores: Tensor, batch: Batch, weight: Tensor | None = None) -> Tensor:
        values, right = scores[:, 0], batch.targets
        each = (log_sum_exp(values, batch.group)[batch.group] - values) * right
        return mean_per_task(each, batch, right if weight is None else right * weight)

    def answers(
        self, scored: Scored, rows: Sequence[Row], labels: Sequence[str], scale: tuple[float, float]
    ) -> list[dict[str, Any]]:
        found = zip(rows, self.probabilities(scored), strict=True)
        return [
            {"answer": int(p.argmax()), "choice": row["choices"][int(p.argmax())], "probability": float(p.max())}
            for row, p in found
        ]

    def metrics(self, scored: Scored, rows: Sequence[Row], task: Task) -> dict[str, float]:
        confidence, right = self.sure(scored, rows)
        return {"accuracy": float(right.mean()), "ece": confidence_error(confidence, right)}

    def truth(self, row: Row, labels: Sequence[str]) -> str:
        return row["choices"][row["answer"]]

    def sure(self, scored: Scored, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
        probabilities = self.probabilities(scored)
        right = np.array([p.argmax() == row["answer"] for p, row in zip(probabilities, rows, strict=True)])
        return np.array([p.max() for p in probabilities]), right

    def probabilities(self, scored: Scored) -> list[np.ndarray]:
        """Of the choices of each question: R arrays (choices,)."""
        return [softmax(values[:, 0]) for values in scored.rows()]


def log_sum_exp(values: Tensor, group: Tensor) -> Tensor:
    """Of each group: (N,), (N,) group numbers below N -> (N,), by group number."""
    top = values.detach().new_full((len(values),), -torch.inf).scatter_reduce(0, group, values.detach(), "amax")
    odds = torch.exp(values - top[group])
    return torch.log(torch.zeros_like(values).index_add(0, group, odds)) + top
