"""What the page shows, in the order of reading, and how each picture is to be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from metanlp.meta_test import Report
from metanlp.report import findings, plots
from metanlp.report.canvas import Look
from metanlp.report.findings import Logs, Rows, Sides


@dataclass(frozen=True)
class Section:
    """One thing to see."""

    name: str  # of its files in plots/
    side: Literal["methods", "tasks"]  # left or right on a wide screen
    title: str
    reading: str  # what the axes don't say
    rows: Rows
    draw: Callable[[Rows, Look], Any]  # a figure
    shown: bool = False  # the rows too, not only where they are asked for


def sections(found: Report, sides: Sides, logs: Logs) -> list[Section]:
    """Without what this run has no figures for."""
    every = [*of_scores(found, sides), *of_making(found, logs), *of_insight(found, sides)]
    return sorted((each for each in every if each.rows), key=lambda each: ORDER.index(each.name))


ORDER = ("differences", "score_by_task", "score_by_shots", "nearest", "score_by_step", "views", "score_by_seconds",
         "calibration", "training", "confusion")  # fmt: skip


def of_scores(found: Report, sides: Sides) -> list[Section]:
    score, tasks = findings.score_of(found), findings.by_task(found, sides)
    versus = f"{sides.ours} − {sides.theirs}"
    better = "a method" if len({first for first, _ in sides.pairs}) > 1 else sides.ours
    return [
        Section(
            "differences", "methods", "Against each other",
            f"Difference in {score}, mean over tasks and shots, on the same support sets, with 95 % intervals. Right "
            f"of zero {better} is better.",
            findings.differences(found, sides), plots.differences,
        ),
        Section(
            "score_by_task", "tasks", "By task",
            f"Mean over shots. Left {score} of each method"
            + (f"; right {versus} on the same support sets, with 95 % intervals." if sides.theirs else "."),
            tasks, plots.by_task,
        ),
        Section(
            "score_by_shots", "methods", "By number of shots",
            f"Mean {score} over the tasks, with 95 % intervals over support sets.",
            findings.by_shots(found), plots.by_shots,
        ),
        Section(
            "score_by_seconds", "methods", "Cost against score",
            f"Mean {score} over tasks and shots, with 95 % intervals, against the time of one adaptation.",
            findings.by_seconds(found), plots.by_seconds,
        ),
        Section(
            "nearest", "tasks", "Nearest training tasks",
            f"{versus}, with 95 % intervals, by how like the test task is to its nearest training task: the cosine of "
            "what a few texts of each read as before any learning, less what all training tasks have in common.",
            findings.nearest(found, tasks), plots.nearest, shown=True,
        ),
    ]  # fmt: skip


def of_making(found: Report, logs: Logs) -> list[Section]:
    return [
        Section(
            "score_by_step", "methods", "By inner step",
            "On the validation tasks, which chose the number of steps; with 95 % intervals.",
            findings.by_step(found), plots.by_step,
        ),
        Section(
            "training", "methods", "Training",
            "Methods have losses of their own: compare shapes, not heights. Below, each look at the validation tasks.",
            findings.training(logs), plots.training,
        ),
    ]  # fmt: skip


def of_insight(found: Report, sides: Sides) -> list[Section]:
    main, hardest = findings.main_of(found), found.hardest
    return [
        Section(
            "calibration", "tasks" if len(found.scores[main]) <= 12 else "methods", "Calibration",
            "Over all tasks, shots and support sets. Under the diagonal a method is too sure of itself. The bars say "
            f"how often {sides.ours} is how sure.",
            findings.calibration(found), plots.calibration,
        ),
        Section(
            "views", "tasks", "Weights of the views",
            f"How much each view of the encoder (kind, layer, pooling) counts for {main}, %.",
            findings.views(found), plots.views,
        ),
        Section(
            "confusion", "tasks", f"The hardest task: {hardest.get('task')}",
            f"Down the true class, across what {main} said with {hardest.get('shots')} shots: % of a class's rows.",
            findings.confusion(found), plots.confusion,
        ),
    ]  # fmt: skip
