"""How well the next answers of students are predicted: tables and results.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metanlp.core.intervals import Interval
from metanlp.core.outputs import RESULTS
from metanlp.core.storage import atomic_write
from metanlp.evaluation.traces import Score
from metanlp.report.tables import console, percent, starred, table

REFERENCE = "best_lr"  # what the others are compared with
METRICS = ("auc", "accuracy")


@dataclass(frozen=True)
class Tracing:
    """Scores of every method in every window, and what it took."""

    scores: Mapping[tuple[str, str], Mapping[str, Score]]  # by method and window, then by metric
    costs: Mapping[str, Mapping[str, Any]]  # by method
    facts: Mapping[str, str]  # who taught and who judged

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(method for method, _ in self.scores))

    @property
    def windows(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(window for _, window in self.scores))

    def gap(self, method: str, window: str, metric: str) -> Interval:
        """To the reference, on the same draws of students."""
        return (self.scores[method, window][metric] - self.scores[REFERENCE, window][metric]).interval


def score_rows(found: Tracing) -> list[dict[str, str]]:
    """A row a method: area under the curve and accuracy by window, and seconds."""
    return [
        {"method": name}
        | {
            f"{metric} {window}": percent(found.scores[name, window][metric].interval)
            for metric in METRICS
            for window in found.windows
        }
        | {"train s": f"{found.costs[name]['train_s']:.1f}"}
        for name in found.methods
    ]


def gap_rows(found: Tracing) -> list[dict[str, str]]:
    """A row a method: its differences to the reference."""
    return [
        {"method": name}
        | {f"{metric} {w}": starred(found.gap(name, w, metric)) for metric in METRICS for w in found.windows}
        for name in found.methods
        if name != REFERENCE
    ]


def show_tracing(found: Tracing) -> None:
    """Both tables, on standard output."""
    scores, gaps = score_rows(found), gap_rows(found)
    titles = ("Predicting the next answers of students never seen, by position of the answer, % (± half the 95 % "
              "interval, bootstrap over students)",
              f"Paired difference to {REFERENCE}, points (95 % interval); * is wholly on one side of zero")  # fmt: skip
    for title, rows in zip(titles, (scores, gaps), strict=True):
        console().print(table(title, rows[0], [list(row.values()) for row in rows]))


def write_tracing(found: Tracing, out: Path, about: Mapping[str, Any]) -> None:
    """`results.json`."""
    cells = [
        {"method": name, "window": window, "metric": metric, **asdict(score.interval),
         f"less {REFERENCE}": asdict(found.gap(name, window, metric))}
        for (name, window), each in found.scores.items()
        for metric, score in each.items()
    ]  # fmt: skip
    content = {"schema": 1, **about, "facts": dict(found.facts), "costs": dict(found.costs), "cells": cells}
    atomic_write(out / RESULTS, (json.dumps(content, indent=1) + "\n").encode())
