"""`report.html` of a class of students: what a teacher looks at, and how far it is to be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metanlp.core.progress import Progress
from metanlp.core.storage import atomic_write
from metanlp.episodes.traces import History
from metanlp.evaluation.classroom import LATELY, Pupil, Warned, learning_curve, pupil, warned_rightly
from metanlp.evaluation.mastery import Mastery
from metanlp.report import canvas, plots
from metanlp.report.canvas import PlotStyle
from metanlp.report.findings import Compared
from metanlp.report.page import PAGE, PLOTS, Section, drawing, filled
from metanlp.report.tables import say
from metanlp.report.traces import Tracing, gap_rows, score_rows

CURVE = "learning_curve"


@dataclass(frozen=True)
class Wishes:
    """What the teacher wants to see."""

    target: float  # chance of success at which to practise next
    practise: int  # skills to practise next, a student
    warn: float  # predicted success below which a student is on the list
    shown: int  # students with all their skills
    seed: int


def write_class(
    out: Path, wishes: Wishes, names: Sequence[str], students: Sequence[History], model: Mastery, found: Tracing
) -> None:
    """The page and the files of its plot. Names of students and skills are escaped."""
    offered = np.unique(np.concatenate([history.student.skills for history in students]))
    pupils = list[Pupil]()
    with Progress("page") as progress:
        tick = progress.ticks(len(students))
        for history in students:
            pupils.append(pupil(history, model, names, offered, wishes.target, wishes.practise))
            tick()
    curve = [{"method": "class", **row} for row in learning_curve(students, wishes.seed)]
    section = Section(CURVE, "methods", curve, plots.by_attempt)
    if curve:
        section = drawing(section, PlotStyle(("class",), Compared("class", None), "right"))
    for name, content in section.files.items():
        atomic_write(out / PLOTS / name, content)
    late = sorted((each for each in pupils if each.success.mean < wishes.warn), key=lambda each: each.success.mean)
    check: Warned = warned_rightly(students, model, wishes.warn, wishes.seed)
    html = filled(
        "class_page.html.j2", pupils=pupils[: wishes.shown], everybody=len(pupils), late=late, wishes=wishes,
        curve=section, check=check, scores=score_rows(found), gaps=gap_rows(found), facts=found.facts, lately=LATELY,
        skills=by_skill(pupils), no_plot="" if canvas.can_plot() else canvas.NO_PLOT,
    )  # fmt: skip
    atomic_write(out / PAGE, html.encode())
    say({"page": str(out / PAGE)})


def by_skill(pupils: Sequence[Pupil]) -> list[dict[str, object]]:
    """The class on each skill that somebody was asked: mean chance of those asked, and how many of them are surely
    below and surely above one half, the least mastered first."""
    chances: dict[str, list[tuple[float, float, float]]] = {}
    for each in pupils:
        for skill in each.skills:
            low, high = skill.chance.low, skill.chance.high
            assert low is not None
            assert high is not None
            chances.setdefault(skill.skill, []).append((skill.chance.mean, low, high))
    rows: list[dict[str, object]] = [
        {"skill": skill, "students": len(every),
         "mean chance, %": round(100 * float(np.mean([p for p, _, _ in every]))),
         "surely below half": sum(high < 0.5 for _, _, high in every),
         "surely above half": sum(low > 0.5 for _, low, _ in every)}
        for skill, every in chances.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: float(str(row["mean chance, %"])))
