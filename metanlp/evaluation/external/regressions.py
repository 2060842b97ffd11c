"""What knowledge tracing has to beat: a running mean, Elo, item response theory, and regressions on counts.

Every baseline learns from teaching students, chooses its one setting by the loss on choosing students, and then gives
the probability of each answer of a new student from those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from metanlp.episodes.traces import History
from metanlp.evaluation.mastery import Mastery, loss, sigmoid

Histories = Sequence[History]
Predict = Callable[[History], np.ndarray]
"""The probability of each of a student's first answers to be right, from those before it: (n,)."""
Matrix = Any
"""A scipy.sparse.csr_matrix."""

STRENGTHS = (0.1, 0.3, 1.0)  # inverse ones of the L2 penalty, that are tried
STEPS = (0.2, 0.4, 0.8)  # of Elo, that are tried
FADING = 0.05  # how fast Elo's steps shrink with the answers that a rating has seen (Pelánek 2016, §3.3)
BEGUN = 2.0  # answers that the mean of all students counts for, where a student has a running mean


@dataclass(frozen=True)
class Given:
    """What baselines learn from."""

    teach: Histories
    choose: Histories
    cosines: np.ndarray  # (S, S) of the names of all skills
    most: int  # answers of a student that are predicted
    seed: int = 0

    @property
    def skills(self) -> int:
        return len(self.cosines)

    def best(self, tried: Sequence[Predict]) -> Predict:
        """The one with the least loss on the choosing students."""
        return min(tried, key=lambda predict: loss(self.choose, [predict(each) for each in self.choose]))


def running_mean(given: Given) -> Predict:
    """The share of right answers so far, begun with the mean of all students."""
    mean = np.concatenate([each.student.right for each in given.teach]).mean()

    def predict(history: History) -> np.ndarray:
        right, wrong = history.counts[: given.most, 2:].T
        return (right + BEGUN * mean) / (right + wrong + BEGUN)

    return predict


def elo(given: Given) -> Predict:
    """A student plays against a skill, and the ratings of both move by what the answer says beyond what was expected
    (Pelánek 2016)."""
    return given.best([_elo(given, step) for step in STEPS])


def _elo(given: Given, step: float) -> Predict:
    ease, seen = np.zeros(given.skills), np.zeros(given.skills)

    def play(history: History, most: int | None, learns: bool) -> np.ndarray:
        able, found = 0.0, list[float]()
        for at, (skill, right) in enumerate(zip(history.student.skills[:most], history.student.right, strict=False)):
            found.append(float(sigmoid(able + ease[skill])))
            able += step / (1 + FADING * at) * (right - found[-1])
            if learns:
                ease[skill] += step / (1 + FADING * seen[skill]) * (right - found[-1])
                seen[skill] += 1
        return np.array(found)

    for history in given.teach:
        play(history, None, True)
    return lambda history: play(history, given.most, False)


def rasch(given: Given) -> Mastery:
    """Ability and ease as a one-hot logistic regression on the teaching students."""
    students = np.repeat(np.arange(len(given.teach)), [len(each.student) for each in given.teach])
    skills, right = joined(given.teach)
    columns = csr([one_hot(students, len(given.teach)), one_hot(skills, given.skills)])
    fitted: Any = LogisticRegression(C=1.0, max_iter=300).fit(columns, right)
    ease = fitted.coef_[0, len(given.teach) :] + fitted.intercept_[0]
    return Mastery(ease, given.cosines, most=given.most)


def irt(given: Given) -> Mastery:
    """A new student's ability is the most probable one, given the answers so far."""
    return rasch(given).chosen(given.choose, skills_too=False)


def mastery(given: Given) -> Mastery:
    """The same with a student's own on each skill."""
    return rasch(given).chosen(given.choose, skills_too=True)


def pfa(given: Given) -> Predict:
    """Performance factors (Pavlik, Cen & Koedinger 2009): each skill's ease, and weights of its own on the numbers of
    right and wrong answers on it."""
    return _regression(given, lambda h, hot: [hot, *(scaled(hot, h.counts[:, n]) for n in (0, 1))])


def best_lr(given: Given) -> Predict:
    """Gervet et al. 2020: PFA with logarithms of counts, with weights that all skills share beside those of each, and
    with the same counts over all skills. A new student has no ability of his own but by these."""
    return _regression(given, best_lr_columns)


def best_lr_recent(given: Given) -> Predict:
    """Best-LR that also reads how the latest answers went: all that the networks here read."""
    return _regression(given, lambda h, hot: [*best_lr_columns(h, hot), sparse.csr_matrix(h.recent)])


def best_lr_columns(history: History, hot: Matrix) -> list[Matrix]:
    logs = np.log1p(history.counts)
    return [hot, *(scaled(hot, logs[:, n]) for n in (0, 1)), sparse.csr_matrix(logs)]


def _regression(given: Given, columns: Callable[[History, Matrix], list[Matrix]]) -> Predict:
    def read(histories: Histories, most: int | None = None) -> Matrix:
        rows: list[Any] = [csr(columns(each, one_hot(each.student.skills, given.skills)))[:most] for each in histories]
        return sparse.vstack(rows, format="csr")

    taught, right = read(given.teach), joined(given.teach)[1]
    fitted: list[Any] = [LogisticRegression(C=strength, max_iter=1000).fit(taught, right) for strength in STRENGTHS]
    return given.best([lambda h, each=each: each.predict_proba(read([h], given.most))[:, 1] for each in fitted])


def joined(histories: Histories) -> tuple[np.ndarray, np.ndarray]:
    """Skills and answers of all students, end to end: (N,), (N,) bool."""
    return (
        np.concatenate([each.student.skills for each in histories]),
        np.concatenate([each.student.right for each in histories]),
    )


def csr(columns: Sequence[Matrix]) -> Matrix:
    """Side by side."""
    return sparse.hstack(columns, format="csr")


def one_hot(numbers: np.ndarray, count: int) -> Matrix:
    return sparse.csr_matrix((np.ones(len(numbers)), (np.arange(len(numbers)), numbers)), (len(numbers), count))


def scaled(hot: Matrix, by: np.ndarray) -> Matrix:
    """Each row times its number."""
    return sparse.csr_matrix(sparse.diags(by) @ hot)


REGRESSIONS: Mapping[str, Callable[[Given], Predict]] = {
    "mean": running_mean, "elo": elo, "irt": irt, "mastery": mastery, "pfa": pfa, "best_lr": best_lr,
    "best_lr_recent": best_lr_recent,
}  # fmt: skip
