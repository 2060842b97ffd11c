"""What all plots share: size, colours, labels and files. The only module that imports matplotlib.

A figure is as wide as a telephone shows it without making letters small. In the page its colours are names of the style
sheet, so that light, dark and print are one drawing.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from metanlp.report.findings import Compared

NO_PLOT = "none are drawn, as matplotlib is not installed: pip install 'metanlp[report]'"
WIDTH, LETTER = 4.0, 0.08  # inches; a letter's width at 9 points in matplotlib's own font, which is a wide one
BETWEEN, BESIDE = 0.55, 0.2  # inches between panels below and beside each other
LONGEST = 20  # letters of a label

# Light colours; the page's style sheet holds the dark ones under the same names. Told apart by colour-blind people
# (after Okabe & Ito 2008), and by their markers.
COLOURS = {
    "paper": "#fefefe", "ink": "#1c2126", "muted": "#5a636e", "grid": "#dfe3e8", "ours": "#0072b2", "plain": "#3f4852",
    "tuned": "#936000", "joint": "#c04800", "first": "#007f59", "second": "#a8488f", "other": "#98a1ac",
}  # fmt: skip
FIXED = {"frozen": "plain", "finetune": "tuned", "multitask": "joint"}
MARKERS = {"ours": "o", "plain": "^", "tuned": "s", "joint": "D", "first": "v", "second": "P", "other": "o"}
FEW = 6  # methods that have a colour each
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "metanlp", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": COLOURS["muted"], "axes.labelcolor": COLOURS["ink"],
    "text.color": COLOURS["ink"], "xtick.color": COLOURS["muted"], "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["ink"], "ytick.labelcolor": COLOURS["ink"], "axes.facecolor": "none",
    "figure.facecolor": COLOURS["paper"], "grid.color": COLOURS["grid"], "grid.linewidth": 0.8, "axes.grid": True,
    "axes.axisbelow": True, "axes.linewidth": 0.8, "lines.linewidth": 1.6, "lines.markersize": 5, "xtick.major.size": 3,
    "ytick.major.size": 0, "axes.labelsize": 9, "legend.frameon": False, "legend.fontsize": 8.5,
    "text.parse_math": False,  # a dollar in a name is a dollar
}  # fmt: skip


def can_plot() -> bool:
    return find_spec("matplotlib") is not None


@dataclass(frozen=True)
class PlotStyle:
    """How each method looks, in all plots."""

    names: tuple[str, ...]
    sides: Compared
    score: str  # what scores are: accuracy, …
    chance: float | None = None  # mean over tasks of what guessing scores, in percent; None where it is not known
    validating: float | None = None  # the same of the validation tasks

    def role(self, name: str) -> str:
        """The name of the colour. Ours and the plain methods have one each, of the others two, where there are few."""
        if name not in self.names:
            return "muted"  # a task
        if name == self.sides.ours:
            return "ours"
        rest = [other for other in self.names if other != self.sides.ours and other not in FIXED]
        return FIXED.get(name) or (("first", "second")[rest.index(name)] if len(rest) <= 2 else "other")

    def colour(self, name: str) -> str:
        return COLOURS[self.role(name)]

    def strong(self, name: str) -> bool:
        return self.role(name) != "other"

    def line(self, name: str) -> dict[str, Any]:
        """Keywords of a line or a dot; ours lies on top."""
        ours = name == self.sides.ours
        return {"color": self.colour(name), "marker": MARKERS[self.role(name)], "linewidth": 2.2 if ours else 1.4,
                "zorder": 4 if ours else 3 if self.strong(name) else 2, "markeredgecolor": COLOURS["paper"],
                "markeredgewidth": 0.5}  # fmt: skip


def canvas(
    *heights: float, columns: int = 1, left: float = 0.42, right: float = 0.15, foot: float = 0.45, head: float = 0.28
) -> Any:
    """A figure with panels of these heights one below the other, in columns, and its axes row by row; in inches."""
    total = sum(heights) + foot + head + BETWEEN * (len(heights) - 1)
    width = (WIDTH - left - right - BESIDE * (columns - 1)) / columns
    places = {"left": left / WIDTH, "right": 1 - right / WIDTH, "bottom": foot / total, "top": 1 - head / total,
              "hspace": BETWEEN / np.mean(heights), "wspace": BESIDE / width}  # fmt: skip
    figure = import_module("matplotlib.figure").Figure(figsize=(WIDTH, total))
    panels = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights, gridspec_kw=places)
    return figure, panels.ravel()


def drawn(draw: Any, *about: Any) -> dict[str, bytes]:
    """The figure that `draw` makes of these arguments, by kind of file."""
    files = {kind: io.BytesIO() for kind in ("svg", "png")}
    with import_module("matplotlib").rc_context(STYLE):
        figure = draw(*about)
        for kind, file in files.items():
            figure.savefig(file, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else {})
    return {kind: file.getvalue() for kind, file in files.items()}


def inline(svg: bytes, name: str) -> str:
    """A figure as a part of a page: colours by name, identities that no other figure has, the page's font."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    for role, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{role})")
    return text


