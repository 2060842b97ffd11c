"""What a student masters, with how sure that is: item response theory with effects of a student's own on each skill.

Letters: t prefixes of a student's answers, m skills of a student, S all skills.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from metanlp.episodes.traces import History

NEWTON = 8  # steps; the posterior of a few binomial counts is found after four
SIDES = 1.96  # standard deviations of a 95 % interval
ABLE, APART, ALIKE = (0.5, 1.0, 2.0), (0.0, 0.25, 1.0), (0.0, 0.5)  # variances that are tried


@dataclass(frozen=True)
class Mastery:
    """Log-odds of a right answer are the ease of the skill plus the student's own on it, a Gaussian process over
    skills: variance `able` that all skills of a student share (Rasch 1960), `apart` of each skill, and `alike` that
    skills share by the cosine of their names. The posterior given some answers is Laplace's (Rasmussen & Williams 2006,
    §3.4)."""

    ease: np.ndarray  # (S,) log-odds of a right answer of the mean student
    cosines: np.ndarray  # (S, S) of the skills' names
    able: float = 1.0
    apart: float = 0.0
    alike: float = 0.0
    most: int = 50  # answers of a student that are predicted

    def kernel(self, skills: np.ndarray) -> np.ndarray:
        """Covariance of a student's own log-odds: (m, m)."""
        return self.able + self.apart * np.eye(len(skills)) + self.alike * self.cosines[np.ix_(skills, skills)]

    def __call__(self, history: History) -> np.ndarray:
        """The probability of each of the first answers to be right, from the answers before it: (t,)."""
        student = history.student.first(self.most)
        skills, place = np.unique(student.skills, return_inverse=True)
        told = np.zeros((len(student), len(skills), 2))  # answers and right ones before each
        told[np.arange(len(student)), place] = np.stack([np.ones(len(student)), student.right], 1)
        told = np.concatenate([np.zeros_like(told[:1]), np.cumsum(told, 0)[:-1]])
        own = posterior(self.kernel(skills), self.ease[skills], told[..., 0], told[..., 1])
        return sigmoid(self.ease[student.skills] + own[np.arange(len(student)), place])

    def all_skills(self, history: History) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """After all answers of a student: the probability of a right answer on each skill, and the ends of its 95 %
        interval. (S,) each."""
        student, every = history.student, np.arange(len(self.ease))
        counts = np.bincount(student.skills, minlength=len(every)).astype(float)
        right = np.bincount(student.skills, student.right, minlength=len(every))
        kernel = self.kernel(every)
        own = posterior(kernel, self.ease, counts[None], right[None])[0]
        p = sigmoid(self.ease + own)
        curvature = (counts * p * (1 - p))[:, None]
        left = kernel - kernel @ np.linalg.solve(np.eye(len(every)) + curvature * kernel, curvature * kernel)
        spread = SIDES * np.sqrt(left.diagonal().clip(0))
        return p, sigmoid(self.ease + own - spread), sigmoid(self.ease + own + spread)

    def chosen(self, students: Sequence[History], skills_too: bool) -> Mastery:
        """With the variances that predict these students best; without `skills_too` ability is all."""
        rest = [(b, c) for b in APART for c in ALIKE] if skills_too else [(0.0, 0.0)]
        tried = [replace(self, able=a, apart=b, alike=c) for a in ABLE for b, c in rest]
        return min(tried, key=lambda each: loss(students, [each(s) for s in students]))


def posterior(kernel: np.ndarray, ease: np.ndarray, counts: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The mode of a student's own log-odds, for several sets of counts at once: (m, m), (m,), (t, m), (t, m) -> (t, m).
    Newton's method as in Rasmussen & Williams 2006, eq. 3.18, without the inverse of the kernel."""
    own = np.zeros(counts.shape)
    for _ in range(NEWTON):
        p = sigmoid(ease + own)
        curvature = counts * p * (1 - p)
        wanted = curvature * own + right - counts * p
        inside = np.eye(len(kernel)) + curvature[..., None] * kernel
        own = np.linalg.solve(inside, wanted[..., None])[..., 0] @ kernel
    return own


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def loss(students: Sequence[History], predicted: Sequence[np.ndarray], known: int = 0) -> float:
    """Mean negative log-likelihood of the answers that were predicted, those after the first `known`, in nats."""
    p = np.concatenate(predicted)
    right = np.concatenate(
        [s.student.right[known : known + len(each)] for s, each in zip(students, predicted, strict=True)]
    )
    return float(-np.log(np.where(right, p, 1 - p).clip(1e-9)).mean())
