"""What a run says on standard output: tables."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from textwrap import shorten
from typing import Any

from rich.console import Console
from rich.table import Table

from metanlp.core.intervals import Interval
from metanlp.evaluation.results import RECALL, Difference, Report
from metanlp.tasks.details import READ

LEFT = ("task", "method", "metric", "stage", "class", "called instead")  # columns of words
SPOKEN = {RECALL: "mean recall", "ece": "calibration error", "commonest": "always the commonest class"}


def console() -> Console:
    """Standard output; wide enough for the tables where it is no terminal. Names of tasks are no markup."""
    width = None if sys.stdout.isatty() else 120
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)


def show(found: Report) -> None:
    """Scores by task and shots, paired differences, cost, and what was left out."""
    out = console()
    for table in (score_table(found), paired_table(found), cost_table(found)):
        out.print(table)
    show_left_out(found)
    if skipped := found.methods[found.main]["skipped"]:
        out.print(f"{skipped} meta-steps were skipped for want of a finite gradient")


def show_score(found: Mapping[str, Any]) -> None:
    """How good an adapted model is on labelled rows: what `Adapted.score` gives."""
    out, metrics = console(), {key: value for key, value in found.items() if isinstance(value, float)}
    if classes := found.get("classes"):
        columns = ("class", "rows", "recall", "precision", "called instead")
        out.print(table(None, columns, [of_class(label, each) for label, each in classes.items()], overflow="fold"))
    for name, value in metrics.items():
        out.print(f"{in_words(name)}: {value:.3f}{_ends(found, name)}")
    out.print(f"rows: {found['rows']:,}")


def score_line(found: Mapping[str, Any]) -> str:
    """The same in a line, by the metrics that people compare."""
    known = [name for name in ("accuracy", "macro_f1", *found) if isinstance(found.get(name), float)]
    names = [*dict.fromkeys(name for name in known if name not in ("ece", "commonest"))][:2]
    said = [f"{in_words(name)} {found[name]:.3f}{_ends(found, name)}" for name in names]
    beside = f"; {in_words('commonest')} {found['commonest']:.3f}" if "commonest" in found else ""
    return f"{', '.join(said)} on {found['rows']:,} labelled rows{beside}"


def _ends(found: Mapping[str, Any], name: str) -> str:
    low, high = found.get(f"{name}_interval", (None, None))
    return "" if low is None else f" [{low:.3f}, {high:.3f}]"


def of_class(label: str, found: Mapping[str, Any]) -> list[str]:
    """A row of its table, with the labels that the class is called most often in place of its own."""
    others = ", ".join(f"{other} {times}" for other, times in [*found["called"].items()][:3])
    return [label, cell(found["rows"]), share(found["recall"]), share(found["precision"]), others]


def share(value: float | None) -> str:
    """A share in a table, to three places."""
    return cell(None if value is None else f"{value:.3f}")


def show_overview(found: Report, to: str) -> None:
    """One row a method, compared with the method `to`, and what was left out."""
    console().print(overview_table(found, to))
    show_left_out(found)


def show_left_out(found: Report) -> None:
    """Shots that a task can't give, query rows that repeat support rows, answers that are no label."""
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
    return {name: fmean(each) for name in found.methods if (each := found.averages("no_label", name))}


def say(facts: Mapping[str, str]) -> None:
    """What is about to happen, one fact a line, however long where it is no terminal."""
    for name, fact in facts.items():
        console().print(f"{name}: {fact}", soft_wrap=not sys.stdout.isatty())


def in_words(metric: str) -> str:
    """What people read for a metric's name."""
    return SPOKEN.get(metric, metric.replace("_", " "))


def table(title: str | None, columns: Iterable[str], rows: Iterable[Sequence[str]], **style: Any) -> Table:
    """Words left, numbers right; rows of means in bold."""
    made = Table(title=title)
    for column in columns:
        made.add_column(column, justify="left" if column in LEFT else "right", **style)
    for row in rows:
        made.add_row(*row, style="bold" if row[0] == "mean" else "")
    return made


def score_rows(found: Report) -> list[list[str]]:
    """Task, shots, metric, and the score of each method: by the metric that judges the task, with what is shown
    beside it below; the mean over tasks last."""
    return [
        [task or "mean", str(k), in_words(metric)]
        + [percent(found.score(name, task=task, shots=k, metric=metric)) for name in found.methods]
        for task, k in found.cells()
        for metric in found.shown(task)
    ]


def score_table(found: Report) -> Table:
    """Methods in columns, in rows tasks, shots and metrics."""
    title = "Scores on held-out tasks, % (± half the 95 % interval over support sets and query rows)"
    return table(title, ("task", "shots", "metric", *found.methods), score_rows(found))


def paired_table(found: Report) -> Table:
    """The main method against each of the others on the same support sets and query rows."""
    others = [name for name in found.methods if name != found.main]
    title = f"Paired difference of {found.main}, points (95 % interval); * is a verdict: wholly on one side of zero"
    rows = (
        [task or "mean", str(k), *(difference(found.compare(found.main, name, task=task, shots=k)) for name in others)]
        for task, k in found.cells()
    )
    return table(title, ("task", "shots", *(f"− {other}" for other in others)), rows)


def in_a_line(found: Report) -> str:
    """The mean score of each method at the most shots."""
    k = found.shots[-1]
    scores = (f"{name} {percent(found.score(name, shots=k))}" for name in found.methods)
    return f"{', '.join(scores)} ({in_words(found.metric)} in % at {k} shots)"


