"""`report.html`: one page made for looking, out of the files of a run. The only module that imports jinja2.

It needs no network and no other file. `plots/` holds each plot as PNG, SVG and CSV; without matplotlib, tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from metanlp.core.errors import DamagedError, InputError
from metanlp.core.outputs import LOCAL
from metanlp.core.storage import atomic_write
from metanlp.evaluation.answers import answers, choices
from metanlp.evaluation.results import RESULTS, Report, read_report
from metanlp.report import advice, canvas, findings, plots
from metanlp.report.canvas import PlotStyle
from metanlp.report.findings import Compared, Logs, Rows
from metanlp.report.tables import cell, costs, in_words

PAGE, PLOTS = "report.html", "plots"


@dataclass(frozen=True)
class Section:
    """One thing to see; its title, and how the picture is to be read, stand in `page.html.j2`."""

    name: str  # of its files in plots/
    side: Literal["methods", "tasks"]  # left or right on a wide screen
    rows: Rows
    draw: Callable[..., Any]  # a figure, from the rows as a data frame and a PlotStyle
    svg: str = ""  # for the page; empty where nothing can be drawn
    files: Mapping[str, bytes] = field(default_factory=dict)  # by name


def sections(found: Report, sides: Compared, logs: Logs, tasks: Rows) -> list[Section]:
    """In the order of reading, not drawn yet, without those that have no rows. `tasks` are the rows by task."""
    every = (
        Section("differences", "methods", findings.differences(found, sides), plots.differences),
        Section("score_by_task", "tasks", tasks, plots.by_task),
        Section("score_by_shots", "methods", findings.by_shots(found), plots.by_shots),
        Section("nearest", "tasks", findings.nearest(found, tasks), plots.nearest),
        Section("score_by_step", "methods", findings.by_step(found), plots.by_step),
        Section("views", "tasks", findings.views(found), plots.views),
        Section("calibration", "tasks" if len(tasks) <= 12 else "methods", findings.calibration(found),
                plots.calibration),
        Section("training", "methods", findings.training(logs), plots.training),
        Section("confusion", "tasks", findings.confusion(found), plots.confusion),
    )  # fmt: skip
    return [each for each in every if each.rows]


def write_page(folder: Path) -> Path:
    """`report.html` and `plots/`, from `results.json`, `local.json` and the `metrics.jsonl` of a run's folder. Raises
    InputError where there is no result, DamagedError where a file is not what a run wrote."""
    if not (folder / RESULTS).is_file():
        raise InputError(f"{folder} holds no {RESULTS}; give the folder that a run left")
    found = read_report(folder / RESULTS)
    try:
        html, files = rendered(found, folder)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise DamagedError(f"the files in {folder} make no report: {type(error).__name__} {error}") from error
    for old in (folder / PLOTS).glob("*.*"):  # what another run left there is not this run's
        old.unlink()
    for name, content in files.items():
        atomic_write(folder / PLOTS / name, content)
    atomic_write(folder / PAGE, html.encode())
    return folder / PAGE


def rendered(found: Report, folder: Path) -> tuple[str, dict[str, bytes]]:
    """The page, and the files of its plots by name."""
    local: Mapping[str, Any] = json.loads(file.read_text("utf-8")) if (file := folder / LOCAL).is_file() else {}
    sides, score = findings.compared_in(found), in_words(found.metric)
    tasks, look = findings.by_task(found, sides), style_of(found, sides)
    every = [drawing(each, look) for each in sections(found, sides, logs_of(folder, found), tasks)]
    html = filled(
        "page.html.j2", found=found, sides=sides, advice=advice, answers=answers(found), choices=choices(found),
        tally=findings.tally(tasks), facts=findings.facts(found), drawn=every, costs=costs(found), score=score,
        local=local, main=found.main, no_plot="" if canvas.can_plot() else canvas.NO_PLOT,
    )  # fmt: skip
    return html, {name: content for each in every for name, content in each.files.items()}


def style_of(found: Report, sides: Compared) -> PlotStyle:
    chance = [known and round(100 * known, 1) for known in (found.chance(), found.protocol.get("validation_chance"))]
    return PlotStyle(tuple(found.methods), sides, in_words(found.metric), *chance)


def filled(template: str, **values: Any) -> str:
    """A page from one of the templates beside this module; whatever is put in is escaped."""
    pages = environment()
    pages.filters["cell"] = cell
    return pages.get_template(template).render(**values)


def write_tables(
    folder: Path, notes: Sequence[str], tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]],
    drawn: Sequence[Section],
) -> Path:  # fmt: skip
    """`report.html` out of tables, each a title, a header and rows, the plots before them, and what has to be known of
    them; the first of the `notes` is the title."""
    html = environment().get_template("page.tables.html.j2").render(
        title=notes[0], notes=notes[1:], tables=tables, drawn=drawn, no_plot="" if canvas.can_plot() else canvas.NO_PLOT
    )  # fmt: skip
    atomic_write(folder / PAGE, html.encode())
    return folder / PAGE


def environment() -> Environment:
    return Environment(
        loader=PackageLoader("metanlp.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def logs_of(folder: Path, found: Report) -> Logs:
    """The lines of each method that was trained here."""
    places = {name: folder / "baselines" / name for name in found.methods} | {found.main: folder}
    files = {name: place / "metrics.jsonl" for name, place in places.items()}
    return {
        name: [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for name, file in files.items()
        if file.is_file()
    }


def drawing(section: Section, look: PlotStyle) -> Section:
    """The section with its files, and its plot where matplotlib is installed."""
    rows = pd.DataFrame(section.rows)
    files = {"csv": rows.to_csv(index=False, lineterminator="\n").encode()}
    svg = ""
    if canvas.can_plot():
        files |= canvas.drawn(section.draw, rows, look)
        svg = canvas.inline(files["svg"], section.name)
    return replace(section, svg=svg, files={f"{section.name}.{kind}": content for kind, content in files.items()})
