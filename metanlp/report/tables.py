"""What a run says on standard output: tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from metanlp.metrics import metric_of_means, paired

if TYPE_CHECKING:
    from metanlp.meta_test import Report


def console() -> Console:
    """Standard output; wide enough for the tables where it is no terminal. Names of tasks are no markup."""
    width = None if sys.stdout.isatty() else 120
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)


def show(found: Report, record: Mapping[str, Any]) -> None:
    """Scores by task and shots, paired differences, cost, and what was left out."""
    out = console()
    for table in (score_table(found), paired_table(found), cost_table(found)):
        out.print(table)
    show_left_out(found)
    out.print(verdict(found))
    if record.get("skipped"):
        out.print(f"{record['skipped']} meta-steps were skipped for want of a finite gradient")


def show_overview(found: Report, to: str) -> None:
    """One row a method, compared with the method `to`, and what was left out."""
    console().print(overview_table(found, to))
    show_left_out(found)


def show_left_out(found: Report) -> None:
    out = console()
    for task, notes in found.protocol["left_out"].items():
        for shots, reason in notes["shots"].items():
            out.print(f"{task}: no {shots} shots, {reason}")
        if notes["query_rows_in_support"]:
            repeats = notes["query_rows_in_support"]
            done = "left out beside it" if found.protocol.get("drop_repeats") else "scored as published"
            out.print(f"{task}: {repeats} query rows stand in a published support set; {done}")
    for name, share in no_label(found).items():
        out.print(f"{name}: {100 * share:.1f} % of its answers are none of the labels, and count as wrong")


def no_label(found: Report) -> dict[str, float]:
    """The share of a method's answers that are none of the labels, over tasks, shots and episodes, where one can be."""
    cells = {
        name: [cell["no_label"]["mean"] for by_k in by_task.values() for cell in by_k.values() if "no_label" in cell]
        for name, by_task in found.scores.items()
    }
    return {name: float(np.mean(each)) for name, each in cells.items() if each}


def show_scores(found: Report) -> None:
    """Scores by task and shots, and paired differences."""
    for table in (score_table(found), paired_table(found)):
        console().print(table)
    console().print(verdict(found))


def say(facts: Mapping[str, str]) -> None:
    """What is about to happen, one fact a line."""
    for name, fact in facts.items():
        console().print(f"{name}: {fact}")


def score_table(found: Report) -> Table:
    """Methods in columns, tasks and shots in rows: the mean of what each task is judged by, in percent with half the
    width of its interval."""
    metrics: Mapping[str, str] = found.protocol["metrics"]
    title = metric_of_means(metrics)
    named = title.replace("_", " ").capitalize() if title != "score" else "Scores"
    table = Table(title=f"{named} on held-out tasks, % (± half the 95 % interval over support sets)")
    for column in ("task", "shots", *found.methods):
        table.add_column(column, justify="left" if column == "task" else "right")
    tasks = list(dict.fromkeys(task for by_task in found.scores.values() for task in by_task))
    for task in tasks:
        shown = task if title != "score" else f"{task}, {metrics[task].replace('_', ' ')}"
        for k in next(iter(found.scores.values()))[task]:
            table.add_row(shown, k, *(percent(found.scores[name][task][k][metrics[task]]) for name in found.methods))
    for number, k in enumerate(next(iter(found.means.values()))):
        cells = (percent(found.means[name][k][title]) for name in found.methods)
        table.add_row("mean" if number == 0 else "", k, *cells, style="bold")
    return table


def paired_table(found: Report) -> Table:
    """The main method against each of the others on the same episodes."""
    main = found.paired[0]["a"] if found.paired else ""
    table = Table(title=f"Paired difference of {main}, points (95 % interval); * lies wholly on one side of zero")
    others = list(dict.fromkeys(row["b"] for row in found.paired))
    for column in ("task", "shots", *(f"− {other}" for other in others)):
        table.add_column(column, justify="left" if column == "task" else "right")
    rows: dict[tuple[str, int], dict[str, str]] = {}
    for row in found.paired:
        rows.setdefault((row["task"] or "mean", row["k"]), {})[row["b"]] = difference(row)
    for (task, k), cells in sorted(rows.items(), key=lambda item: item[0][0] == "mean"):
        table.add_row(task, str(k), *(cells.get(other, "") for other in others), style="bold" if task == "mean" else "")
    return table