def overview_table(found: Report, to: str) -> Table:
    """Methods in rows: the mean score over tasks at each number of shots, mean recall beside accuracy, the difference
    to the method `to`, median seconds to adapt, parameters learned."""
    title = (
        f"Mean {in_words(found.metric)} over held-out tasks, % (± half the 95 % interval); "
        f"difference to {to}, points (95 % interval); * is a verdict: wholly on one side of zero"
    )
    rows = [overview(found, name, to) for name in found.methods]
    return table(title, rows[0], [list(row.values()) for row in rows])


def overview(found: Report, name: str, to: str) -> dict[str, str]:
    """A row of `overview_table`."""
    recall = found.shots if RECALL in found.shown() else ()
    gaps = {k: "-" if name == to else difference(found.compare(name, to, shots=k)) for k in found.shots}
    return (
        {"method": name}
        | {f"{k} shots": percent(found.score(name, shots=k)) for k in found.shots}
        | {f"mean recall, {k} shots": f"{100 * found.score(name, shots=k, metric=RECALL).mean:.1f}" for k in recall}
        | {f"− {to}, {k} shots": gap for k, gap in gaps.items()}
        | {"adapt s": f"{found.methods[name]['adapt_s']:.3f}", "parameters": f"{found.methods[name]['parameters']:,}"}
    )


def costs(found: Report) -> list[dict[str, Any]]:
    """What each method took, and the recipe it adapts with: a row a method."""
    rows: list[dict[str, Any]] = []
    searched = any(cost.get("rate_tokens") for cost in found.methods.values())
    for name, cost in found.methods.items():
        recipe = cost.get("recipe", {})  # each task left out has one of its own
        inner = recipe.get("inner")  # none of an external baseline
        errors = found.calibration[name].values()
        rows.append({
            "method": name, "train s": round(cost["train_s"]), "M tokens": round(cost["tokens"] / 1e6, 2),
            **(rate_columns(cost) if searched else {}),
            "recipe s": round(cost["recipe_s"]), "adapt s": round(cost["adapt_s"], 3),
            "peak MB": round(cost["peak_mb"]), "inner steps": inner and inner["steps"],
            "rates": inner and rates(inner, recipe.get("classifier")), "parameters": cost["parameters"],
            "calibration error": round(fmean(errors), 3) if errors else None,
        })  # fmt: skip
    return rows


def rate_columns(cost: Mapping[str, Any]) -> dict[str, Any]:
    """Where each method was trained at a rate of its own: that rate, and the tokens that it took to find it."""
    return {"outer rate": cost.get("lr"), "M tokens for it": round(cost.get("rate_tokens", 0) / 1e6, 2)}


def rates(inner: Mapping[str, float], classifier: str | None) -> str:
    """Of adapters and head; `classifier` is what a method that takes no steps fits on its features."""
    if classifier is None:
        return f"{inner['lr']:g} / {inner['head_lr']:g}"
    # "prototypes" are a ridge regression in forms without classes.
    return "closed form" if classifier == "prototypes" else classifier


def cost_table(found: Report) -> Table:
    """What each method took."""
    rows = costs(found)
    return table("Cost", rows[0], [list(map(cell, row.values())) for row in rows])


def cell(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def percent(found: Interval) -> str:
    return centred(found, 100, 1)


def centred(found: Interval, scale: float, places: int) -> str:
    """The mean, with half the width of its interval, or with its ends where it was cut at what is possible."""
    mean, low, high = (None if end is None else scale * end for end in (found.mean, found.low, found.high))
    if mean is None or low is None or high is None:
        return f"{mean:.{places}f}"
    cut = abs(high + low - 2 * mean) > 0.5 * 10**-places
    ends = f"[{low:.{places}f}, {high:.{places}f}]" if cut else f"± {(high - low) / 2:.{places}f}"
    return f"{mean:.{places}f} {ends}"


def difference(found: Difference) -> str:
    """Points, with their interval where there is one, and a star where that is a verdict."""
    return signed(found.interval, 100, 1) + "*" * (found.verdict in ("better", "worse"))


def starred(found: Interval, scale: float = 100, places: int = 1) -> str:
    """A difference, in points by default, and a star where its interval is on one side of zero."""
    return signed(found, scale, places) + "*" * (found.verdict != "unclear")


def signed(found: Interval, scale: float, places: int) -> str:
    """A difference, with its interval where there is one."""
    mean = f"{scale * found.mean:+.{places}f}"
    if found.low is None or found.high is None:
        return mean
    return f"{mean} [{scale * found.low:+.{places}f}, {scale * found.high:+.{places}f}]"


def show_details(found: Mapping[str, Any]) -> None:
    """Of one task, what `tasks.details` tells: facts, a line each, and some of its rows."""
    out = console()
    if labels := found.get("labels"):
        told = [f"{label} {count:,}" for label, count in [*labels.items()][:20]]
        more = f", and {len(labels) - len(told)} more" if len(labels) > len(told) else ""
        out.print(f"rows a label: {', '.join(told)}{more}")
        out.print(f"accuracy without learning: {found['chance']:.3f} by guessing, {found['commonest']:.3f} by always "
                  f"saying {next(iter(labels))!r}", soft_wrap=True)  # fmt: skip
    cut = f"{found['cut']:,} texts have more words than the {READ} tokens that a model reads by default, and are cut"
    out.print(f"longest text: {found['longest']:,} words; {cut if found['cut'] else 'none is too long for certain'}")
    for *texts, answer in found["sample"]:
        out.print(f"  {answer}: {' | '.join(shorten(text, 100, placeholder=' …') for text in texts)}", soft_wrap=True)


def task_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Descriptions of tasks, one a row."""
    said = ([f"{value:.1f}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows)
    made = table(None, rows[0], said, overflow="fold")
    made.columns[0].no_wrap = True  # names of tasks
    return made
