"""Products in the order in which a shopper will like them, learned from a few that are liked and disliked.

Letters: N products, R ticked rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metanlp.core.effort import Effort
from metanlp.core.errors import InputError
from metanlp.core.types import Row, Task
from metanlp.forms import DEFAULT
from metanlp.learner.learner import Adapted, Learner

LIKES = DISLIKED, LIKED = "disliked", "liked"  # the labels of a shopper's task, in the order of their numbers


class Ranked(NamedTuple):
    """A product in its place of a ranking."""

    product: int  # its number in the list, from 0
    score: float  # probability of "liked" against "disliked", or against what stands for it


def learn_taste(
    learner: Learner, liked: Sequence[Row], disliked: Sequence[Row], listed: Sequence[Row], *,
    effort: Effort = "recipe", seed: int = 0,
) -> Adapted:  # fmt: skip
    """Adapts to the ticks of one shopper; `listed` are the products that will be ranked. Raises InputError."""
    if len({"text_a" in row for row in (*liked, *disliked, *listed)}) > 1:
        raise InputError("some products are pairs of texts and some are single texts; give all as one or as the other")
    rows = ticked(liked, disliked, listed, np.random.default_rng(seed))
    task = Task("ticks", {"train": rows}, LIKES, "ticks")
    return learner.adapt_to(task, effort=effort, label_names=False)  # nothing that is liked is about liking


def ticked(
    liked: Sequence[Row], disliked: Sequence[Row], listed: Sequence[Row], rng: np.random.Generator
) -> tuple[Row, ...]:
    """Ticks as labelled rows, repeats left out: (R). Where none is disliked, as many products drawn from the rest of
    the list stand for it: a classifier of liked against unlabelled rows ranks as one of liked against disliked rows
    does, if what is ticked was drawn at random from what is liked (Elkan & Noto 2008, lemma 1). Raises InputError
    without a like, for a text that is ticked on both sides, and where no product is left to stand for dislikes."""
    sides = [{DEFAULT.key(row): row for row in side} for side in (disliked, liked)]
    if not sides[1]:
        raise InputError("nothing is liked yet; tick at least one product that the shopper likes")
    if both := sides[0].keys() & sides[1].keys():
        raise InputError(f"{' | '.join(min(both))[:80]!r} is liked and disliked; leave out one of the two")
    if not sides[0]:
        rest = [row for row in listed if DEFAULT.key(row) not in sides[1]]
        if not rest:
            raise InputError("nothing is disliked and the list has no other product; name one that is disliked")
        drawn = rng.choice(len(rest), min(len(rest), len(sides[1])), replace=False)
        sides[0] = {DEFAULT.key(rest[n]): rest[n] for n in drawn.tolist()}
    return tuple({**row, "label": label} for label, side in enumerate(sides) for row in side.values())


def ranked(adapted: Adapted, products: Sequence[Row]) -> list[Ranked]:
    """The products, best first; equal ones in the order of the list."""
    odds = log_odds(adapted.logits(products))
    chance = 1 / (1 + np.exp(-odds))
    return [Ranked(int(n), float(chance[n])) for n in np.argsort(-odds, kind="stable")]


def log_odds(scores: np.ndarray) -> np.ndarray:
    """By how much "liked" is ahead of "disliked", in nats: (N, 2) -> (N,)."""
    return (scores[:, 1] - scores[:, 0]).astype(np.float64)