def overview_table(found: Report, to: str) -> Table:
    """Methods in rows: the mean score over tasks at each number of shots, its difference to the method `to` on the same
    episodes, median seconds to adapt, parameters learned."""
    title, shots = metric_of_means(found.protocol["metrics"]), list(found.means[to])
    table = Table(
        title=f"Mean {title.replace('_', ' ')} over held-out tasks, % (± half the 95 % interval); "
        f"difference to {to}, points (95 % interval); * lies wholly on one side of zero"
    )
    scores, differences = [f"{k} shots" for k in shots], [f"− {to}, {k} shots" for k in shots]
    for column in ("method", *scores, *differences, "adapt s", "parameters"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, cost in found.methods.items():
        cells = [percent(found.means[name][k][title]) for k in shots]
        cells += ["-" if name == to else difference(difference_to(found, name, to, k)) for k in shots]
        table.add_row(name, *cells, f"{cost['adapt_s']:.3f}", f"{cost['parameters']:,}")
    return table


def difference_to(found: Report, name: str, to: str, k: str) -> dict[str, float | None]:
    """The mean over tasks at `k` shots, of `name` less that of `to`, on the same episodes."""
    title = metric_of_means(found.protocol["metrics"])
    sides = [np.array(found.means[method][k][title]["episodes"]) for method in (name, to)]
    gap = paired(*sides)
    return {"difference": gap.mean, "low": gap.low, "high": gap.high}


def cost_table(found: Report) -> Table:
    """What each method took, and the recipe it adapts with."""
    table = Table(title="Cost")
    names = (
        "method",
        "train s",
        "M tokens",
        "recipe s",
        "adapt s",
        "peak MB",
        "inner steps",
        "rates",
        "calibration error",
    )
    for column in names:
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, cost in found.methods.items():
        inner = cost["recipe"].get("inner")  # none of a rival
        kind = cost["recipe"].get("classifier")  # "prototypes" are a ridge regression in forms without classes
        stepped = f"{inner['lr']:g} / {inner['head_lr']:g}" if inner else "-"
        rates = {None: stepped, "prototypes": "closed form"}.get(kind, kind)
        errors = found.calibration[name].values()
        seconds = [f"{cost['train_s']:.0f}", f"{cost['tokens'] / 1e6:.2f}", f"{cost['recipe_s']:.0f}"]
        once = [f"{cost['adapt_s']:.2f}", f"{cost['peak_mb']:.0f}", str(inner["steps"]) if inner else "-", rates]
        table.add_row(name, *seconds, *once, f"{sum(errors) / len(errors):.3f}" if errors else "-")
    return table


def verdict(found: Report) -> str:
    """One line a baseline: is the main method better, worse, or can't these episodes tell?"""
    lines = []
    for row in found.paired:
        if row["task"] is None:
            word = {1: "better than", -1: "worse than", 0: "not distinguishable from"}[side(row)]
            lines.append(
                f"{row['k']} shots: {row['a']} is {word} {row['b']} on the mean of the tasks, {difference(row)} points"
            )
    return "\n".join(lines)


def percent(cell: Mapping[str, Any]) -> str:
    """The mean, and half the width of its interval where there is one."""
    width = "" if cell["low"] is None else f" ± {50 * (cell['high'] - cell['low']):.1f}"
    return f"{100 * cell['mean']:.1f}{width}"


def difference(row: Mapping[str, Any]) -> str:
    """Points, with their interval where there is one, and a star if it leaves out zero."""
    bounds = "" if row["low"] is None else f" [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
    return f"{100 * row['difference']:+.1f}{bounds}{'*' if side(row) else ''}"


def side(row: Mapping[str, Any]) -> int:
    """1 or −1 where the whole interval lies on that side of zero; else 0, as where one episode gives no interval."""
    return 0 if row["low"] is None else int(row["low"] > 0) - int(row["high"] < 0)


def task_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Descriptions of tasks, one a row."""
    table = Table()
    for column in rows[0]:
        table.add_column(
            column, justify="left" if column == "task" else "right", overflow="fold", no_wrap=column == "task"
        )
    for row in rows:
        table.add_row(*(f"{value:.1f}" if isinstance(value, float) else str(value) for value in row.values()))
    return table
