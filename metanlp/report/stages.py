"""What each stage of a trail from text to a learner is worth: one table, one plot.

`protocol["stages"]` of such a report holds the stages in their order, with the seconds and tokens of their training.
"""

from __future__ import annotations

from pathlib import Path

from metanlp.core.storage import atomic_write
from metanlp.evaluation.results import Report
from metanlp.report import plots
from metanlp.report.canvas import NO_PLOT, PlotStyle, can_plot
from metanlp.report.findings import Compared, Rows, percents
from metanlp.report.page import PLOTS, Section, drawing
from metanlp.report.tables import console, difference, in_words, percent, say, show_left_out, table

FROZEN, ADAPTED = WAYS = ("frozen", "adapted")


def row_of(stage: str, way: str) -> str:
    """The row of a report that holds a stage, read as it is or adapted."""
    return f"{stage}, {way}"


def stage_rows(found: Report) -> Rows:
    """A row a stage and way of reading it: mean over tasks and shots, with its interval."""
    return [
        {"number": number, "stage": stage, "method": way} | percents(found.score(row_of(stage, way)))
        for number, stage in enumerate(found.protocol["stages"])
        for way in WAYS
    ]


def show_stages(found: Report) -> None:
    """A row a stage: its training, the mean over tasks at each number of shots, and what it adds to the stage before,
    on the same support sets and rows. Below, what was left out."""
    stages, ways = found.protocol["stages"], [(way, k) for k in found.shots for way in WAYS]
    names = list(stages)
    rows = [
        [stage, f"{cost['seconds']:,.0f}", f"{cost['tokens'] / 1e6:.2f}"]
        + [percent(found.score(row_of(stage, way), shots=k)) for way, k in ways]
        + [difference(found.compare(row_of(stage, way), row_of(last, way))) if last else "-" for way in WAYS]
        for last, (stage, cost) in zip(["", *names], stages.items(), strict=False)
    ]
    title = (
        f"Mean {in_words(found.metric)} over held-out tasks after each stage, % (± half the 95 % interval); what it "
        "adds to the stage before, points (95 % interval), over all shots; * is a verdict: wholly on one side of zero"
    )
    columns = ("stage", "train s", "M tokens", *(f"{way}, {k} shots" for way, k in ways), *(f"+ {way}" for way in WAYS))
    made = table(title, columns, rows)
    made.columns[0].min_width = max(map(len, names))
    console().print(made)
    show_left_out(found)


def write_stages(found: Report, folder: Path) -> None:
    """`plots/stages` as CSV, and where matplotlib is installed as PNG and SVG."""
    look = PlotStyle(WAYS, Compared(ADAPTED, FROZEN), in_words(found.metric))
    section = drawing(Section("stages", "methods", stage_rows(found), plots.by_stage), look)
    for name, content in section.files.items():
        atomic_write(folder / PLOTS / name, content)
    if not can_plot():
        say({"plots": NO_PLOT})
