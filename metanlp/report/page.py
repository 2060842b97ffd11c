"""`report.html`: one page made for looking, out of the files of a run. The door of jinja2.

It needs no network and no other file. `plots/` holds each plot as PNG, SVG and CSV; without matplotlib, tables.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from metanlp.checkpoint import atomic_write
from metanlp.errors import DamagedError, InputError
from metanlp.meta_test import RESULTS, Report, read_report
from metanlp.report import canvas, findings
from metanlp.report.canvas import Look
from metanlp.report.findings import Logs, Rows, Sides
from metanlp.report.sections import Section, sections

PAGE, LOCAL, PLOTS = "report.html", "local.json", "plots"


@dataclass(frozen=True)
class Drawn:
    """A section in all its forms."""

    section: Section
    svg: str  # for the page; empty where nothing can be drawn
    files: Mapping[str, bytes]  # by name


def write_page(folder: Path) -> Path:
    """`report.html` and `plots/`, from `results.json`, `local.json` and the `metrics.jsonl` of a run's folder. Raises
    InputError where there is no result, DamagedError where a file is not what a run wrote."""
    if not (folder / RESULTS).is_file():
        raise InputError(f"{folder} holds no {RESULTS}; give the folder that a run left")
    try:
        found, local = read_report(folder / RESULTS), read_json(folder / LOCAL)
        sides, logs = findings.sides_of(found), logs_of(folder, found)
        drawn = [
            drawing(each, Look(tuple(found.methods), sides, findings.score_of(found)))
            for each in sections(found, sides, logs)
        ]
        html = render(found, sides, drawn, local)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise DamagedError(f"the files in {folder} make no report: {type(error).__name__} {error}") from error
    for old in (folder / PLOTS).glob("*.*"):  # what another run left there is not this run's
        old.unlink()
    for name, content in (file for each in drawn for file in each.files.items()):
        atomic_write(folder / PLOTS / name, content)
    atomic_write(folder / PAGE, html.encode())
    return folder / PAGE


def read_json(path: Path) -> dict[str, Any]:
    """{} where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def logs_of(folder: Path, found: Report) -> Logs:
    """The lines of each method that was trained here."""
    places = {name: folder / "baselines" / name for name in found.methods} | {findings.main_of(found): folder}
    files = {name: place / "metrics.jsonl" for name, place in places.items()}
    return {
        name: [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for name, file in files.items()
        if file.is_file()
    }


def drawing(section: Section, look: Look) -> Drawn:
    files = {f"{section.name}.csv": as_csv(section.rows)}
    if not canvas.can_plot():
        return Drawn(section, "", files)
    with canvas.styled():
        figure = section.draw(section.rows, look)
        svg = canvas.saved(figure, "svg")
        files |= {f"{section.name}.svg": svg, f"{section.name}.png": canvas.saved(figure, "png")}
    return Drawn(section, canvas.inline(svg, section.name, section.title), files)


def as_csv(rows: Rows) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def render(found: Report, sides: Sides, drawn: list[Drawn], local: Mapping[str, Any]) -> str:
    pages = Environment(
        loader=PackageLoader("metanlp.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    pages.filters |= {"cell": cell, "points": points}
    return pages.get_template("page.html.j2").render(
        found=found, sides=sides, answer=findings.answer(found, sides), scores=findings.two_scores(found, sides),
        tally=findings.tally(found, sides), facts=findings.facts(found), drawn=drawn, costs=findings.costs(found),
        local=local, main=findings.main_of(found), no_plot="" if canvas.can_plot() else canvas.NO_PLOT,
    )  # fmt: skip


def points(share: float) -> str:
    """With its sign, as it is printed."""
    return f"{100 * share:+.1f}".replace("-", "−")


def cell(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
