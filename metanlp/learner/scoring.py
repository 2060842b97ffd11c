"""How good an adapted model is on labelled rows: the metrics of its form, and class by class where rows have one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from metanlp.core.intervals import interval_of_share
from metanlp.core.types import Meaning, Row
from metanlp.forms import FORMS, Scored
from metanlp.forms.metrics import confusion


def judged(scored: Scored, rows: Sequence[Row], meaning: Meaning) -> dict[str, Any]:
    """`rows`, their number, and the form's metrics by name. Of forms with one class a row also `commonest`, the
    accuracy of saying the commonest class always; `accuracy_interval`, 95 % (Wilson 1927), which holds what other rows
    would give and not what other examples to adapt to would; and `classes`: for each label the number of its rows,
    precision, recall, and how often it was called what else."""
    form = FORMS[meaning.form]
    found: dict[str, Any] = {"rows": len(rows), **form.metrics(scored, rows, meaning)}
    if not form.single_label:
        return found
    right = np.array([form.shots_of(row)[0] for row in rows])
    counts = confusion(scored.values.argmax(1), right, len(meaning.labels))
    return found | {
        "commonest": float(counts.sum(1).max() / len(rows)),
        "accuracy_interval": interval_of_share(int(counts.diagonal().sum()), len(rows)),
        "classes": {str(label): of_class(counts, n, meaning.labels) for n, label in enumerate(meaning.labels)},
    }


def of_class(counts: np.ndarray, number: int, labels: Sequence[str]) -> dict[str, Any]:
    """Class `number` of a confusion matrix (K, K)."""
    rows, told, hits = (int(value) for value in (counts[number].sum(), counts[:, number].sum(), counts[number, number]))
    others = {str(labels[n]): int(counts[number, n]) for n in np.argsort(-counts[number], kind="stable") if n != number}
    return {
        "rows": rows,
        "recall": hits / rows if rows else None,
        "precision": hits / told if told else None,
        "called": {label: times for label, times in others.items() if times},
    }
