"""The adaptation recipe: how far and how fast to adapt, searched on validation tasks, the same way for every method."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from metanlp.algorithms import Algorithm
from metanlp.backbone import Backbone
from metanlp.exams import Exam, Support
from metanlp.metrics import as_good
from metanlp.types import Weights


@dataclass(frozen=True)
class Search:
    """What the search saw."""

    algorithm: Algorithm  # with the chosen settings
    score: float  # mean over the validation trials at these settings: accuracy, or what a form is judged by
    tried: int  # settings compared
    seconds: float
    # Inner steps -> the score of each validation trial after them, at the chosen rates.
    by_step: dict[int, list[float]] = field(default_factory=dict)

    @property
    def curve(self) -> dict[int, float]:
        """Inner steps -> mean score."""
        return {step: float(np.mean(each)) for step, each in self.by_step.items()}


def choose(
    algorithm: Algorithm,
    net: Backbone,
    theta: Weights,
    trials: Sequence[tuple[Exam, Support]],
    tick: Callable[[], object] = lambda: None,
) -> Search:
    """Of at most 12 settings the method's own, as it was trained, unless it is worse than the best; else the one with
    fewest steps and smallest rates that is not: moving far is a risk."""
    begun = time.perf_counter()
    found: list[tuple[Algorithm, np.ndarray, dict[int, list[float]]]] = []
    for setting in algorithm.recipes():
        by_step = score_by_step(setting, net, theta, trials, steps_to_try(algorithm), tick)
        found += [
            (replace(setting, inner=replace(setting.inner, steps=step)), np.array(each), by_step)
            for step, each in by_step.items()
        ]
    found.sort(key=lambda item: (item[0] != algorithm, item[0].inner.steps, item[0].inner.lr))
    best = max((each for _, each, _ in found), key=lambda each: float(each.mean()))
    chosen, each, by_step = next(item for item in found if as_good(item[1], best))
    return Search(chosen, float(each.mean()), len(found), time.perf_counter() - begun, by_step)


def steps_to_try(algorithm: Algorithm) -> set[int]:
    """Numbers of inner steps that are read off one trajectory, the method's own among them."""
    own = algorithm.inner.steps
    return {0, 1, own if own > 1 else 2, 5}


def score_by_step(
    algorithm: Algorithm,
    net: Backbone,
    theta: Weights,
    trials: Sequence[tuple[Exam, Support]],
    steps: Collection[int],
    tick: Callable[[], object] = lambda: None,
) -> dict[int, list[float]]:
    """Score of every trial after those of these numbers of inner steps that the algorithm takes."""
    found: dict[int, list[float]] = {}
    for exam, support in trials:
        for step, phi in algorithm.adapting(net, theta, support.batch, steps):
            found.setdefault(step, []).append(exam.score(algorithm, phi, support))
        tick()
    return found


def describe(algorithm: Algorithm) -> dict[str, object]:
    """The settings that a reader of the results wants to know."""
    return {key: value for key, value in asdict(algorithm).items() if key not in ("classes", "head")}
