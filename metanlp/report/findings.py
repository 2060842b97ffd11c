"""What there is to see in a report, as rows: each plot is drawn from rows that also stand beside it as CSV.

Scores and shares are in percent, differences in points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from metanlp.metrics import Interval, interval, metric_of_means, paired
from metanlp.report.tables import no_label
from metanlp.rivals import RIVALS

if TYPE_CHECKING:
    from metanlp.meta_test import Report

PLAIN = ("frozen", "finetune", "multitask", *RIVALS)  # what one does without meta-learning
POINTS = 40  # of a training curve

Rows = list[dict[str, Any]]
Logs = Mapping[str, Sequence[Mapping[str, Any]]]
"""The lines of `metrics.jsonl`, by method."""


@dataclass(frozen=True)
class Sides:
    """Whom the answer is about."""

    ours: str  # the method in question
    theirs: str | None  # the strongest that it is held against; None where there is no other
    among: int  # methods that ours was chosen from
    pairs: tuple[tuple[str, str], ...]  # the comparisons worth showing, first less second


@dataclass(frozen=True)
class Answer:
    """Does it help on these tasks?"""

    question: str
    word: str  # Yes, No or Unclear
    found: Interval | None
    because: str


def sides_of(found: Report) -> Sides:
    """A main method that meta-learns is held against the strongest of the plain ones; in the place of a plain main
    method stands the best that meta-learns."""
    main, names = main_of(found), list(found.methods)
    score = {name: float(pooled(found, name).mean()) for name in names}
    others = [name for name in names if name != main]
    if not others:
        return Sides(main, None, 1, ())
    learned, plain = [name for name in names if name not in PLAIN], [name for name in names if name in PLAIN]
    if main in PLAIN and learned:
        theirs = max(plain, key=score.__getitem__)
        pairs = tuple((name, theirs) for name in names if name != theirs)
        return Sides(max(learned, key=score.__getitem__), theirs, len(learned), pairs)
    theirs = max([name for name in plain if name != main] or others, key=score.__getitem__)
    return Sides(main, theirs, 1, tuple((main, name) for name in others))


def main_of(found: Report) -> str:
    return found.paired[0]["a"] if found.paired else list(found.methods)[-1]


def answer(found: Report, sides: Sides) -> Answer:
    """From the interval of the paired difference, over tasks and shots; wider where ours is the best of several."""
    subject = "meta-learning" if sides.ours not in PLAIN else sides.ours
    question = f"Does {subject} help on these tasks?"
    if sides.theirs is None:
        return Answer(question, "Unclear", None, "There is no other method to compare with.")
    gap = paired(pooled(found, sides.ours), pooled(found, sides.theirs), level=1 - 0.05 / sides.among)
    if gap.low is None or gap.high is None:
        return Answer(question, "Unclear", gap, "One support set a task gives no interval.")
    if gap.low > 0:
        return Answer(question, "Yes", gap, "The whole interval lies above zero.")
    if gap.high < 0:
        return Answer(question, "No", gap, f"The whole interval lies below zero: {sides.theirs} is better.")
    return Answer(question, "Unclear", gap, "The interval holds zero: these episodes can't tell.")


def pooled(found: Report, name: str, task: str | None = None) -> np.ndarray:
    """Score of each numbered episode, mean over shots, of one task or the mean over tasks: (E,)."""
    cells = found.means[name] if task is None else found.scores[name][task]
    metrics: Mapping[str, str] = found.protocol["metrics"]
    metric = metric_of_means(metrics) if task is None else metrics[task]
    columns = [cell[metric]["episodes"] for cell in cells.values()]
    return np.mean([column[: min(map(len, columns))] for column in columns], axis=0)


def percents(cell: Mapping[str, Any] | Interval) -> dict[str, float | None]:
    """A mean and its interval, in percent or points."""
    ends = (cell.mean, cell.low, cell.high) if isinstance(cell, Interval) else (cell["mean"], cell["low"], cell["high"])
    mean, low, high = (None if end is None else round(100 * end, 2) for end in ends)
    return {"percent": mean, "low": low, "high": high}


def differences(found: Report, sides: Sides) -> Rows:
    """Over tasks and shots, on the same episodes."""
    rows = [{"method": a, "less": b} | as_points(paired(pooled(found, a), pooled(found, b))) for a, b in sides.pairs]
    return sorted(rows, key=lambda row: -row["points"])


def as_points(gap: Interval) -> dict[str, float | None]:
    given = percents(gap)
    return {"points": given.pop("percent")} | given


def by_shots(found: Report) -> Rows:
    title = metric_of_means(found.protocol["metrics"])
    return [
        {"method": name, "shots": int(k)} | percents(cells[title])
        for name, by_k in found.means.items()
        for k, cells in by_k.items()
    ]


def by_task(found: Report, sides: Sides) -> Rows:
    """A row a task, the highest difference first: each method, and the difference of the two sides."""
    rows: Rows = []
    for task in found.scores[sides.ours]:
        row: dict[str, Any] = {"task": task}
        row |= {name: round(100 * float(pooled(found, name, task).mean()), 2) for name in found.methods}
        if sides.theirs:
            row |= as_points(paired(pooled(found, sides.ours, task), pooled(found, sides.theirs, task)))
        rows.append(row)
    return sorted(rows, key=lambda row: -row.get("points", row[sides.ours]))


def by_step(found: Report) -> Rows:
    """On validation tasks, at the rates of the recipe; methods that take steps."""
    return [
        {"method": name, "steps": int(step)} | percents(cell)
        for name, curve in found.curves.items()
        for step, cell in sorted(curve.items(), key=lambda item: int(item[0]))
        if len(curve) > 1
    ]


def by_seconds(found: Report) -> Rows:
    return [
        {"method": name, "adapt_s": round(cost["adapt_s"], 4)} | percents(interval(pooled(found, name)))
        for name, cost in found.methods.items()
        if cost["adapt_s"] > 0  # else it does not adapt, and the axis has no place for it
    ]


def costs(found: Report) -> Rows:
    """What each method took."""
    rows: Rows = []
    for name, cost in found.methods.items():
        # Each task left out has a recipe of its own, a rival none.
        steps = cost.get("recipe", {}).get("inner", {}).get("steps")
        errors = found.calibration.get(name, {}).values()
        rows.append({
            "method": name, "train s": round(cost["train_s"]), "M tokens": round(cost["tokens"] / 1e6, 2),
            "recipe s": round(cost["recipe_s"]), "adapt s": round(cost["adapt_s"], 3), "inner steps": steps,
            "peak MB": round(cost["peak_mb"]), "parameters": cost["parameters"],
            "calibration error": round(float(np.mean(list(errors))), 3) if errors else None,
        })  # fmt: skip
    return rows


def training(logs: Logs) -> Rows:
    """Loss, mean of so many steps, and each validation, by what had been computed until then."""
    rows: Rows = []
    for name, lines in logs.items():
        for part in np.array_split(np.arange(len(lines)), min(POINTS, len(lines))):
            losses = [lines[n]["loss"] for n in part if lines[n]["loss"] is not None]
            if losses:
                rows.append(reached(name, lines[part[-1]]) | {"loss": round(float(np.mean(losses)), 4)})
        for before, line in zip([{}, *lines], lines, strict=False):
            if line["validation"] is not None and any(before.get(key) != line[key] for key in CHANGES):
                rows.append(reached(name, line) | {"percent": round(100 * line["validation"], 2)})
    return rows


CHANGES = ("validation", "best_step", "since_best")  # what a validation leaves otherwise than it was


def reached(name: str, line: Mapping[str, Any]) -> dict[str, Any]:
    return {"method": name, "step": line["step"], "M_tokens": line["tokens"] / 1e6, "loss": None, "percent": None}


def calibration(found: Report) -> Rows:
    """Of answers that were that sure, how many were right; over tasks, shots and episodes."""
    rows: Rows = []
    for name, by_k in found.reliability.items():
        sums = {key: np.sum([bins[key] for bins in by_k.values()], axis=0) for key in ("answers", "sure", "right")}
        for bin in np.flatnonzero(sums["answers"]):
            count = int(sums["answers"][bin])
            sure, right = (round(100 * float(sums[key][bin]) / count, 2) for key in ("sure", "right"))
            place = f"{10 * bin}-{10 * bin + 10} %"
            rows.append({"method": name, "bin": place, "answers": count, "sure": sure, "right": right})
    return rows


def views(found: Report) -> Rows:
    """A row a task, a column a view; the first row is what counts before any support set."""
    if not found.views:
        return []
    shares = {"before any shots": found.views["prior"], **found.views["tasks"]}
    return [
        {"task": task} | {name: round(100 * share, 1) for name, share in zip(found.views["names"], each, strict=True)}
        for task, each in shares.items()
    ]


def nearest(found: Report, tasks: Rows) -> Rows:
    """A row a test task: how near the nearest training task is, its name, the next two; its row in `tasks`."""
    gaps = {row["task"]: {key: row.get(key) for key in ("points", "low", "high")} for row in tasks}
    return [
        {"task": task, "cosine": near[0]["cosine"]}
        | {place: each["task"] for place, each in zip(("nearest", "second", "third"), near, strict=False)}
        | gaps[task]
        for task, near in found.nearest.items()
        if task in gaps
    ]


def confusion(found: Report) -> Rows:
    """A row a class that is right, a column a class that was said: answers."""
    if "confusion" not in found.hardest:
        return []
    labels = found.hardest["labels"]
    return [
        {"true class": label} | dict(zip(labels, counts, strict=True))
        for label, counts in zip(labels, found.hardest["confusion"], strict=True)
    ]


# what the page says in words


def score_of(found: Report) -> str:
    return metric_of_means(found.protocol["metrics"]).replace("_", " ")


def two_scores(found: Report, sides: Sides) -> dict[str, float]:
    """Over tasks and shots, in percent, of both sides."""
    return {name: 100 * float(pooled(found, name).mean()) for name in (sides.ours, sides.theirs) if name}


def tally(found: Report, sides: Sides) -> dict[str, int]:
    """Tasks, on how many of them ours is ahead, and how many differences lie wholly on one side of zero."""
    rows = [row for row in by_task(found, sides) if "points" in row]
    known = [row for row in rows if row["low"] is not None]
    return {"tasks": len(found.scores[sides.ours]), "ahead": sum(row["points"] > 0 for row in rows),
            "above": sum(row["low"] > 0 for row in known), "below": sum(row["high"] < 0 for row in known)}  # fmt: skip


def facts(found: Report) -> dict[str, str]:
    """What was asked, in short."""
    protocol = found.protocol
    asked: Mapping[str, Any] = protocol.get("asked", {})
    episodes = {
        len(cell["episodes"]) for by_k in found.means.values() for cells in by_k.values() for cell in cells.values()
    }
    said = {
        "model": asked.get("model"),
        "trained on": asked.get("data"),
        "tested on": asked.get("test"),
        "shots": ", ".join(found.means[main_of(found)]),
        "support sets a task and shots": " to ".join(map(str, sorted({min(episodes), max(episodes)}))),
        "query rows a task": f"at most {protocol['test_rows']}" if protocol.get("test_rows") else "all",
    }
    said |= {f"{name}'s answers that are no label": f"{100 * share:.1f} %" for name, share in no_label(found).items()}
    return {name: str(value) for name, value in said.items() if value is not None}
