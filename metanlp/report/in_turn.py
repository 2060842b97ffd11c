"""Tasks that were held out in turn, domains of text or pairs of languages: what each method is worth by task and number
of support texts. Tables, plots, a page and results.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from metanlp.core.intervals import Interval, Sample, over_tasks
from metanlp.core.outputs import IN_TURN, RESULTS
from metanlp.core.settings import from_json, to_json
from metanlp.core.storage import atomic_write
from metanlp.report import plots
from metanlp.report.canvas import PlotStyle
from metanlp.report.findings import Compared
from metanlp.report.page import PLOTS, Section, drawing, write_tables
from metanlp.report.tables import centred, console, say, starred, table

POSSIBLE = (0.0, float("inf"))


@dataclass(frozen=True)
class Measure:
    """What cells measure, and how that is said."""

    name: str  # as in `Cell.measure`
    title: str  # of its table
    axis: str  # of its plot
    texts: str  # what support texts are called: passages, sentences


@dataclass(frozen=True)
class Cell:
    """One method on one task with k support texts, and the recipe that was chosen for it on another task."""

    domain: str  # the task
    method: str
    shots: int  # k
    sets: tuple[float, ...]  # the measure with each support set
    blocks: tuple[float, ...]  # on each block of query texts, mean over support sets
    overlap: float  # share of their texts that two support sets have in common
    steps: int = 0  # of the inner loop
    lr: float = 0.0  # of adapters
    head_lr: float = 0.0  # of the biases of words
    measure: str = "bits"

    @property
    def sample(self) -> Sample:
        return Sample(np.array(self.sets), np.array(self.blocks), self.overlap)


@dataclass(frozen=True)
class InTurn:
    """All cells of one measure."""

    measure: Measure
    cells: tuple[Cell, ...]

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
        """The measure on one task, or the mean over all."""
        return over_tasks([cell.sample for cell in self._of(method, shots, domain)], POSSIBLE)

    def difference(self, one: str, other: str, shots: int, domain: str | None = None) -> Interval:
        """That of `one` less that of `other`, on the same support sets and query texts."""
        sides = zip(self._of(one, shots, domain), self._of(other, shots, domain), strict=True)
        return over_tasks([a.sample - b.sample for a, b in sides])

    def _of(self, method: str, shots: int, domain: str | None) -> list[Cell]:
        return [
            cell
            for cell in self.cells
            if (cell.method, cell.shots) == (method, shots) and domain in (None, cell.domain)
        ]


Columns = tuple[str, tuple[str, ...], list[list[str]]]
"""A table: its title, its header, its rows."""


def measured(cells: Sequence[Cell], measures: Sequence[Measure]) -> tuple[InTurn, ...]:
    """The cells of each measure."""
    return tuple(InTurn(each, tuple(cell for cell in cells if cell.measure == each.name)) for each in measures)


def columns(found: InTurn, reference: str) -> tuple[Columns, Columns]:
    """The measure of every method, and paired differences to the method `reference`."""
    rows = [(domain, k) for domain in (*found.domains, None) for k in found.shots]
    scores = [
        [domain or "mean", str(k), *(centred(found.score(name, k, domain), 1, 3) for name in found.methods)]
        for domain, k in rows
    ]
    others = [name for name in found.methods if name != reference]
    gaps = [
        [domain or "mean", str(k), *(starred(found.difference(name, reference, k, domain), 1, 3) for name in others)]
        for domain, k in rows
    ]
    said = found.measure
    return (
        (f"{said.title} (± half the 95 % interval)", ("task", said.texts, *found.methods), scores),
        (f"Paired difference to {reference}, {said.name} (95 % interval); * is wholly on one side of zero",
         ("task", said.texts, *(f"{name} − {reference}" for name in others)), gaps),
    )  # fmt: skip


def show_in_turn(every: Sequence[InTurn], reference: str, notes: Sequence[str]) -> None:
    """The tables of every measure, and what has to be known of them."""
    out = console()
    for found in every:
        for each in columns(found, reference):
            out.print(table(*each))
    for note in notes:
        out.print(note)


def write_in_turn(
    every: Sequence[InTurn], out: Path, reference: str, about: Mapping[str, Any], costs: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
) -> None:  # fmt: skip
    """`results.json`, a plot for each measure as PNG and SVG where matplotlib is installed, and a page with `notes`."""
    means, paired = list[dict[str, Any]](), list[dict[str, Any]]()
    for found in every:
        name, names = found.measure.name, found.methods
        means += [{"measure": name, "method": each, "shots": k, **asdict(found.score(each, k))}
                  for each in names for k in found.shots]  # fmt: skip
        paired += [
            {"measure": name, "a": each, "b": reference, "shots": k, "domain": where,
             **asdict(found.difference(each, reference, k, where))}
            for each in names if each != reference
            for k in found.shots
            for where in (None, *found.domains)
        ]  # fmt: skip
    cells = [to_json(cell) for found in every for cell in found.cells]
    content = {
        "schema": 1,
        "kind": IN_TURN,
        **about,
        "means": means,
        "paired": paired,
        "costs": list(costs),
        "cells": cells,
    }
    atomic_write(out / RESULTS, (json.dumps(content, indent=1) + "\n").encode())
    drawn = [drawing(section(found), PlotStyle(found.methods, Compared(found.methods[-1], reference), ""))
             for found in every]  # fmt: skip
    for name, data in (item for each in drawn for item in each.files.items()):
        atomic_write(out / PLOTS / name, data)
    tables = [each for found in every for each in columns(found, reference)]
    say({"page": str(write_tables(out, notes, tables, drawn))})


def section(found: InTurn) -> Section:
    """The plot of means over tasks."""
    said = found.measure
    rows = [
        {"method": name, "shots": k, said.name: each.mean, "low": each.low, "high": each.high}
        for name in found.methods
        for k in found.shots
        for each in [found.score(name, k)]
    ]
    draw = partial(plots.by_texts, texts=said.texts, label=said.axis, score=said.name)
    return Section(f"{said.name}_by_{said.texts}", "methods", rows, draw)


def cells_of(stored: Sequence[Mapping[str, Any]]) -> tuple[Cell, ...]:
    """The cells that a fold left as JSON."""
    return tuple(from_json(Cell, dict(cell)) for cell in stored)
