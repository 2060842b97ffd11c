"""Answers predicted in their order, and how well: area under the curve and accuracy, by window of positions.

Letters: B bootstrap draws, S students.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from metanlp.algorithms import Algorithm
from metanlp.algorithms.base import Net
from metanlp.algorithms.inner import InnerLoop
from metanlp.core.errors import InputError
from metanlp.core.intervals import Interval
from metanlp.core.types import Batch, Weights
from metanlp.core.weights import pick
from metanlp.episodes.traces import History, packed
from metanlp.evaluation.mastery import loss
from metanlp.forms.metrics import auc

TOGETHER = 16  # students in one pass
STEPS = (0, 1, 3, 8)  # inner steps that the search tries, read off one trajectory
FACTORS = (0.3, 1.0, 3.0)  # on the inner rates of training, that the search tries


@dataclass(frozen=True)
class Window:
    """Answers from the `first` to the `last`, counted from 1; a method adapts to those before the first."""

    first: int
    last: int

    @property
    def known(self) -> int:
        """k, answers before the window."""
        return self.first - 1

    def __str__(self) -> str:
        return f"{self.first}–{self.last}"


def by_steps(
    algorithm: Algorithm, net: Net, theta: Weights, histories: Sequence[History], window: Window, steps: Collection[int]
) -> dict[int, list[np.ndarray]]:
    """By number of inner steps, the probability of each answer in the window to be right: an array a student, empty for
    those with too few. The first k answers adapt the method; later ones count as what came before, and no more."""
    found: dict[int, list[np.ndarray]] = {}
    for group, query in asked(histories, window):
        support = packed([(histories[n], slice(0, window.known)) for n in group])
        for step, phi in algorithm.adapting(net, theta, support, steps):
            with torch.no_grad():
                scores = algorithm.scores(net, phi, query)
            _put(found.setdefault(step, [np.zeros(0)] * len(histories)), group, scores, query)
    return found


def unadapted(
    algorithm: Algorithm, net: Net, theta: Weights, histories: Sequence[History], window: Window
) -> list[np.ndarray]:
    """The same from θ alone: a student's own answers count as what came before, and adapt nothing."""
    found = [np.zeros(0)] * len(histories)
    for group, query in asked(histories, window):
        with torch.no_grad():
            features = net.features(pick(theta, "lora/"), query)
            scores = torch.as_tensor(algorithm.head.known(theta, features, query))
        _put(found, group, scores, query)
    return found


def asked(histories: Sequence[History], window: Window) -> Iterator[tuple[list[int], Batch]]:
    """Students with answers in the window, by number, a few at a time, and these answers."""
    able = [n for n, history in enumerate(histories) if len(history.student) > window.known]
    for at in range(0, len(able), TOGETHER):
        group = able[at : at + TOGETHER]
        yield group, packed([(histories[n], slice(window.known, window.last)) for n in group])


def _put(found: list[np.ndarray], group: Sequence[int], scores: Tensor, query: Batch) -> None:
    p, sizes = scores.softmax(1)[:, 1].double().numpy(), np.bincount(query.task_of.numpy(), minlength=len(group))
    for n, each in zip(group, np.split(p, np.cumsum(sizes)[:-1]), strict=True):
        found[n] = each


def searched(algorithm: Algorithm, net: Net, theta: Weights, choose: Sequence[History], window: Window) -> Algorithm:
    """With the inner steps and rates that predict the choosing students best in this window."""
    reached = any(len(history.student) > window.known for history in choose)
    if not isinstance(algorithm, InnerLoop) or not algorithm.inner.steps or not reached:
        return algorithm
    own, found = algorithm.inner, list[tuple[float, Algorithm]]()
    for factor in FACTORS:
        inner = replace(own, steps=max(*STEPS, own.steps), lr=factor * own.lr, head_lr=factor * own.head_lr)
        tried = replace(algorithm, inner=inner)
        for step, each in by_steps(tried, net, theta, choose, window, {*STEPS, own.steps}).items():
            cost = float(np.nan_to_num(loss(choose, each, window.known), nan=np.inf))
            found.append((cost, replace(algorithm, inner=replace(inner, steps=step))))
    return min(found, key=lambda item: item[0])[1]


@dataclass(frozen=True)
class Score:
    """A number and what it would be with other students: bootstrap over students, whose answers hang together."""

    value: float
    draws: np.ndarray  # (B,) the same draws of students for all methods

    def __sub__(self, other: Score) -> Score:
        return Score(self.value - other.value, self.draws - other.draws)

    @property
    def interval(self) -> Interval:
        """Percentiles of the draws: 95 %."""
        if not len(self.draws):
            return Interval(self.value, None, None)
        low, high = np.nanpercentile(self.draws, [2.5, 97.5])
        return Interval(self.value, float(low), float(high))


def judged(
    histories: Sequence[History], predictions: Sequence[np.ndarray], window: Window, drawn: np.ndarray
) -> dict[str, Score]:
    """AUC and accuracy over all answers of a window; `drawn` (B, S) is how often each draw has each student. Raises
    InputError where no student is right there, or none wrong."""
    sizes = [len(each) for each in predictions]
    p, owner = np.concatenate(predictions), np.repeat(np.arange(len(histories)), sizes)
    right = np.concatenate([h.student.right[window.known :][:n] for h, n in zip(histories, sizes, strict=True)])
    if not len(p) or right.all() or not right.any():
        raise InputError(
            f"answers {window} of the students who judge are {len(right)}, of which {int(right.sum())} are right; "
            "give more students, or longer traces"
        )
    level, hits = np.unique(p, return_inverse=True)[1], (p > 0.5) == right
    with np.errstate(invalid="ignore"):  # a draw may have only right answers, or none
        areas = np.array([auc(level, right, each[owner]) for each in drawn])
        shares = (drawn @ np.bincount(owner, hits, len(histories))) / (drawn @ np.array(sizes))
    return {
        "auc": Score(auc(level, right, np.ones(len(p))), areas),
        "accuracy": Score(float(hits.mean()), shares),
    }


def bootstrap(students: int, draws: int, seed: int) -> np.ndarray:
    """How often each of so many draws has each student: (B, S)."""
    return np.random.default_rng(seed).multinomial(students, np.full(students, 1 / students), draws).astype(float)
