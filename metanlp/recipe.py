"""The adaptation recipe: how far and how fast to adapt, searched on validation tasks, the same way for every method."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from metanlp.algorithms import Algorithm
from metanlp.backbone import Backbone
from metanlp.exams import Exam, Support
from metanlp.metrics import as_good
from metanlp.types import Weights

STEPS = (0, 1, 2, 5)  # read off one trajectory


@dataclass(frozen=True)
class Search:
    """What the search saw. `curve` holds the accuracy on validation tasks by inner step, at the chosen rates."""

    algorithm: Algorithm  # with the chosen settings
    accuracy: float  # on the validation trials, at these settings
    tried: int  # settings compared
    seconds: float
    curve: dict[int, float] = field(default_factory=dict)  # steps -> accuracy


def choose(
    algorithm: Algorithm,
    net: Backbone,
    theta: Weights,
    trials: Sequence[tuple[Exam, Support]],
    tick: Callable[[], object] = lambda: None,
) -> Search:
    """Of at most 12 settings the one with fewest steps and smallest rates whose mean accuracy is as good as the best:
    moving far is a risk."""
    begun = time.perf_counter()
    found: list[tuple[Algorithm, np.ndarray, dict[int, float]]] = []
    for setting in algorithm.recipes():
        by_step = accuracy_by_step(setting, net, theta, trials, tick)
        curve = {step: float(np.mean(each)) for step, each in by_step.items()}
        found += [
            (replace(setting, inner=replace(setting.inner, steps=step)), np.array(each), curve)
            for step, each in by_step.items()
        ]
    found.sort(key=lambda item: (item[0].inner.steps, item[0].inner.lr))
    best = max((each for _, each, _ in found), key=lambda each: float(each.mean()))
    chosen, each, curve = next(item for item in found if as_good(item[1], best))
    return Search(chosen, float(each.mean()), len(found), time.perf_counter() - begun, curve)


def accuracy_by_step(
    algorithm: Algorithm,
    net: Backbone,
    theta: Weights,
    trials: Sequence[tuple[Exam, Support]],
    tick: Callable[[], object] = lambda: None,
) -> dict[int, list[float]]:
    """Accuracy of every trial after each number of inner steps that is read off."""
    found: dict[int, list[float]] = {}
    for exam, support in trials:
        for step, phi in algorithm.adapting(net, theta, support.batch, STEPS):
            found.setdefault(step, []).append(accuracy(exam, support, exam.probabilities(algorithm, phi)))
        tick()
    return found


def accuracy(exam: Exam, support: Support, probabilities: np.ndarray) -> float:
    """Share of right answers among the query rows that count with this support set."""
    right = probabilities.argmax(1) == exam.targets
    return float(right[~support.excluded].mean())


def describe(algorithm: Algorithm) -> dict[str, object]:
    """The settings that a reader of the results wants to know."""
    return {key: value for key, value in asdict(algorithm).items() if key not in ("classes", "head")}
