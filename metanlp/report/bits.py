"""Bits a masked token, by domain, method and number of passages: fewer are better. Tables, a plot and results.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metanlp.core.intervals import Interval, Sample, over_tasks
from metanlp.core.outputs import RESULTS
from metanlp.core.settings import from_json, to_json
from metanlp.core.storage import atomic_write
from metanlp.report import plots
from metanlp.report.canvas import PlotStyle
from metanlp.report.findings import Compared
from metanlp.report.page import PLOTS, Section, drawing
from metanlp.report.tables import console, say, table

PLOT = "bits_by_passages"
POSSIBLE = (0.0, float("inf"))


@dataclass(frozen=True)
class Cell:
    """One method on one domain with k passages, and the recipe that was chosen for it on another domain."""

    domain: str
    method: str
    shots: int  # k
    sets: tuple[float, ...]  # bits a masked token with each support set
    blocks: tuple[float, ...]  # on each block of query passages, mean over support sets
    overlap: float  # share of their passages that two support sets have in common
    steps: int = 0  # of the inner loop
    lr: float = 0.0  # of adapters
    head_lr: float = 0.0  # of the biases of words

    @property
    def sample(self) -> Sample:
        return Sample(np.array(self.sets), np.array(self.blocks), self.overlap)


@dataclass(frozen=True)
class Bits:
    """All cells, and what each fold took."""

    cells: tuple[Cell, ...]
    costs: tuple[Mapping[str, Any], ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.method for cell in self.cells))

    @property
    def shots(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(cell.shots for cell in self.cells))

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.domain for cell in self.cells))

    def score(self, method: str, shots: int, domain: str | None = None) -> Interval:
        """Bits a masked token of one domain, or the mean over all."""
        return over_tasks([cell.sample for cell in self._of(method, shots, domain)], POSSIBLE)

    def difference(self, one: str, other: str, shots: int, domain: str | None = None) -> Interval:
        """Bits of `one` less those of `other`, on the same support sets and masked tokens: below zero is better."""
        sides = zip(self._of(one, shots, domain), self._of(other, shots, domain), strict=True)
        return over_tasks([a.sample - b.sample for a, b in sides])

    def _of(self, method: str, shots: int, domain: str | None) -> list[Cell]:
        return [
            cell
            for cell in self.cells
            if (cell.method, cell.shots) == (method, shots) and domain in (None, cell.domain)
        ]


def show_bits(found: Bits, reference: str) -> None:
    """The bits of every method, and paired differences to the method `reference`."""
    rows = [(domain, k) for domain in (*found.domains, None) for k in found.shots]
    scores = [
        [domain or "mean", str(k), *(spread(found.score(name, k, domain)) for name in found.methods)]
        for domain, k in rows
    ]
    others = [name for name in found.methods if name != reference]
    gaps = [
        [domain or "mean", str(k), *(gap(found.difference(name, reference, k, domain)) for name in others)]
        for domain, k in rows
    ]
    out = console()
    out.print(table("Bits a masked token of held-out domains, fewer are better (± half the 95 % interval)",
                    ("task", "passages", *found.methods), scores))  # fmt: skip
    out.print(table(f"Paired difference to {reference}, bits (95 % interval); * is wholly on one side of zero",
                    ("task", "passages", *(f"{name} − {reference}" for name in others)), gaps))  # fmt: skip


def write_bits(found: Bits, out: Path, reference: str, about: Mapping[str, Any]) -> None:
    """`results.json`, and the plot as PNG and SVG where matplotlib is installed."""
    means = [
        {"method": name, "shots": k, **asdict(found.score(name, k))} for name in found.methods for k in found.shots
    ]
    paired = [
        {"a": name, "b": reference, "shots": k, "domain": where, **asdict(found.difference(name, reference, k, where))}
        for name in found.methods if name != reference
        for k in found.shots
        for where in (None, *found.domains)
    ]  # fmt: skip
    content = {"schema": 1, **about, "means": means, "paired": paired, "costs": list(found.costs),
               "cells": [to_json(cell) for cell in found.cells]}  # fmt: skip
    atomic_write(out / RESULTS, (json.dumps(content, indent=1) + "\n").encode())
    rows = [{"method": each["method"], "shots": each["shots"], "bits": each["mean"], "low": each["low"],
             "high": each["high"]} for each in means]  # fmt: skip
    look = PlotStyle(found.methods, Compared(found.methods[-1], reference), "bits")
    for name, data in drawing(Section(PLOT, "methods", rows, plots.bits_by_passages), look).files.items():
        atomic_write(out / PLOTS / name, data)
    say({"plot": str(out / PLOTS)})


def spread(found: Interval) -> str:
    """The mean, with half the width of its interval."""
    if found.low is None or found.high is None:
        return f"{found.mean:.3f}"
    return f"{found.mean:.3f} ± {(found.high - found.low) / 2:.3f}"


def gap(found: Interval) -> str:
    """The mean and its interval, and a star where that is a verdict."""
    if found.low is None or found.high is None:
        return f"{found.mean:+.3f}"
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]{'*' * (found.verdict != 'unclear')}"


def cells_of(stored: Sequence[Mapping[str, Any]]) -> tuple[Cell, ...]:
    """The cells that a fold left as JSON."""
    return tuple(from_json(Cell, dict(cell)) for cell in stored)
