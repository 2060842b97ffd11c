"""What all plots share: size, colours, where labels stand, and how a figure becomes a file. The door of matplotlib.

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
from typing import Any, Literal

import numpy as np

from metanlp.report.findings import Sides

NO_PLOT = "none are drawn, as matplotlib is not installed: pip install 'metanlp[report]'"
WIDTH, LETTER = 4.0, 0.08  # inches; a letter's width at 9 points in matplotlib's own font, which is a wide one
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
}  # fmt: skip


def can_plot() -> bool:
    return find_spec("matplotlib") is not None


@dataclass(frozen=True)
class Look:
    """How each method looks, in all plots."""

    names: tuple[str, ...]
    sides: Sides
    score: str  # what scores are: accuracy, …

    def role(self, name: str) -> str:
        """Ours and the plain methods have a colour each; of the others two, where there are few. Tasks have none."""
        if name not in self.names:
            return "muted"
        if name == self.sides.ours:
            return "ours"
        if name in FIXED:
            return FIXED[name]
        rest = [other for other in self.names if other != self.sides.ours and other not in FIXED]
        return ("first", "second")[rest.index(name)] if len(rest) <= 2 else "other"

    def colour(self, name: str) -> str:
        return COLOURS[self.role(name)]

    def ink(self, name: str) -> str:
        """For letters: what is drawn faintly must still be read."""
        return self.colour(name) if self.strong(name) else COLOURS["muted"]

    def strong(self, name: str) -> bool:
        return self.role(name) != "other"

    def line(self, name: str) -> dict[str, Any]:
        """Keywords of a line or a dot; ours lies on top."""
        ours = name == self.sides.ours
        return {"color": self.colour(name), "marker": MARKERS[self.role(name)], "linewidth": 2.2 if ours else 1.4,
                "zorder": 4 if ours else 3 if self.strong(name) else 2, "markeredgecolor": COLOURS["paper"],
                "markeredgewidth": 0.5}  # fmt: skip


def canvas(*heights: float, left: float = 0.42, right: float = 0.15, foot: float = 0.45, head: float = 0.28) -> Any:
    """A figure with panels of these heights one below the other, and its axes; all in inches."""
    between = 0.55
    total = sum(heights) + foot + head + between * (len(heights) - 1)
    figure = import_module("matplotlib.figure").Figure(figsize=(WIDTH, total))
    panels, top = list[Any](), total - head
    for height in heights:
        place = (left / WIDTH, (top - height) / total, (WIDTH - left - right) / WIDTH, height / total)
        panels.append(figure.add_axes(place))
        top -= height + between
    return figure, panels


def rectangle(x: float, y: float, width: float, height: float, **style: Any) -> Any:
    """Around (x, y)."""
    corner = (x - width / 2, y - height / 2)
    return import_module("matplotlib.patches").Rectangle(corner, width, height, **style)


def styled() -> Any:
    """The context to draw and to save in."""
    return import_module("matplotlib").rc_context(STYLE)


def saved(figure: Any, kind: Literal["png", "svg"]) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else {})
    return file.getvalue()


def inline(svg: bytes, name: str, title: str) -> str:
    """A figure as a part of a page: colours by name, identities that no other figure has, the page's font."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    for role, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{role})")
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def room(labels: Sequence[str], size: float = 9, most: int = LONGEST) -> float:
    """Inches that the longest of these labels takes."""
    return LETTER * size / 9 * max((len(shortened(label, most)) for label in labels), default=0) + 0.08


def shortened(label: str, most: int = LONGEST) -> str:
    """The beginning and the end of a long one: names of one source begin alike."""
    half = (most - 1) // 2
    return label if len(label) <= most else f"{label[: most - 1 - half]}…{label[-half:]}"


def apart(places: Sequence[float], gap: float) -> np.ndarray:
    """Where labels stand that want these places, no two nearer than `gap`, moved as little as can be: neighbours that
    touch become a block around the mean of what they want (isotonic regression, Barlow et al. 1972)."""
    order = np.argsort(places, kind="stable")
    wanted = np.asarray(places, dtype=float)[order] - gap * np.arange(len(order))
    blocks: list[list[float]] = []
    for value in wanted:
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    found = np.empty(len(order))
    found[order] = np.concatenate([[np.mean(block)] * len(block) for block in blocks] or [[]])
    found[order] += gap * np.arange(len(order))
    return found


def name_at_margin(axes: Any, ends: Sequence[tuple[str, float, float]], look: Look) -> None:
    """Writes each method's name right of the axes, beside where it ends: (name, x, y). Nothing is drawn after it."""
    for settle in (axes.get_xlim, axes.get_ylim):  # matplotlib finds limits when it is asked
        settle()
    inches = axes.figure.get_size_inches()[1] * axes.get_position().height
    to_axes = axes.transData + axes.transAxes.inverted()
    points = [to_axes.transform((x, y)) for _, x, y in ends]
    levels = apart([float(y) for _, y in points], 0.145 / inches)
    levels -= max(0.0, levels.max(initial=0.0) - 1) + min(0.0, levels.min(initial=0.0))
    for (name, x, y), level in zip(ends, levels, strict=True):
        axes.annotate(
            shortened(name), (x, y), (1.05, level), textcoords="axes fraction", va="center", color=look.ink(name),
            fontweight="bold" if name == look.sides.ours else "normal", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": look.colour(name), "lw": 0.6, "alpha": 0.55, "relpos": (0, 0.5),
                        "shrinkA": 1, "shrinkB": 2},
        )  # fmt: skip


def bars(row: Any, value: str) -> tuple[float, float, float]:
    """A value and its interval; where it has none, the value thrice."""
    middle = row[value]
    return middle, middle if row["low"] is None else row["low"], middle if row["high"] is None else row["high"]
