"""What a test found: one long table of results, of which scores, means and differences are views.

`results.json` is its only serial form. Letters: S support sets, G blocks of query rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metanlp.core.errors import DamagedError, InputError
from metanlp.core.intervals import Interval, Sample, over_shots, over_tasks
from metanlp.core.outputs import IN_TURN
from metanlp.forms import DEFAULT, FORMS
from metanlp.forms.metrics import bounds_of, metric_of_means

RESULTS = "results.json"
PRETRAINING = "pretraining"  # what results.json says of itself that holds no methods
SETS, BLOCKS = "episodes", "blocks"  # the parts of a cell of results.json that hold the table
ACCURACY, RECALL = "accuracy", "recall"  # shown beside each other: recall counts small classes as much as large ones
BESIDE = {ACCURACY: RECALL, "f1": "exact_match"}  # what is shown beside a metric, where all cells have it
# Below them no verdict is given: different support sets a task, query rows in all, and of each task.
ENOUGH_SETS, ENOUGH_ROWS, LEAST_ROWS = 5, 100, 4
DRAWS = 20  # of which five are different ones, nearly always, where there are five
TOO_LITTLE = "too little data"


class Result(NamedTuple):
    """A row of the table."""

    method: str
    task: str
    shots: int
    metric: str
    part: str  # "episodes": with one support set; "blocks": on one block of the query rows, mean over support sets
    number: int  # of the support set, or of the block
    value: float


@dataclass(frozen=True)
class Difference:
    """One method less another, on the same support sets and query rows."""

    a: str
    b: str
    interval: Interval
    lacking: str  # what to do so that there is enough data for a verdict; nothing where there is

    @property
    def verdict(self) -> str:
        """better, worse, unclear or too little data."""
        return TOO_LITTLE if self.lacking else self.interval.verdict


@dataclass(frozen=True)
class Report:
    """What a test found. `scores`, `means`, `paired` and `calibration` are views of `results`."""

    protocol: dict[str, Any]  # shots, episodes, test rows, seed, episodes_sha256, what was left out and why
    versions: dict[str, str]  # of this package and those that it computes with
    methods: dict[str, dict[str, Any]]  # cost and recipe of each method
    results: tuple[Result, ...]  # the long table
    main: str  # the method that is compared with each of the others
    # task -> form, query_rows (different ones), available, shots -> support_sets, distinct, overlap (mean share of rows
    # that two sets have in common), possible (how many may be drawn; 0 where the task brings them), chance (accuracy of
    # guessing, where answers are classes)
    counts: dict[str, Any] = field(default_factory=dict)
    # method -> inner steps -> score on validation tasks: mean, low, high
    curves: dict[str, Any] = field(default_factory=dict)
    # method -> shots -> `answers`, the sum of their probabilities (`sure`), `right` ones: in each of 10 bins
    reliability: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    views: dict[str, Any] = field(default_factory=dict)  # of the main method: names, prior, tasks: their shares
    hardest: dict[str, Any] = field(default_factory=dict)  # the task it scored lowest on, and its confusions
    nearest: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # test task -> training tasks, cosines
    schema: int = 1  # of results.json

    @cached_property
    def samples(self) -> dict[tuple[str, str, int], dict[str, Sample]]:
        """(method, task, shots) -> metric -> the table's values."""
        columns: dict[tuple[str, str, int, str, str], list[float]] = {}
        for row in self.results:
            columns.setdefault(row[:5], []).append(row.value)
        found: dict[tuple[str, str, int], dict[str, Sample]] = {}
        for method, task, k, metric in dict.fromkeys(column[:4] for column in columns):
            sets, blocks = (np.array(columns.get((method, task, k, metric, part), ())) for part in (SETS, BLOCKS))
            overlap = self.counts[task]["shots"][str(k)]["overlap"] if task in self.counts else 0.0
            found.setdefault((method, task, k), {})[metric] = Sample(sets, blocks, overlap)
        return found

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that gave results."""
        return tuple(dict.fromkeys(task for _, task, _ in self.samples))

    @cached_property
    def shots(self) -> tuple[int, ...]:
        """The numbers of shots that gave results."""
        return tuple(sorted({k for _, _, k in self.samples}))

    @property
    def metric(self) -> str:
        """What a mean over tasks is called: the metric that judges all of them, or `score`."""
        return metric_of_means(self.protocol["metrics"])

    def chance(self, task: str | None = None) -> float | None:
        """The accuracy of guessing the classes of a task, or its mean over tasks; None where it is not known."""
        known = [self.counts.get(name, {}).get("chance") for name in ([task] if task else self.tasks)]
        judged = all(self.protocol["metrics"][name] == ACCURACY for name in ([task] if task else self.tasks))
        return None if None in known or not judged else float(np.mean(known))

    def shots_of(self, task: str) -> tuple[int, ...]:
        """The numbers of shots that the task gave."""
        return tuple(k for k in self.shots if (self.main, task, k) in self.samples)

    def cells(self) -> Sequence[tuple[str | None, int]]:
        """Each task with its numbers of shots, then None, the mean over tasks, with all of them."""
        return [(task, k) for task in self.tasks for k in self.shots_of(task)] + [(None, k) for k in self.shots]

    def shown(self, task: str | None = None) -> tuple[str, ...]:
        """The metric that judges a task, or the mean over tasks, and what is shown beside it: mean recall over classes
        beside accuracy."""
        metric = self.metric if task is None else self.protocol["metrics"][task]
        of_task = (cells for (_, name, _), cells in self.samples.items() if task in (None, name))
        other = BESIDE.get(metric)
        return (metric, other) if other and all(other in cells for cells in of_task) else (metric,)

    def score(
        self, method: str, *, task: str | None = None, shots: int | None = None, metric: str | None = None
    ) -> Interval:
        """Of a task, or the mean over tasks; at so many shots, or the mean over shots; by the metric that judges each
        task, or by another."""
        return over_tasks(self._samples(method, task, shots, metric), self._bounds(task, metric))

    def compare(
        self, a: str, b: str, *, task: str | None = None, shots: int | None = None, metric: str | None = None,
        level: float = 0.95,
    ) -> Difference:  # fmt: skip
        """`a` less `b`, paired; arguments as of `score`."""
        sides = (self._samples(name, task, shots, metric) for name in (a, b))
        gaps, (low, high) = [x - y for x, y in zip(*sides, strict=True)], self._bounds(task, metric)
        return Difference(a, b, over_tasks(gaps, (low - high, high - low), level), self.lacking(task, shots))

    def averages(self, metric: str, method: str, shots: int | None = None) -> list[float]:
        """Means over support sets, by task and shots, where the method has this metric."""
        return [
            float(cells[metric].sets.mean())
            for (name, _, k), cells in self.samples.items()
            if name == method and shots in (None, k) and metric in cells
        ]

    def lacking(self, task: str | None = None, shots: int | None = None) -> str:
        """What to do so that there is enough data for a verdict; nothing where there is."""
        asked = self._asked(task, shots)
        if not all(name in self.counts for name, _ in asked):
            return "test again, as these results are of a version that counted no rows"
        each = [(self.counts[name]["shots"][str(k)]["distinct"], name, k) for name, every in asked for k in every]
        return " and ".join(filter(None, (self._more_sets(*min(each)), self._more_rows([name for name, _ in asked]))))

    def _more_sets(self, distinct: int, task: str, k: int) -> str:
        if distinct >= ENOUGH_SETS:
            return ""
        sets = self.counts[task]["shots"][str(k)]
        repeats, possible = distinct < sets["support_sets"], sets.get("possible")
        if repeats and possible and possible >= ENOUGH_SETS and sets["support_sets"] < DRAWS:
            return f"use --episodes {DRAWS}"
        if repeats and possible != 0:
            found = f"only {distinct} different support set{'s' * (distinct > 1)} of {k} shots"
            rows = f"{k + ENOUGH_SETS - 1} {FORMS[self.counts[task].get('form', DEFAULT.name)].shot}"
            return f"give task {task} {rows} or ask for fewer --shots, as it has {found}"
        if repeats or distinct < self.protocol.get("episodes", 0):
            return f"give task {task} {ENOUGH_SETS} different support sets of {k} shots, as it brings {distinct}"
        return f"use --episodes {ENOUGH_SETS}"

    def _more_rows(self, tasks: Sequence[str]) -> str:
        used, there = np.array([[self.counts[t][key] for t in tasks] for key in ("query_rows", "available")])
        if used.sum() >= ENOUGH_ROWS and used.min() >= LEAST_ROWS:
            return ""
        if there.sum() < ENOUGH_ROWS:
            return f"give {ENOUGH_ROWS - there.sum()} more rows to judge by, in all {ENOUGH_ROWS}"
        if there.min() < LEAST_ROWS:
            return f"give task {tasks[there.argmin()]} {LEAST_ROWS} rows to judge by, as it has {there.min()}"
        rows = next(n for n in range(LEAST_ROWS, ENOUGH_ROWS + 1) if there.clip(max=n).sum() >= ENOUGH_ROWS)
        return f"use --test-rows {rows}"

    def _asked(self, task: str | None, shots: int | None) -> list[tuple[str, tuple[int, ...]]]:
        """Each task with the shots that count; those without are left out."""
        every = [(name, self.shots_of(name)) for name in (self.tasks if task is None else (task,))]
        return [(name, ks if shots is None else (shots,)) for name, ks in every if shots is None or shots in ks]

    def _samples(self, method: str, task: str | None, shots: int | None, metric: str | None) -> list[Sample]:
        """Of each task the mean over shots."""
        return [
            over_shots([self.samples[method, name, k][self._judging(name, metric)] for k in ks])
            for name, ks in self._asked(task, shots)
        ]

    def _judging(self, task: str, metric: str | None) -> str:
        """The metric by which a task takes part where this one is asked for."""
        return self.protocol["metrics"][task] if metric in (None, self.metric) else metric

    def _bounds(self, task: str | None, metric: str | None) -> tuple[float, float]:
        metrics = [self._judging(name, metric) for name in (self.tasks if task is None else (task,))]
        lows, highs = zip(*map(bounds_of, metrics), strict=True)
        return min(lows), max(highs)

    # The views of results.json.

    @cached_property
    def scores(self) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
        """method -> task -> shots -> metric -> mean, low, high, episodes, blocks."""
        found: dict[str, Any] = {}
        for (method, task, k), cells in self.samples.items():
            found.setdefault(method, {}).setdefault(task, {})[str(k)] = {
                metric: asdict(over_tasks([sample], bounds_of(metric)))
                | {SETS: sample.sets.tolist(), BLOCKS: sample.blocks.tolist()}
                for metric, sample in cells.items()
            }
        return found

    @cached_property
    def means(self) -> dict[str, dict[str, dict[str, Any]]]:
        """method -> shots -> metric, mean over tasks: by the metric that judges them, or `score` where that differs."""
        return {
            name: {str(k): {m: asdict(self.score(name, shots=k, metric=m)) for m in self.shown()} for k in self.shots}
            for name in self.methods
        }

    @cached_property
    def paired(self) -> list[dict[str, Any]]:
        """The main method less each of the others, by shots and task; task None is the mean over tasks."""
        return [
            {"a": self.main, "b": other, "k": k, "task": task} | self._pair(other, task, k)
            for other in self.methods
            if other != self.main
            for task, k in self.cells()
        ]

    def _pair(self, other: str, task: str | None, k: int) -> dict[str, Any]:
        """Difference, low, high, verdict; the same of what is shown beside the metric, as mean recall."""
        metrics = self.shown(task)
        each = [self.compare(self.main, other, task=task, shots=k, metric=metric) for metric in metrics]
        gap, *beside = ({"difference": g.interval.mean, "low": g.interval.low, "high": g.interval.high,
                         "verdict": g.verdict} for g in each)  # fmt: skip
        return gap | dict(zip(metrics[1:], beside, strict=True))

    @cached_property
    def calibration(self) -> dict[str, dict[str, float]]:
        """method -> shots -> expected calibration error, mean over the tasks whose answers have a probability."""
        return {
            name: {str(k): float(np.mean(each)) for k in self.shots if (each := self.averages("ece", name, k))}
            for name in self.methods
        }

    def to_json(self) -> dict[str, Any]:
        """What results.json holds."""
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "results"}
        first = {name: own.pop(name) for name in ("protocol", "versions", "methods")}
        seen = {name: getattr(self, name) for name in ("scores", "means", "paired")}
        return first | seen | {"curves": own.pop("curves"), "calibration": self.calibration} | own

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Report:
        """From what `to_json` gave, or an older version, whose table has no blocks."""
        rows = (
            Result(method, task, int(k), metric, part, number, value)
            for method, by_task in data["scores"].items()
            for task, by_k in by_task.items()
            for k, cells in by_k.items()
            for metric, cell in cells.items()
            for part in (SETS, BLOCKS)
            for number, value in enumerate(cell.get(part, ()))
        )
        own: dict[str, Any] = {each.name: data[each.name] for each in fields(Report) if each.name in data}
        main = data["paired"][0]["a"] if data["paired"] else list(data["methods"])[-1]
        return Report(**({"main": main} | own), results=tuple(rows))


def read_results(path: Path) -> dict[str, Any]:
    """What the file says, unchecked. Raises InputError where it is not there, DamagedError where it is no JSON."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the {RESULTS} that a run left") from None
    except (OSError, ValueError, TypeError) as error:
        raise DamagedError(f"{path} is damaged: {type(error).__name__} {error}; remove it") from error


def has_report(path: Path) -> bool:
    """Whether there is a `results.json`, and it is not that of tasks held out in turn, whose tables are others."""
    return path.is_file() and read_results(path).get("kind") != IN_TURN


def read_report(path: Path) -> Report:
    """`results.json`. Raises InputError for that of a pretraining or of tasks held out in turn, DamagedError where the
    file is no report."""
    if read_results(path).get("kind") == PRETRAINING:
        raise InputError(f"{path} is of a pretraining, which compares no methods; `metanlp info` says what it holds")
    if not has_report(path):
        raise InputError(f"{path} is of tasks that were held out in turn; its own page, report.html, shows it")
    try:
        found = Report.from_json(read_results(path))
        _ = [found.protocol[key] for key in ("episodes_sha256", "metrics", "left_out")]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedError(f"{path} is damaged: {type(error).__name__} {error}; remove it") from error
    return found
