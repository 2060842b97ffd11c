"""What a teacher looks at: mastery by skill, what to practise next, who falls behind, the class's learning curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metanlp.core.intervals import Interval
from metanlp.episodes.traces import History
from metanlp.evaluation.mastery import Mastery
from metanlp.evaluation.traces import Score, bootstrap

LATELY = 10  # answers, the last ones, whose skills are what a student works on
ATTEMPTS = 8  # of the learning curve
DRAWS = 500  # of students, for the intervals of what is counted here


@dataclass(frozen=True)
class Chance:
    """Of a right answer of one student on one skill."""

    skill: str
    chance: Interval
    answers: int  # of the student on the skill, so far


@dataclass(frozen=True)
class Pupil:
    """One student after all answers that there are."""

    name: str
    answers: int
    success: Interval  # mean chance on the skills of the latest answers; the ends are the mean ones
    skills: tuple[Chance, ...]  # those asked so far, the least mastered first
    practise: tuple[Chance, ...]  # skills of the class nearest to the wanted chance of success


def pupil(
    history: History, model: Mastery, names: Sequence[str], offered: np.ndarray, target: float, practise: int
) -> Pupil:
    """What the model says of a student; `offered` are the numbers of the skills that may be practised."""
    p, low, high = model.all_skills(history)
    counts = np.bincount(history.student.skills, minlength=len(p))

    def chances(skills: np.ndarray) -> tuple[Chance, ...]:
        each = [(int(n), Interval(float(p[n]), float(low[n]), float(high[n]))) for n in skills]
        return tuple(Chance(names[n], found, int(counts[n])) for n, found in each)

    met, lately = np.flatnonzero(counts), history.student.skills[-LATELY:]
    nearest = offered[np.argsort(np.abs(p[offered] - target), kind="stable")][:practise]
    now = Interval(*(float(each[lately].mean()) for each in (p, low, high)))
    return Pupil(history.student.name, len(history.student), now, chances(met[np.argsort(p[met])]), chances(nearest))


def learning_curve(histories: Sequence[History], seed: int) -> list[dict[str, float]]:
    """Share of right answers at the first, second, … answer on a skill, over pairs of student and skill with at least
    `ATTEMPTS` answers: the same pairs at each, as those who stop early are others. [] where there is none."""
    right, owner = list[np.ndarray](), list[int]()
    for number, history in enumerate(histories):
        for skill in np.unique(history.student.skills):
            each = history.student.right[history.student.skills == skill]
            if len(each) >= ATTEMPTS:
                right.append(each[:ATTEMPTS])
                owner.append(number)
    if not right:
        return []
    weights, table = bootstrap(len(histories), DRAWS, seed)[:, owner], np.array(right, dtype=float)
    with np.errstate(invalid="ignore"):
        draws = weights @ table / weights.sum(1, keepdims=True)
    scores = [Score(float(table[:, n].mean()), draws[:, n]).interval for n in range(ATTEMPTS)]
    return [
        {"attempt": n, "percent": 100 * s.mean, "low": 100 * (s.low or 0.0), "high": 100 * (s.high or 0.0)}
        for n, s in enumerate(scores, start=1)
    ]


@dataclass(frozen=True)
class Warned:
    """How students did who were warned of after `LATELY` answers, on as many that followed, and how the others did."""

    warned: int
    others: int
    warned_right: Interval | None  # share of right answers; None where there is nobody
    others_right: Interval | None


def warned_rightly(histories: Sequence[History], model: Mastery, warn: float, seed: int) -> Warned:
    """Of students with enough answers."""
    able = [history for history in histories if len(history.student) >= 2 * LATELY]
    said = np.array([success(History.of(each.student.first(LATELY)), model) for each in able])
    then = np.array([each.student.right[LATELY : 2 * LATELY].mean() for each in able])
    sides = [then[said < warn], then[said >= warn]] if able else [then, then]
    return Warned(len(sides[0]), len(sides[1]), *(_mean(side, seed) for side in sides))


def success(history: History, model: Mastery) -> float:
    """Mean chance on the skills of the latest answers."""
    return float(model.all_skills(history)[0][history.student.skills[-LATELY:]].mean())


def _mean(shares: np.ndarray, seed: int) -> Interval | None:
    if not len(shares):
        return None
    drawn = bootstrap(len(shares), DRAWS, seed)
    return Score(float(shares.mean()), drawn @ shares / len(shares)).interval
