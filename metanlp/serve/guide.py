"""What the shopping page computes and shows, without any gradio: a ranking from ticks, its changes and its reasons.

Letters: N products, R ticks, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from metanlp.core.errors import InputError
from metanlp.core.types import Row
from metanlp.learner.learner import Learner
from metanlp.learner.ranking import LIKES, learn_taste, ranked
from metanlp.serve.result_html import LONGEST, percent
from metanlp.serve.textbox import MOST_ROWS, shown
from metanlp.serve.trial import features

SHOWN = 40  # places of the ranking that the page shows
STYLE = """
#liked .wrap, #disliked .wrap {max-height: 24rem; overflow-y: auto}
.places {border-collapse: collapse; width: 100%; border: 0 !important}
.places td {padding: .3rem .5rem .3rem 0 !important; vertical-align: top; overflow-wrap: anywhere; border: 0 !important;
    border-bottom: 1px solid #8884 !important}
.places td:first-child, .places td:nth-child(2), .places td:nth-child(3) {white-space: nowrap}
.places tr, .places tbody {border: 0 !important}
.places small {opacity: .8}
"""


class Place(NamedTuple):
    """A product in the ranking."""

    product: int  # its number in the list, from 0
    score: float | None = None  # None before anything is ticked
    up: int = 0  # places that it has risen since the last ranking
    because: str = ""  # the tick whose adapted features are nearest to its own, with their cosine


def in_order(products: Sequence[Row]) -> list[Place]:
    """The list as it came. Raises InputError for more products than a page can rank while somebody waits."""
    if len(products) > MOST_ROWS:
        raise InputError(
            f"{len(products):,} products are more than the {MOST_ROWS:,} that this page takes; use `metanlp rank`"
        )
    return [Place(number) for number in range(len(products))]


def placed(
    learner: Learner, products: Sequence[Row], liked: Sequence[int], disliked: Sequence[int], before: Sequence[Place]
) -> list[Place]:
    """The ranking for somebody who ticked these products. `before` is the last one. Raises InputError."""
    if not liked and not disliked:
        return in_order(products)
    adapted = learn_taste(learner, [products[n] for n in liked], [products[n] for n in disliked], products)
    order, was = ranked(adapted, products), {place.product: number for number, place in enumerate(before)}
    seen, ticks = order[:SHOWN], [*liked, *disliked]
    cosines = features(adapted, [products[n] for n, _ in seen]) @ features(adapted, [products[n] for n in ticks]).T
    words = [f"like “{brief(products[n])}”, {LIKES[n in liked]}" for n in ticks]
    best = [(int(row.argmax()), float(row.max())) for row in cosines]
    reasons = {
        n: "" if n in ticks else f"{words[tick]} ({cosine:.2f})"
        for (n, _), (tick, cosine) in zip(seen, best, strict=True)
    }
    return [Place(n, score, was.get(n, number) - number, reasons.get(n, "")) for number, (n, score) in enumerate(order)]


def choices(products: Sequence[Row], places: Sequence[Place], ticked: Sequence[int]) -> list[tuple[str, int]]:
    """What can be ticked: the first places, and whatever is ticked already; each with the product's number."""
    numbers = [place.product for place in places[:SHOWN]]
    return [(brief(products[n]), n) for n in (*numbers, *(n for n in ticked if n not in numbers))]


def table(products: Sequence[Row], places: Sequence[Place]) -> str:
    """The first places as HTML: place, change, score, product and reason. All text is escaped."""
    rows = "".join(
        f"<tr><td>{number}</td><td>{moved(place.up)}</td><td>{'' if place.score is None else percent(place.score)}</td>"
        f"<td>{escape(shown(products[place.product].values())[:LONGEST])}<br><small>{escape(place.because)}</small></td>"
        "</tr>"
        for number, place in enumerate(places[:SHOWN], start=1)
    )
    more = len(places) - SHOWN
    rest = f"<p><small>and {more:,} more</small></p>" if more > 0 else ""
    return f"<table class=places>{rows}</table>{rest}"


def moved(up: int) -> str:
    """How far a product rose or fell."""
    return f"▲ {up}" if up > 0 else f"▼ {-up}" if up < 0 else ""


def brief(row: Row) -> str:
    """A product on half a line."""
    text = shown(row.values())
    return text if len(text) <= LONGEST // 2 else f"{text[: LONGEST // 2]} …"
