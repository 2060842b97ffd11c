"""Simulated shoppers: how well products are ranked for somebody who ticked a few. NDCG@10 and AUC on products that were
not ticked.

A shopper here is somebody who likes one class of products, or well-reviewed products of one category, and nothing else.
Real tastes are neither so sharp nor so simple, and nobody clicked: what this shows is how fast a ranking follows ticks.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metanlp.core.errors import InputError
from metanlp.core.intervals import Interval, bootstrap
from metanlp.core.torch_modes import own_modes
from metanlp.core.types import Row, Task
from metanlp.evaluation.external import ExternalBaseline
from metanlp.evaluation.held_out import HeldOutTask, Protocol
from metanlp.evaluation.meta_test import examine
from metanlp.forms import FORMS
from metanlp.learner.learner import Learner
from metanlp.learner.ranking import LIKES, log_odds, ticked

BOTH, ALONE = SIDES = ("likes and dislikes", "likes alone")
CHANCE = "by chance"  # a ranking that knows nothing
LIKED_SHARE = 0.2  # of the products that are ranked
TOP = 10  # places that NDCG looks at
METRICS = ("ndcg@10", "auc")


@dataclass(frozen=True)
class Market:
    """What simulated shoppers do."""

    ticks: tuple[int, ...] = (4, 8, 16)  # products that a shopper ticks, half of them liked where there are dislikes
    draws: int = 5  # times that each shopper ticks anew
    listed: int = 100  # products that are ranked for each, a fifth of them liked
    praise: str = "positive"  # the label of well-reviewed products
    seed: int = 0  # of everything that is drawn

    def __post_init__(self) -> None:
        if (
            not self.ticks
            or min(self.ticks) < 2
            or any(k % 2 for k in self.ticks)
            or self.draws < 1
            or self.listed < 10
        ):
            raise InputError(
                f"--ticks {' '.join(map(str, self.ticks))} are even numbers from 2 up, --draws {self.draws} is from 1 "
                f"up, --listed {self.listed} from {TOP} up"
            )


@dataclass(frozen=True)
class Side:
    """Products of a shopper, liked or not."""

    ticked: Sequence[Row]  # of which some are ticked
    listed: Sequence[Row]  # of which some are ranked


@dataclass(frozen=True)
class Shopper:
    """One taste as a task: its query rows are the list, its support sets ticks, of each of `SIDES` as many in turn."""

    name: str
    task: Task


@dataclass(frozen=True)
class Cell:
    """One method for one shopper with so many ticks: a number for each time that the shopper ticked anew."""

    method: str
    shopper: str
    sides: str
    ticks: int
    values: Mapping[str, tuple[float, ...]]  # by metric


@dataclass(frozen=True)
class Rankings:
    """All cells. Intervals are bootstrapped over shoppers, as one shopper's draws share a taste."""

    cells: tuple[Cell, ...]

    def names(self, field: str) -> tuple[str, ...]:
        """The different methods, shoppers or sides, in their order."""
        return tuple(dict.fromkeys(getattr(cell, field) for cell in self.cells))

    @property
    def ticks(self) -> tuple[int, ...]:
        return tuple(sorted({cell.ticks for cell in self.cells}))

    def score(self, method: str, sides: str, ticks: int, metric: str) -> Interval:
        """The mean over shoppers."""
        return bootstrap(self._by_shopper(method, sides, ticks, metric))

    def difference(self, one: str, other: str, sides: str, ticks: int, metric: str) -> Interval:
        """`one` less `other` on the same ticks and products."""
        return bootstrap(self._by_shopper(one, sides, ticks, metric) - self._by_shopper(other, sides, ticks, metric))

    def _by_shopper(self, method: str, sides: str, ticks: int, metric: str) -> np.ndarray:
        asked = (method, sides, ticks)
        return np.array([np.mean(c.values[metric]) for c in self.cells if (c.method, c.sides, c.ticks) == asked])


def shoppers_of(tasks: Sequence[Task], market: Market) -> list[Shopper]:
    """A shopper a class, of tasks of three classes or more; and of tasks of reviews, one a category, a shopper each who
    likes its well-reviewed products, and neither its others nor those of other categories. Pairs of texts are no
    products. Raises InputError where there is no shopper."""
    single = [task for task in tasks if FORMS[task.form].single_label and "text" in task.pools["train"][0]]
    reviews = {task.name: by_class(task, market) for task in single if {market.praise} < {*task.labels}}
    classes = {task.name: by_class(task, market) for task in single if task.name not in reviews and task.labels[2:]}
    tastes = {
        f"{name}, {label}": (side, joined(others for each, others in sides.items() if each != label))
        for name, sides in classes.items()
        for label, side in sides.items()
    }
    for name, sides in reviews.items():
        others = joined(side for label, side in sides.items() if label != market.praise)
        elsewhere = joined(side for other, its in reviews.items() if other != name for side in its.values())
        tastes[f"{name}, well-reviewed"] = sides[market.praise], halves(others, elsewhere, market, name)
    if not tastes:
        raise InputError(
            f"no shopper can be made of {', '.join(task.name for task in tasks)}: give --test a task of three classes "
            f"of products or more, or tasks of reviews with the label {market.praise!r}, which --praise names"
        )
    found = [made for name, taste in tastes.items() if (made := ticking(name, *taste, market))]
    if not found:
        most = max(len(liked.ticked) for liked, _ in tastes.values())
        raise InputError(
            f"no class of {', '.join(reviews | classes)} has {max(market.ticks)} products to tick beside those that "
            f"are ranked, the largest {most}; lower --ticks, or give more rows"
        )
    return found


def by_class(task: Task, market: Market) -> dict[str, Side]:
    """The products of each label; where the task has no test rows, one half of its rows is ticked, the other ranked."""
    rows = task.pools["train"]
    order = rng_of(market, task.name).permutation(len(rows)).tolist()
    middle = len(rows) // 2
    ticked_rows = rows if "test" in task.pools else [rows[n] for n in order[:middle]]
    listed = task.pools.get("test", [rows[n] for n in order[middle:]])
    return {
        label: Side(*([row for row in side if row["label"] == number] for side in (ticked_rows, listed)))
        for number, label in enumerate(task.labels)
    }


def joined(sides: Iterator[Side]) -> Side:
    """The products of all."""
    every = list(sides)
    return Side(*([row for side in every for row in getattr(side, part)] for part in ("ticked", "listed")))


def halves(one: Side, other: Side, market: Market, name: str) -> Side:
    """As many products of one side as of the other."""
    rng, parts = rng_of(market, name, 1), list[list[Row]]()
    for first, second in ((one.ticked, other.ticked), (one.listed, other.listed)):
        count = min(len(first), len(second)) or max(len(first), len(second))
        parts.append([*chosen(first, count, rng), *chosen(second, count, rng)])
    return Side(*parts)


def ticking(name: str, liked: Side, others: Side, market: Market) -> Shopper | None:
    """The shopper, who says what is liked and what is not, and then says anew only what is liked; None where there are
    too few products."""
    share, most = round(LIKED_SHARE * market.listed), max(market.ticks)
    if len(liked.ticked) < most or len(others.ticked) < most // 2 or len(liked.listed) < 2 or not others.listed:
        return None
    rng = rng_of(market, name, 2)
    listed = [{**row, "label": 1} for row in chosen(liked.listed, share, rng)]
    listed += [{**row, "label": 0} for row in chosen(others.listed, market.listed - share, rng)]
    supports = {
        k: tuple(
            ticks(liked, others, listed, k, sides, rng_of(market, name, 3 + number, k, draw))
            for number, sides in enumerate(SIDES)
            for draw in range(market.draws)
        )
        for k in market.ticks
    }
    pools = {"train": supports[most][0], "test": tuple(listed)}
    return Shopper(name, Task(name, pools, LIKES, "simulated", supports=supports))


def ticks(
    liked: Side, others: Side, listed: Sequence[Row], count: int, sides: str, rng: np.random.Generator
) -> tuple[Row, ...]:
    """One shopper's ticks, drawn anew."""
    each = count if sides == ALONE else count // 2
    disliked = [] if sides == ALONE else chosen(others.ticked, each, rng)
    return ticked(chosen(liked.ticked, each, rng), disliked, listed, rng)


def chosen(rows: Sequence[Row], count: int, rng: np.random.Generator) -> list[Row]:
    """At most so many of the rows, in a random order."""
    return [rows[n] for n in rng.permutation(len(rows))[:count].tolist()]


def rng_of(market: Market, name: str, *which: int) -> np.random.Generator:
    """The same draws for (seed, name), whatever else is asked; crc32 as in `HeldOutTask`."""
    return np.random.default_rng([market.seed, zlib.crc32(name.encode()), *which])


@own_modes()
def rank_for(
    shoppers: Sequence[Shopper], methods: Mapping[str, Learner | ExternalBaseline], market: Market,
    tick: Callable[[], object] = lambda: None,
) -> Rankings:  # fmt: skip
    """Every method ranks for every shopper, on the same ticks and products; what a support set holds is not ranked.
    `tick` is called after every (shopper, method)."""
    protocol = Protocol(market.ticks, len(SIDES) * market.draws, drop_repeats=True, seed=market.seed)
    first = next(method.encoder for method in methods.values() if isinstance(method, Learner))
    cells = list[Cell]()
    for shopper in shoppers:
        held_out = dict[int, HeldOutTask]()  # by backbone
        for name, method in methods.items():
            net = method.encoder if isinstance(method, Learner) else first
            held = held_out.setdefault(id(net), HeldOutTask(shopper.task, net, protocol))
            cells += cells_of(name, shopper, method, held)
            tick()
        cells += cells_of(CHANCE, shopper, None, held_out[id(first)])
    return Rankings(tuple(cells))


def cells_of(
    name: str, shopper: Shopper, method: Learner | ExternalBaseline | None, held_out: HeldOutTask
) -> Iterator[Cell]:
    """One method for one shopper; None ranks nothing above anything."""
    found, draws = dict[tuple[str, int], list[tuple[float, float]]](), held_out.protocol.episodes // len(SIDES)
    for support in held_out.supports:
        scored = examine(method, held_out, support)[2] if method else None
        counted = np.flatnonzero(~support.excluded)
        odds = log_odds(scored.of(counted).values) if scored else np.zeros(len(counted))
        liked = np.array([held_out.rows[n]["label"] for n in counted])
        if 0 < liked.sum() < len(liked):  # else all that is liked, or all that is not, was ticked: there is no order
            found.setdefault((SIDES[support.number // draws], support.shots), []).append(judged(liked, odds))
    for (sides, k), each in found.items():
        yield Cell(name, shopper.name, sides, k, dict(zip(METRICS, zip(*each, strict=True), strict=True)))


def judged(liked: np.ndarray, odds: np.ndarray) -> tuple[float, float]:
    """NDCG@10 and AUC of a ranking by `odds`, (N,), of products that are liked or not; equal ones count as in the mean
    over their orders."""
    from sklearn.metrics import ndcg_score, roc_auc_score

    return float(ndcg_score([liked], [odds], k=TOP)), float(roc_auc_score(liked, odds))