def room(labels: Sequence[str], size: float = 9, most: int = LONGEST) -> float:
    """Inches that the longest of these labels takes."""
    return LETTER * size / 9 * max((len(shortened(label, most)) for label in labels), default=0) + 0.08


def shortened(label: str, most: int = LONGEST) -> str:
    """The beginning and the end of a long one: names of one source begin alike."""
    half = (most - 1) // 2
    return label if len(label) <= most else f"{label[: most - 1 - half]}…{label[-half:]}"


def apart(places: Sequence[float], gap: float) -> np.ndarray:
    """Where labels stand that want these places, no two nearer than `gap`, moved as little as can be (in squares)."""
    order, steps = np.argsort(places, kind="stable"), gap * np.arange(len(places))
    found = np.empty(len(places))
    if len(places):
        found[order] = isotonic_regression(np.asarray(places, dtype=float)[order] - steps).x + steps
    return found


def legend(figure: Any, names: Sequence[str], look: PlotStyle, **style: Any) -> None:
    """Above the panels: the methods that have a colour of their own, and the others as one."""
    strong = [name for name in names if look.strong(name)]
    shown = {shortened(name, 12): look.line(name) for name in strong}
    if len(strong) < len(names):
        shown["others"] = {"color": COLOURS["other"], "marker": MARKERS["other"]}
    line = import_module("matplotlib.lines").Line2D
    handles = [line([], [], label=label, **(known | style)) for label, known in shown.items()]
    figure.legend(handles=handles, loc="upper left", ncols=3, borderaxespad=0.1, handletextpad=0.3, columnspacing=1.0)


def legend_height(names: Sequence[str], look: PlotStyle) -> float:
    """Inches that the legend takes."""
    strong = sum(map(look.strong, names))
    return 0.17 * -(-(strong + (strong < len(names))) // 3)


def name_at_margin(axes: Any, rows: Any, label: str, x: str, y: str, look: PlotStyle) -> None:
    """Writes each `label` of the rows right of the axes, beside where it ends. Nothing is drawn after it."""
    ends = rows.groupby(label, sort=False)[[x, y]].last()
    for settle in (axes.get_xlim, axes.get_ylim):  # matplotlib finds limits when it is asked
        settle()
    inches = axes.figure.get_size_inches()[1] * axes.get_position().height
    wanted = (axes.transData + axes.transAxes.inverted()).transform(ends.to_numpy(dtype=float).reshape(-1, 2))[:, 1]
    levels = apart(wanted, 0.145 / inches)
    levels -= max(0.0, levels.max(initial=0.0) - 1) + min(0.0, levels.min(initial=0.0))
    for (name, *end), level in zip(ends.itertuples(), levels, strict=True):
        axes.annotate(
            shortened(name), end, (1.05, level), textcoords="axes fraction", va="center", annotation_clip=False,
            color=look.colour(name) if look.strong(name) else COLOURS["muted"],  # what is drawn faintly must be read
            fontweight="bold" if name == look.sides.ours else "normal",
            arrowprops={"arrowstyle": "-", "color": look.colour(name), "lw": 0.6, "alpha": 0.55, "relpos": (0, 0.5),
                        "shrinkA": 1, "shrinkB": 2},
        )  # fmt: skip
