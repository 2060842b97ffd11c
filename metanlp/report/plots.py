"""The drawings, each from rows of `findings`. Percent up or right is better; a band or a bar is a 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from metanlp.report.canvas import (
    COLOURS,
    FEW,
    LONGEST,
    Look,
    bars,
    canvas,
    name_at_margin,
    rectangle,
    room,
    shortened,
)
from metanlp.report.findings import Rows

LINE = 0.24  # inches a row of names


def differences(rows: Rows, look: Look) -> Any:
    """A row a comparison: of one method to the others, or of all to one."""
    of_one = len(unique(rows, "method")) == 1
    labels = [f"{row['method']} − {row['less']}" if of_one else row["method"] for row in rows]
    figure, (axes,) = canvas(LINE * len(rows) + 0.2, left=room(labels, most=30), head=0.1)
    across(axes, labels, most=30)
    for place, row in enumerate(rows):
        whisker(axes, place, *bars(row, "points"), look, row["less" if of_one else "method"])
    axes.axvline(0, color=COLOURS["ink"], linewidth=1)
    axes.set_xlabel("difference, points" if of_one else f"less {rows[0]['less']}, points")
    return figure


def by_shots(rows: Rows, look: Look) -> Any:
    """Curves with bands; a row a method where there are many, or a single number of shots."""
    names, shots = unique(rows, "method"), unique(rows, "shots")
    if len(names) > FEW or len(shots) < 2:
        return by_shots_in_rows(rows, look, names, shots)
    figure, (axes,) = canvas(2.5, right=room(names) + 0.25)
    for name in names:
        mine = [row for row in rows if row["method"] == name]
        middle, low, high = np.array([bars(row, "percent") for row in mine]).T
        x = [row["shots"] for row in mine]
        axes.fill_between(x, low, high, color=look.colour(name), alpha=0.13, linewidth=0)
        axes.plot(x, middle, **look.line(name))
    axes.set_xscale("log", base=2)
    axes.set_xticks(shots, list(map(str, shots)))
    axes.minorticks_off()
    axes.set_xlabel("shots")
    axes.set_ylim(*possible(axes.get_ylim(), rows))
    over(axes, f"{look.score}, %")
    name_at_margin(axes, [(r["method"], r["shots"], r["percent"]) for r in rows if r["shots"] == shots[-1]], look)
    return figure


def by_shots_in_rows(rows: Rows, look: Look, names: Sequence[str], shots: Sequence[int]) -> Any:
    """The best above; of each method a bar a number of shots, more shots darker and lower."""
    names = sorted(names, key=lambda name: -np.mean([r["percent"] for r in rows if r["method"] == name]))
    height = max(LINE, 0.11 * len(shots) + 0.08)
    figure, (axes,) = canvas(height * len(names) + 0.25, left=room(names), head=0.1 + 0.2 * -(-len(shots) // 4))
    across(axes, names)
    for row in rows:
        turn = shots.index(row["shots"])
        place = names.index(row["method"]) + (turn - (len(shots) - 1) / 2) * 0.11 / height
        whisker(axes, place, *bars(row, "percent"), look, row["method"], strength=strength(turn, len(shots)))
    axes.set_xlabel(f"{look.score}, %")
    axes.set_xlim(*possible(axes.get_xlim(), rows))
    if len(shots) > 1:
        for turn, k in enumerate(shots):
            look_of = {"marker": "o", "linestyle": "-", "color": COLOURS["ink"], "alpha": strength(turn, len(shots))}
            axes.plot([], [], label=f"{k} shots", **look_of)
        figure.legend(loc="upper right", ncols=min(len(shots), 4), borderaxespad=0.1, columnspacing=1.0)
    return figure


def by_task(rows: Rows, look: Look) -> Any:
    """Left the methods, right the difference of the two sides, task by task."""
    tasks = [row["task"] for row in rows]
    names = [name for name in look.names if name in rows[0]]
    keys = [name for name in names if look.strong(name)]
    lines = -(-len(keys) // 3)
    figure, (axes,) = canvas(LINE * len(rows) + 0.2, left=room(tasks), right=1.5, head=0.1 + 0.17 * lines)
    beside = beside_of(axes)
    across(axes, tasks)
    across(beside, [""] * len(rows))
    for name in names:
        style = look.line(name) | ({"label": shortened(name, 12)} if look.strong(name) else {"alpha": 0.6})
        axes.plot([row[name] for row in rows], range(len(rows)), **style | {"linestyle": ""})
    for place, row in enumerate(rows):
        if "points" in row:
            whisker(beside, place, *bars(row, "points"), look, look.sides.ours)
    if len(keys) < len(names):
        axes.plot([], [], "o", color=COLOURS["other"], label="others")
    axes.set_xlabel(f"{look.score}, %")
    beside.axvline(0, color=COLOURS["ink"], linewidth=1)
    beside.set_xlabel("difference, points")
    figure.legend(loc="upper left", ncols=3, borderaxespad=0.1, handletextpad=0.1, columnspacing=1.0)
    return figure


def by_step(rows: Rows, look: Look) -> Any:
    names = unique(rows, "method")
    figure, (axes,) = canvas(max(2.3, 0.16 * len(names)), right=room(names) + 0.25)
    for name in names:
        mine = [row for row in rows if row["method"] == name]
        middle, low, high = np.array([bars(row, "percent") for row in mine]).T
        x = [row["steps"] for row in mine]
        if len(names) <= FEW:
            axes.fill_between(x, low, high, color=look.colour(name), alpha=0.13, linewidth=0)
        axes.plot(x, middle, **look.line(name))
    axes.set_xticks(unique(rows, "steps"))
    axes.set_xlabel("gradient steps")
    axes.set_ylim(*possible(axes.get_ylim(), rows))
    over(axes, "score on validation tasks, %")
    ends = [[row for row in rows if row["method"] == name][-1] for name in names]
    name_at_margin(axes, [(row["method"], row["steps"], row["percent"]) for row in ends], look)
    return figure


def by_seconds(rows: Rows, look: Look) -> Any:
    names = [row["method"] for row in rows]
    figure, (axes,) = canvas(max(2.3, 0.17 * len(rows)), right=room(names) + 0.25)
    for row in rows:
        name = row["method"]
        middle, low, high = bars(row, "percent")
        bar = {"color": look.colour(name), "linewidth": 1.1, "alpha": 0.6}
        axes.plot([row["adapt_s"]] * 2, [low, high], **bar)
        axes.plot(row["adapt_s"], middle, **look.line(name) | {"markersize": 7})
    axes.set_xscale("log")
    decimal_log(axes, [row["adapt_s"] for row in rows])
    axes.set_xlabel("seconds to adapt, median")
    axes.set_ylim(*possible(axes.get_ylim(), rows))
    over(axes, f"{look.score}, %")
    name_at_margin(axes, [(row["method"], row["adapt_s"], row["percent"]) for row in rows], look)
    return figure


def training(rows: Rows, look: Look) -> Any:
    """Losses above; below the validations, where there are any."""
    names = unique(rows, "method")
    both = any(row["percent"] is not None for row in rows)
    low = max(1.5, 0.16 * len(names))
    figure, panels = canvas(*([1.5, low] if both else [low]), right=room(names) + 0.25)
    for axes, key, label in zip(
        panels, ("loss", "percent"), ("loss, nats", "score on validation tasks, %"), strict=False
    ):
        ends = list[tuple[str, float, float]]()
        for name in names:
            mine = [row for row in rows if row["method"] == name and row[key] is not None]
            if mine:
                x, y = ([row[part] for row in mine] for part in ("M_tokens", key))
                axes.plot(x, y, **look.line(name) | ({"marker": ""} if key == "loss" else {}))
                ends.append((name, x[-1], y[-1]))
        over(axes, label)
        axes.locator_params(axis="x", nbins=4)
        crowded = axes is not panels[-1] and len(names) > FEW
        name_at_margin(axes, [end for end in ends if look.strong(end[0]) or not crowded], look)
    panels[-1].set_xlabel("million tokens computed")
    return figure


def calibration(rows: Rows, look: Look) -> Any:
    """On the diagonal an answer is right as often as it is sure. Below, how many answers of ours are how sure."""
    names = unique(rows, "method")
    keys = [name for name in names if look.strong(name)]
    lines = -(-(len(keys) + (len(keys) < len(names))) // 3)
    figure, (axes, below) = canvas(2.5, 0.6, head=0.35 + 0.17 * lines)
    axes.plot([0, 100], [0, 100], color=COLOURS["ink"], linewidth=1, linestyle=(0, (2, 2)))
    for name in [*(name for name in names if not look.strong(name)), *keys]:
        mine = [row for row in rows if row["method"] == name]
        style = look.line(name) if look.strong(name) else {"color": COLOURS["other"], "linewidth": 0.8, "alpha": 0.7}
        label = shortened(name, 14) if look.strong(name) else None
        axes.plot([row["sure"] for row in mine], [row["right"] for row in mine], label=label, **style)
    if len(keys) < len(names):
        axes.plot([], [], color=COLOURS["other"], linewidth=0.8, label="others")
    mine = [row for row in rows if row["method"] == look.sides.ours]
    left = [float(row["bin"].split("-")[0]) for row in mine]
    share = np.array([row["answers"] for row in mine], dtype=float)
    below.bar(left, 100 * share / max(1.0, share.sum()), width=9, align="edge", color=COLOURS["ours"], alpha=0.7)
    for each in (axes, below):
        each.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    over(axes, "answers that are right, %")
    over(below, f"answers of {look.sides.ours}, %")
    below.set_xlabel("probability given to the answer, %")
    figure.legend(loc="upper left", ncols=3, borderaxespad=0.1, columnspacing=1.2, handlelength=1.6)
    return figure


def views(rows: Rows, look: Look) -> Any:
    """How much each view counts, task by task."""
    columns = [name for name in rows[0] if name != "task"]
    return cells([row["task"] for row in rows], columns, [[row[c] for c in columns] for row in rows], "{:.0f}")


def nearest(rows: Rows, look: Look) -> Any:
    """Does it help more where a training task is near?"""
    few = len(rows) <= 12
    names = [row["task"] for row in rows] if few else []
    figure, (axes,) = canvas(2.3, right=room(names, 8) + 0.25 if few else 0.15)
    for row in rows:
        if row["points"] is not None:
            middle, low, high = bars(row, "points")
            axes.plot([row["cosine"]] * 2, [low, high], color=COLOURS["ours"], linewidth=1.1, alpha=0.5)
            axes.plot(row["cosine"], middle, **look.line(look.sides.ours))
    axes.axhline(0, color=COLOURS["ink"], linewidth=1)
    axes.set_xlabel("cosine to the nearest training task")
    over(axes, "difference, points")
    if few:
        name_at_margin(axes, [(r["task"], r["cosine"], r["points"]) for r in rows if r["points"] is not None], look)
    return figure


def confusion(rows: Rows, look: Look) -> Any:
    """Of the rows of each class, the share that was called each class."""
    labels = [row["true class"] for row in rows]
    counts = np.array([[row[label] for label in labels] for row in rows], dtype=float)
    share = 100 * counts / counts.sum(1, keepdims=True).clip(1)
    return cells(labels, labels, share.tolist(), "{:.0f}" if len(labels) <= 10 else "")


# what several drawings share


def unique(rows: Rows, key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


def possible(limits: tuple[float, float], rows: Rows) -> tuple[float, float]:
    """Few support sets have intervals that go beyond what a score can be."""
    least = 0.0 if min(row["percent"] for row in rows) >= 0 else -100.0
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


def whisker(
    axes: Any, place: float, middle: float, low: float, high: float, look: Look, name: str, strength: float = 1.0
) -> None:
    """A dot in its interval."""
    style = look.line(name) | {"alpha": strength}
    axes.plot([low, high], [place] * 2, color=look.colour(name), linewidth=style["linewidth"], alpha=strength)
    axes.plot(middle, place, **style)


def strength(turn: int, count: int) -> float:
    """How dark the `turn`-th of `count` is."""
    return 1.0 if count == 1 else 0.4 + 0.6 * turn / (count - 1)


def beside_of(axes: Any) -> Any:
    """Makes room right of some axes for others, as wide and as high."""
    place = axes.get_position()
    free, gap = 1 - place.x0 - 0.03, 0.05
    width = (free - gap) / 2
    axes.set_position((place.x0, place.y0, width, place.height))
    return axes.figure.add_axes((place.x0 + width + gap, place.y0, width, place.height))


def decimal_log(axes: Any, values: Sequence[float]) -> None:
    """Ticks of a logarithmic axis as plain numbers: up to three of each decade within the values."""
    low, high = 0.7 * min(values), 1.4 * max(values)
    bases = (1, 2, 5) if high < 30 * low else (1,) if high > 1000 * low else (1, 3)
    every = [base * 10.0**power for power in range(-6, 7) for base in bases]
    ticks = [tick for tick in every if low <= tick <= high]
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def cells(rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]], form: str) -> Any:
    """A table of percentages, the higher the darker."""
    small = 8 if len(columns) <= 8 else 6.5
    names = [shortened(name, 16) for name in columns]
    turn = 40 if len(columns) <= 8 else 90
    head = 0.1 + (0.7 if turn == 40 else 1) * room(names, small)
    right = 0.1 + (0.75 * room(names[-1:], small) if turn == 40 else 0)
    figure, (axes,) = canvas(0.22 * len(rows), left=room(rows, 8) + 0.2, head=head, foot=0.1, right=right)
    top = max(max(row) for row in values) or 1.0
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            box = {"facecolor": COLOURS["ours"], "alpha": 0.6 * value / top, "edgecolor": "none"}
            axes.add_patch(rectangle(x, y, 0.96, 0.92, **box))
            if form and (value >= 0.5 or len(columns) <= 8):
                axes.text(x, y, form.format(value), ha="center", va="center", fontsize=small)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks(range(len(columns)), names, rotation=turn, ha="left", rotation_mode="anchor", fontsize=small)
    axes.set_yticks(range(len(rows)), list(map(shortened, rows)), fontsize=8)
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure
