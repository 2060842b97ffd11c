"""What there is to see in a report, as rows: each plot is drawn from rows that also stand beside it as CSV.

Scores and shares are in percent, differences in points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metanlp.core.intervals import Interval
from metanlp.evaluation.answers import MULTITASK
from metanlp.evaluation.results import RECALL, TOO_LITTLE, Difference, Report
from metanlp.report.tables import in_words, no_label

TRUE = "true class"  # the column of a confusion that names its rows
POINTS = 40  # of a training curve
CHANGES = ("validation", "best_step", "since_best")  # of a line of metrics.jsonl: a new validation changes one of them

Rows = list[dict[str, Any]]
Logs = Mapping[str, Sequence[Mapping[str, Any]]]
"""The lines of `metrics.jsonl`, by method."""


@dataclass(frozen=True)
class Compared:
    """Whom the plots are about."""

    ours: str  # the main method
    theirs: str | None  # the strongest that does not meta-learn, or else of the others; None where there is no other


def compared_in(found: Report) -> Compared:
    others = [name for name in found.methods if name != found.main]
    plain = [name for name in others if name == MULTITASK or not found.methods[name]["parameters"]]
    score = {name: found.score(name).mean for name in others}
    return Compared(found.main, max(plain or others, key=score.__getitem__, default=None))


def percents(found: Interval, name: str = "percent") -> dict[str, float | None]:
    """A mean, called `name`, and its interval, in percent or points."""
    ends = {name: found.mean, "low": found.low, "high": found.high}
    return {key: None if end is None else round(100 * end, 2) for key, end in ends.items()}


def as_points(gap: Difference) -> dict[str, Any]:
    return percents(gap.interval, "points") | {"verdict": gap.verdict}


def differences(found: Report, sides: Compared) -> Rows:
    """Of the main method and each of the others, over tasks and shots, on the same support sets and query rows."""
    others = [name for name in found.methods if name != sides.ours]
    rows = [{"method": sides.ours, "less": name} | as_points(found.compare(sides.ours, name)) for name in others]
    return sorted(rows, key=lambda row: -row["points"])


def recall_of(found: Report, name: str, task: str | None = None, shots: int | None = None) -> float | None:
    """Mean recall over classes in percent, where it stands beside accuracy."""
    if RECALL not in found.shown(task):
        return None
    return round(100 * found.score(name, task=task, shots=shots, metric=RECALL).mean, 2)


def by_shots(found: Report) -> Rows:
    return [
        {"method": name, "shots": k}
        | percents(found.score(name, shots=k))
        | {in_words(RECALL): recall_of(found, name, shots=k)}
        for name in found.methods
        for k in found.shots
    ]


def by_task(found: Report, sides: Compared) -> Rows:
    """A row a task, the highest difference first: each method, the difference of the two sides, mean recall of each."""
    rows: Rows = []
    for task in found.tasks:
        chance = found.chance(task)
        row: dict[str, Any] = {"task": task} | ({"chance": round(100 * chance, 1)} if chance else {})
        row |= {name: percents(found.score(name, task=task))["percent"] for name in found.methods}
        if sides.theirs:
            row |= as_points(found.compare(sides.ours, sides.theirs, task=task))
        rows.append(row | {f"{name}, {in_words(RECALL)}": recall_of(found, name, task) for name in found.methods})
    return sorted(rows, key=lambda row: -row.get("points", row[sides.ours]))


def by_step(found: Report) -> Rows:
    """On validation tasks, at the rates of the recipe; methods that take steps."""
    return [
        {"method": name, "steps": int(step)} | percents(Interval(**curve[step]))
        for name, curve in found.curves.items()
        for step in sorted(curve, key=int)
        if len(curve) > 1
    ]


def training(logs: Logs) -> Rows:
    """Loss, mean of so many steps, and each validation, by what had been computed until then."""
    rows: Rows = []
    for name, lines in logs.items():
        at = [{"method": name, "step": line["step"], "M_tokens": line["tokens"] / 1e6} for line in lines]
        for part in np.array_split(np.arange(len(lines)), min(POINTS, len(lines))):
            losses = [lines[n]["loss"] for n in part if lines[n]["loss"] is not None]
            if losses:
                rows.append(at[part[-1]] | {"loss": round(float(np.mean(losses)), 4), "percent": None})
        for n, (before, line) in enumerate(zip([{}, *lines], lines, strict=False)):
            if line["validation"] is not None and any(before.get(key) != line[key] for key in CHANGES):
                rows.append(at[n] | {"loss": None, "percent": round(100 * line["validation"], 2)})
    return rows


def calibration(found: Report) -> Rows:
    """Of answers that were that sure, how many were right; over tasks, shots and episodes."""
    rows: Rows = []
    for name, by_k in found.reliability.items():
        parts = ("answers", "sure", "right")
        sums = np.sum([[bins[key] for key in parts] for bins in by_k.values()], axis=0)  # (3, 10)
        for place, (answers, *others) in enumerate(sums.T):
            if answers:
                sure, right = (round(100 * float(each) / answers, 2) for each in others)
                bin = f"{10 * place}-{10 * place + 10} %"
                rows.append({"method": name, "bin": bin, "answers": int(answers), "sure": sure, "right": right})
    return rows


def views(found: Report) -> Rows:
    """A row a task, a column a view; the first row is what counts before any support set."""
    shares = {"before any shots": found.views["prior"], **found.views["tasks"]} if found.views else {}
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
        if gaps.get(task, {}).get("points") is not None
    ]


def confusion(found: Report) -> Rows:
    """A row a class that is right, a column a class that was said: answers."""
    labels = found.hardest.get("labels", ())
    return [
        {TRUE: label} | {f"{name} (said)" if name == TRUE else name: n for name, n in zip(labels, counts, strict=True)}
        for label, counts in zip(labels, found.hardest.get("confusion", ()), strict=True)
    ]


# what the page says in words


def tally(tasks: Rows) -> dict[str, int]:
    """Of the rows by task: how many, on how many ours is ahead, and on how many there is which verdict."""
    verdicts = [row.get("verdict") for row in tasks]
    return {"tasks": len(tasks), "ahead": sum(row.get("points", 0) > 0 for row in tasks),
            "above": verdicts.count("better"), "below": verdicts.count("worse"),
            "too_little": verdicts.count(TOO_LITTLE)}  # fmt: skip


def took(cost: Mapping[str, Any]) -> str | None:
    """Time and tokens of a training, as people say them; None where there was none."""
    seconds, millions = cost["train_s"], cost["tokens"] / 1e6
    if not cost["tokens"]:
        return None
    time = next(f"{seconds / unit:.0f} {name}" for unit, name in ((3600, "h"), (60, "min"), (1, "s"))
                if seconds >= 2 * unit or unit == 1)  # fmt: skip
    return f"{time}, {millions:.2g} M tokens" if millions < 100 else f"{time}, {millions:,.0f} M tokens"


def facts(found: Report) -> dict[str, str]:
    """What was asked, in short."""
    protocol = found.protocol
    asked: Mapping[str, Any] = protocol.get("asked", {})
    said = {
        "model": asked.get("model"),
        "trained on": asked.get("data"),
        "tested on": asked.get("test"),
        "shots": ", ".join(map(str, found.shots)),
        "training": took(found.methods[found.main]),
        "query rows a task": f"at most {protocol['test_rows']}" if protocol.get("test_rows") else "all",
    }
    said |= {f"{name}'s answers that are no label": f"{100 * share:.1f} %" for name, share in no_label(found).items()}
    return {name: str(value) for name, value in said.items() if value is not None}
