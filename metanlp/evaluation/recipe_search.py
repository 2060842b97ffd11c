"""The adaptation recipe: how far and how fast to adapt, searched on validation tasks, the same way for every method."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from metanlp.algorithms import Algorithm
from metanlp.backbone import Backbone
from metanlp.core.intervals import CLEARLY, as_good
from metanlp.core.types import Weights
from metanlp.evaluation.held_out import HeldOutTask, Support


@dataclass(frozen=True)
class Search:
    """What the search saw."""

    algorithm: Algorithm  # with the chosen settings
    score: float  # mean over the validation trials at these settings: accuracy, or what a form is judged by
    seconds: float
    by_step: dict[int, list[float]]  # inner steps -> the score of each validation trial after them, at the chosen rates


def choose(
    algorithm: Algorithm,
    net: Backbone,
    theta: Weights,
    trials: Sequence[tuple[HeldOutTask, Support]],
    tick: Callable[[], object] = lambda: None,
) -> Search:
    """Of at most 16 settings the first of the method's `recipes`, with as many steps as it was trained with, unless it
    is clearly worse than the best; else the one with fewest steps and smallest rates that is no worse: moving far is a
    risk."""
    begun = time.perf_counter()
    recipes = algorithm.recipes()
    preferred = replace(recipes[0], inner=algorithm.inner)
    found: list[tuple[Algorithm, np.ndarray, dict[int, list[float]]]] = []
    for setting in recipes:
        by_step = score_by_step(setting, net, theta, trials, steps_to_try(algorithm), tick)
        found += [
            (replace(setting, inner=replace(setting.inner, steps=step)), np.array(each), by_step)
            for step, each in by_step.items()
        ]
    found.sort(key=lambda item: (item[0] != preferred, item[0].inner.steps, item[0].inner.lr))
    best = max((each for _, each, _ in found), key=lambda each: float(each.mean()))
    errors = {preferred: CLEARLY}
    chosen, each, by_step = next(item for item in found if as_good(item[1], best, errors.get(item[0], 1.0)))
    return Search(chosen, float(each.mean()), time.perf_counter() - begun, by_step)


def steps_to_try(algorithm: Algorithm) -> set[int]:
    """Numbers of inner steps that are read off one trajectory, the method's own among them."""
    own = algorithm.inner.steps
    return {0, 1, own if own > 1 else 2, 5}


def score_by_step(
    algorithm: Algorithm,
    net: Backbone,
    theta: Weights,
    trials: Sequence[tuple[HeldOutTask, Support]],
    steps: Collection[int],
    tick: Callable[[], object] = lambda: None,
) -> dict[int, list[float]]:
    """Inner steps, of those asked for that the algorithm takes -> the score of every trial after them."""
    found: dict[int, list[float]] = {}
    for held_out, support in trials:
        for step, phi in algorithm.adapting(net, theta, support.batch, steps):
            found.setdefault(step, []).append(held_out.score(algorithm, phi, support))
        tick()
    return found
