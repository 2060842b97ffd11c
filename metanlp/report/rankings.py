"""Rankings for simulated shoppers: tables on standard output, and the same rows for the report page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metanlp.core.intervals import Interval
from metanlp.core.settings import to_json
from metanlp.evaluation.shoppers import CHANCE, METRICS, Rankings
from metanlp.report.tables import centred, console, starred, table

SCORES = "mean over shoppers (± half the 95 % bootstrap interval over shoppers)"
GAPS = "paired differences (95 % bootstrap interval over shoppers; * is wholly on one side of zero)"


def show_rankings(found: Rankings, reference: str) -> None:
    """The scores of every method, and what it has ahead of the method `reference`, for each way of ticking."""
    for title, rows in tables_of(found, reference).items():
        console().print(table(title, rows[0], [list(row.values()) for row in rows]))


def tables_of(found: Rankings, reference: str) -> dict[str, list[dict[str, str]]]:
    """The rows of each table under its title."""
    methods, made = found.names("method"), dict[str, list[dict[str, str]]]()
    for sides in found.names("sides"):
        made[f"Ranking from {sides}, {SCORES}"] = [
            {"method": name}
            | {f"{metric}, {k} ticks": centred(found.score(name, sides, k, metric), 1, 3)
               for metric in METRICS for k in found.ticks}
            for name in methods
        ]  # fmt: skip
        made[f"Ranking from {sides}, less {reference}: {GAPS}"] = [
            {"method": name, "metric": metric}
            | {f"{k} ticks": starred(found.difference(name, reference, sides, k, metric), 1, 3) for k in found.ticks}
            for metric in METRICS
            for name in methods
            if name not in (reference, CHANCE)
        ]
    return made


def rankings_json(found: Rankings, reference: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """For results.json: the tables as they are shown, every mean with its interval, and every draw."""

    def ends(interval: Interval) -> dict[str, float | None]:
        return {"mean": interval.mean, "low": interval.low, "high": interval.high}

    keys = [(s, k, m) for s in found.names("sides") for k in found.ticks for m in METRICS]
    means = [
        {"method": name, "sides": sides, "ticks": k, "metric": metric, **ends(found.score(name, sides, k, metric))}
        for name in found.names("method")
        for sides, k, metric in keys
    ]
    paired = [
        {"a": name, "b": reference, "sides": sides, "ticks": k, "metric": metric,
         **ends(found.difference(name, reference, sides, k, metric))}
        for name in found.names("method") if name not in (reference, CHANCE)
        for sides, k, metric in keys
    ]  # fmt: skip
    tables = tables_of(found, reference)
    return {**about, "shoppers": list(found.names("shopper")), "tables": tables, "means": means, "paired": paired,
            "cells": [to_json(cell) for cell in found.cells]}  # fmt: skip
