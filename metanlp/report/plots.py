"""The drawings, each from the rows of `findings` as a data frame. Percent up or right is better; a bar is a 95 %
interval. Where methods would lie on one spot they stand a little apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from metanlp.report.canvas import (
    BESIDE,
    COLOURS,
    FEW,
    LONGEST,
    PlotStyle,
    canvas,
    legend,
    legend_height,
    name_at_margin,
    room,
    shortened,
)

LINE = 0.24  # inches a row of names
MARKER, MOST = 0.055, 6.0  # inches that a dot takes, and that all tasks take before dots lie closer
SOME = 10  # answers from which on a share of them says something
SPREAD = 0.4  # of the way from one place to the next that the methods of a place take

Frame = Any
"""A pandas.DataFrame."""


def differences(rows: Frame, look: PlotStyle) -> Any:
    """A row a comparison: of one method to the others, or of all to one."""
    of_one = rows["method"].nunique() == 1
    labels = list(rows["method"] + " − " + rows["less"] if of_one else rows["method"])
    figure, (axes,) = canvas(LINE * len(rows) + 0.2, left=room(labels, most=30), head=0.1)
    across(axes, labels, most=30)
    for place, name in enumerate(rows["less" if of_one else "method"]):
        dots(axes, rows[place : place + 1].assign(place=place), "points", "place", look, name)
    axes.axvline(0, color=COLOURS["ink"], linewidth=1)
    axes.set_xlabel("difference, points" if of_one else f"less {rows['less'][0]}, points")
    return figure


def by_shots(rows: Frame, look: PlotStyle) -> Any:
    """Points with intervals; a row a method where there are many, or a single number of shots."""
    if rows["method"].nunique() > FEW or rows["shots"].nunique() < 2:
        return by_shots_in_rows(rows, look)
    return score_curves(rows, "shots", "shots", f"{look.score}, %", look, chance=look.chance)


def by_shots_in_rows(rows: Frame, look: PlotStyle) -> Any:
    """The best above; of each method a bar a number of shots, more shots darker and lower."""
    shots = list(rows["shots"].unique())
    names = list(rows.groupby("method", sort=False)["percent"].mean().sort_values(ascending=False, kind="stable").index)
    height = max(LINE, 0.11 * len(shots) + 0.08)
    figure, (axes,) = canvas(height * len(names) + 0.25, left=room(names), head=0.1 + 0.2 * -(-len(shots) // 4))
    across(axes, names)
    for turn, k in enumerate(shots):
        dark = 0.4 + 0.6 * turn / (len(shots) - 1) if len(shots) > 1 else 1.0
        shift = (turn - (len(shots) - 1) / 2) * 0.11 / height
        for name, each in rows[rows["shots"] == k].groupby("method"):
            dots(axes, each.assign(place=names.index(name) + shift), "percent", "place", look, name, alpha=dark)
        axes.plot([], [], label=f"{k} shots", marker="o", linestyle="-", color=COLOURS["ink"], alpha=dark)
    axes.set_xlim(*possible(axes.get_xlim(), rows))
    axes.set_xlabel(f"{look.score}, %{by_chance(axes.axvline, axes.get_xlim(), look.chance)}")
    if len(shots) > 1:
        figure.legend(loc="upper right", ncols=min(len(shots), 4), borderaxespad=0.1, columnspacing=1.0)
    return figure


def by_task(rows: Frame, look: PlotStyle) -> Any:
    """Left the methods, right the difference of the two sides, task by task."""
    tasks, names = list(rows["task"]), [name for name in look.names if name in rows]
    head, height = 0.1 + legend_height(names, look), max(LINE, min(MARKER * (len(names) + 1.5), MOST / len(rows)))
    figure, (axes, beside) = canvas(height * len(rows) + 0.2, columns=2, left=room(tasks), right=0.12, head=head)
    across(axes, tasks)
    across(beside, [""] * len(rows))
    for place, name in enumerate(names):
        style = look.line(name) | ({} if look.strong(name) else {"alpha": 0.6})
        shift = min(MARKER / height, 0.85 / len(names)) * (place - (len(names) - 1) / 2)
        axes.plot(rows[name], np.arange(len(rows)) + shift, **style | {"linestyle": "", "markersize": 4})
    if "chance" in rows:
        chance_of_tasks(axes, rows["chance"])
    if "points" in rows:
        dots(beside, rows.assign(place=range(len(rows))), "points", "place", look, look.sides.ours)
    beside.axvline(0, color=COLOURS["ink"], linewidth=1)
    for each, label in ((axes, f"{look.score}, %"), (beside, "difference, points")):
        each.set_xlabel(label)
        each.locator_params(axis="x", nbins=3)
    legend(figure, names, look, linestyle="")
    return figure


def by_texts(rows: Frame, look: PlotStyle, texts: str, label: str, score: str) -> Any:
    """A measure of tasks that were held out in turn, by the number of support texts."""
    return score_curves(rows, "shots", texts, label, look, score)


def by_attempt(rows: Frame, look: PlotStyle) -> Any:
    return score_curves(rows, "attempt", "answer on a skill", "right, %", look)


def by_step(rows: Frame, look: PlotStyle) -> Any:
    label = "score on validation tasks, %"
    return score_curves(rows, "steps", "gradient steps", label, look, chance=look.validating)


def by_stage(rows: Frame, look: PlotStyle) -> Any:
    """Left to right the stages of a training, a line a way of reading each."""
    label = f"{look.score}, mean over tasks and shots, %"
    figure = score_curves(rows, "number", "", label, look, chance=look.chance)
    names = [name.replace("-", "-\n") for name in rows["stage"].unique()]
    figure.axes[0].set_xticks(rows["number"].unique(), names, fontsize=7.5)
    return figure


def score_curves(
    rows: Frame, x: str, along: str, label: str, look: PlotStyle, score: str = "percent", chance: float | None = None
) -> Any:
    """A line a method; with the intervals of its points where there are few. `chance` is what guessing scores."""
    names, ticks = list(rows["method"].unique()), rows[x].unique()
    figure, (axes,) = canvas(max(2.4, 0.16 * len(names)), right=room(names) + 0.25)
    if few := len(names) <= FEW:
        rows = side_by_side(rows, x, names)
        for name, mine in rows.groupby("method", sort=False):
            dots(axes, mine, x, score, look, name)
    curves(axes, rows, x, score, label, look, **({"marker": "", "linewidth": 0.8, "alpha": 0.5} if few else {}))
    if x == "shots":
        axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, list(map(str, ticks)))
    axes.minorticks_off()
    if score == "percent":
        axes.set_ylim(*possible(axes.get_ylim(), rows))
    axes.set_xlabel((along + by_chance(axes.axhline, axes.get_ylim(), chance)).removeprefix("; "))
    name_at_margin(axes, rows, "method", x, score, look)
    return figure


def training(rows: Frame, look: PlotStyle) -> Any:
    """Losses above; below the validations, where there are any."""
    names = list(rows["method"].unique())
    low = max(1.5, 0.16 * len(names))
    parts = {"loss": "loss, nats", "percent": "score on validation tasks, %"}
    shown = [key for key in parts if rows[key].notna().any()]
    figure, panels = canvas(*[1.5, low][-len(shown) :], right=room(names) + 0.25)
    for axes, key in zip(panels, shown, strict=True):
        known = rows[rows[key].notna()]
        if key == "percent":  # methods may have computed as much where they are looked at, and be as good
            known = known.assign(M_tokens=known["M_tokens"] + aside(known, names))
        curves(axes, known, "M_tokens", key, parts[key], look, **({"marker": ""} if key == "loss" else {}))
        axes.locator_params(axis="x", nbins=4)
        crowded = axes is not panels[-1] and len(names) > FEW
        named = known[known["method"].map(look.strong)] if crowded else known
        name_at_margin(axes, named, "method", "M_tokens", key, look)
    told = by_chance(panels[-1].axhline, panels[-1].get_ylim(), look.validating) if shown[-1] == "percent" else ""
    panels[-1].set_xlabel(f"million tokens computed{told}")
    return figure


def calibration(rows: Frame, look: PlotStyle) -> Any:
    """On the diagonal an answer is right as often as it is sure. A share of fewer than `SOME` answers is no point,
    except where none is of more. Below, how many answers of ours are how sure."""
    names = list(rows["method"].unique())
    figure, (axes, below) = canvas(2.5, 0.6, head=0.35 + legend_height(names, look))
    axes.plot([0, 100], [0, 100], color=COLOURS["ink"], linewidth=1, linestyle=(0, (2, 2)))
    for name in sorted(names, key=look.strong):
        mine = rows[rows["method"] == name]
        mine = mine[mine["answers"] >= min(SOME, mine["answers"].max())]
        style = look.line(name) if look.strong(name) else {"color": COLOURS["other"], "linewidth": 0.8, "alpha": 0.7}
        axes.plot(mine["sure"], mine["right"], **style)
    mine = rows[rows["method"] == look.sides.ours]
    left, share = mine["bin"].str.split("-").str[0].astype(float), 100 * mine["answers"] / mine["answers"].sum()
    below.bar(left, share, width=9, align="edge", color=COLOURS["ours"], alpha=0.7)
    for each in (axes, below):
        each.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    over(axes, f"answers that are right, %{by_chance(axes.axhline, (0, 100), look.chance)}")
    over(below, f"answers of {look.sides.ours}, %")
    below.set_xlabel("probability given to the answer, %")
    legend(figure, names, look)
    return figure


def views(rows: Frame, look: PlotStyle) -> Any:
    """How much each view counts, task by task."""
    return cells(rows.set_index("task"), "{:.0f}")


def nearest(rows: Frame, look: PlotStyle) -> Any:
    """Does it help more where a training task is near?"""
    few, known = len(rows) <= 12, rows[rows["points"].notna()]
    figure, (axes,) = canvas(2.3, right=room(rows["task"], 8) + 0.25 if few else 0.15)
    dots(axes, known, "cosine", "points", look, look.sides.ours)
    axes.axhline(0, color=COLOURS["ink"], linewidth=1)
    axes.set_xlabel("cosine to the nearest training task")
    over(axes, "difference, points")
    if few:
        name_at_margin(axes, known, "task", "cosine", "points", look)
    return figure


def confusion(rows: Frame, look: PlotStyle) -> Any:
    """Of the rows of each class, the share that was called each class."""
    counts = rows.set_index(str(rows.columns[0]))
    share = 100 * counts.div(counts.sum(axis=1).clip(1), axis=0)
    return cells(share, "{:.0f}" if len(counts) <= 10 else "")


# what several drawings share


def bounds(rows: Frame, value: str) -> list[np.ndarray]:
    """The ends of the intervals; the value itself where it has none: (R,), (R,)."""
    return [np.array(rows[end].astype(float).fillna(rows[value].astype(float))) for end in ("low", "high")]


def dots(axes: Any, rows: Frame, x: str, y: str, look: PlotStyle, name: str, **style: Any) -> None:
    """The rows of one method as dots in their intervals, of the axis that is a score."""
    across, line = x in ("percent", "points"), look.line(name)
    values = np.array(rows[x if across else y], dtype=float)
    low, high = bounds(rows, x if across else y)
    bar = {"elinewidth": line["linewidth"]} if across else {"elinewidth": 1.1, "ecolor": (line["color"], 0.6)}
    ends = {"xerr" if across else "yerr": (values - low, high - values)}
    axes.errorbar(rows[x], rows[y], **ends, **line | bar | style | {"linestyle": ""})


def apart_by(count: int) -> np.ndarray:
    """Where `count` things stand around their place, in parts of the way to the next place: (count,)."""
    return SPREAD * (np.arange(count) - (count - 1) / 2) / count


def side_by_side(rows: Frame, x: str, names: Sequence[str]) -> Frame:
    """The rows with each method a little beside where it belongs; on an axis of shots by a factor."""
    places, shift = np.unique(rows[x].astype(float)), apart_by(len(names))[rows["method"].map(names.index)]
    if x == "shots":
        return rows.assign(**{x: rows[x] * 2.0 ** (np.diff(np.log2(places)).min(initial=1.0) * shift)})
    return rows.assign(**{x: rows[x] + np.diff(places).min(initial=1.0) * shift})


def aside(rows: Frame, names: Sequence[str]) -> np.ndarray:
    """How far the rows of each method are moved along the tokens computed, so that no two lie on one spot: (R,)."""
    width = float(rows["M_tokens"].max() - rows["M_tokens"].min()) or 1.0
    return 0.02 * width * len(names) / SPREAD * apart_by(len(names))[rows["method"].map(names.index)]


def by_chance(line: Any, limits: tuple[float, float], chance: float | None) -> str:
    """Draws what guessing scores, by `line`, where that is in sight; returns what an axis says of it."""
    if chance is None:
        return ""
    if limits[0] <= chance <= limits[1]:
        line(chance, color=COLOURS["muted"], linewidth=1, linestyle=(0, (1, 2)))
    return f"; chance is {chance:g} %"


def chance_of_tasks(axes: Any, chance: Frame) -> None:
    """What guessing scores in each row: a line where it is in sight, else its number at the edge, as a scale that
    reaches so far would leave no width to the methods."""
    low, high = axes.get_xlim()
    left, right = chance < low, chance > high
    axes.set_xlim(low - 0.3 * left.any() * (high - low), high + 0.3 * right.any() * (high - low))
    axes.plot(chance.where(~left & ~right), range(len(chance)), color=COLOURS["muted"], marker="|", markersize=9,
              linestyle="")  # fmt: skip
    for place, value in enumerate(chance):
        if left[place] or right[place]:
            side, said = ("left", f"‹ {value:.0f}") if left[place] else ("right", f"{value:.0f} ›")
            axes.text(axes.get_xlim()[int(right[place])], place, said, ha=side, va="center", fontsize=7,
                      color=COLOURS["muted"])  # fmt: skip


def curves(axes: Any, rows: Frame, x: str, y: str, label: str, look: PlotStyle, **style: Any) -> None:
    """A line a method."""
    for name, mine in rows.groupby("method", sort=False):
        axes.plot(mine[x], mine[y].astype(float), **look.line(name) | style)
    over(axes, label)


def possible(limits: tuple[float, float], rows: Frame) -> tuple[float, float]:
    """Few support sets have intervals that go beyond what a score can be."""
    least = 0.0 if rows["percent"].min() >= 0 else -100.0
    return max(limits[0], least - 2), min(limits[1], 102.0)


def over(axes: Any, text: str) -> None:
    """What goes up, written where it takes no width."""
    axes.set_title(text, loc="left", x=-0.05, fontsize=9)


def across(axes: Any, labels: Sequence[str], most: int = LONGEST) -> None:
    """Rows with names, the first on top."""
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_yticks(range(len(labels)), [shortened(label, most) for label in labels])
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=5)


def cells(table: Frame, form: str) -> Any:
    """A table of percentages, the higher the darker."""
    rows, columns, values = list(table.index), list(table.columns), table.to_numpy(dtype=float)
    few = len(columns) <= 8
    small, turn = (8, 40) if few else (6.5, 90)
    names = [shortened(name, 16) for name in columns]
    head = 0.1 + (0.7 if few else 1) * room(names, small)
    right = 0.1 + (0.75 * room(names[-1:], small) if few else 0)
    figure, (axes,) = canvas(0.22 * len(rows), left=room(rows, 8) + BESIDE, head=head, foot=0.1, right=right)
    y, x = np.indices(values.shape).reshape(2, -1)
    shades = 0.6 * values.ravel() / (values.max() or 1.0)
    axes.bar(x, 0.92, 0.96, y - 0.46, color=[(COLOURS["ours"], shade) for shade in shades])
    for place, value in np.ndenumerate(values):
        if form and (value >= 0.5 or few):
            axes.text(*place[::-1], form.format(value), ha="center", va="center", fontsize=small)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks(range(len(columns)), names, rotation=turn, ha="left", rotation_mode="anchor", fontsize=small)
    axes.set_yticks(range(len(rows)), list(map(shortened, rows)), fontsize=8)
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure
