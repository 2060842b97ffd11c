"""95 % intervals of scores and their differences over two sources of chance: S support sets and G blocks of query rows.

The score with set s on block g is mu + a_g + b_s + e_gs; the variance of the mean is taken to be var(block means) / G +
var(set means) / S, as in the pigeonhole bootstrap (Owen & Eckles 2012). It counts e twice, so it is rather too large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from metanlp.core.errors import InputError

CLEARLY = 2.0  # standard errors of few trials by which one is clearly worse than the best: the highest of many is lucky
Bounds = tuple[float, float]
Verdict = Literal["better", "worse", "unclear"]


@dataclass(frozen=True)
class Interval:
    """A mean and its interval; no bounds where the spread is unknown, as with one support set."""

    mean: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> Verdict:
        """Of a difference: on which side of zero the whole interval lies."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "unclear"
        return "better" if self.low > 0 else "worse"


@dataclass(frozen=True)
class Sample:
    """Scores of one method on one task, or differences of two methods on the same support sets and query rows."""

    sets: np.ndarray  # (S,) score with each support set
    blocks: np.ndarray  # (G,) score on each block of the query rows, mean over support sets; (0,) if not known
    overlap: float = 0.0  # share of their rows that two of the support sets have in common, mean over pairs

    def __sub__(self, other: Sample) -> Sample:
        if self.sets.shape != other.sets.shape or self.blocks.shape != other.blocks.shape:
            raise InputError(
                f"{len(self.sets)} support sets and {len(other.sets)} make no pairs; score both on the same episodes"
            )
        return Sample(self.sets - other.sets, self.blocks - other.blocks, self.overlap)

    def variances(self) -> list[tuple[float, int]]:
        """Variance of the mean and its degrees of freedom, from support sets and from query rows. [] if unknown.

        Sets that share rows are correlated by the share, so the variance over sets is multiplied by
        1 / S + overlap / (1 - overlap) (Nadeau & Bengio 2003, eq. 9)."""
        if len(self.sets) < 2 or self.overlap >= 1:
            return []
        factor = 1 / len(self.sets) + self.overlap / (1 - self.overlap)
        found = [(float(self.sets.var(ddof=1)) * factor, len(self.sets) - 1)]
        if len(self.blocks) > 1:
            found.append((float(self.blocks.var(ddof=1)) / len(self.blocks), len(self.blocks) - 1))
        return found


def over_shots(samples: Sequence[Sample]) -> Sample:
    """The mean of samples of one task, which share their query rows: set by set, block by block."""
    count = min(len(sample.sets) for sample in samples)
    sets, blocks = ([sample.sets[:count] for sample in samples], [sample.blocks for sample in samples])
    return Sample(np.mean(sets, axis=0), np.mean(blocks, axis=0), float(np.mean([s.overlap for s in samples])))


def over_tasks(samples: Sequence[Sample], bounds: Bounds = (-np.inf, np.inf), level: float = 0.95) -> Interval:
    """The mean over tasks with its interval, cut at what is possible: Student's t, from the variances of all tasks,
    with degrees of freedom by Satterthwaite (1946)."""
    mean = float(np.mean([sample.sets.mean() for sample in samples]))
    each = [sample.variances() for sample in samples]
    if not all(each):
        return Interval(mean, None, None)
    variances, freedom = np.array([part for parts in each for part in parts]).T
    total = float(variances.sum())
    half = 0.0
    if total > 0:
        from scipy.special import stdtrit  # quantiles of Student's t

        half = float(stdtrit(total**2 / float((variances**2 / freedom).sum()), (1 + level) / 2))
        half *= total**0.5 / len(samples)
    return Interval(mean, max(mean - half, bounds[0]), min(mean + half, bounds[1]))


def interval(values: np.ndarray, bounds: Bounds = (-np.inf, np.inf), level: float = 0.95) -> Interval:
    """The mean of independent values (E,) with its t interval. Raises InputError for no value or one not finite."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise InputError(f"an interval needs at least one finite number, not {np.array2string(values, threshold=6)}")
    return over_tasks([Sample(values, np.zeros(0))], bounds, level)


def bootstrap(values: np.ndarray, seed: int = 0) -> Interval:
    """The mean of independent values (E,) with the percentiles of 10,000 means of values drawn from them again (Efron
    1979); no bounds for one value."""
    if len(values) < 2:
        return Interval(float(values.mean()), None, None)
    from scipy import stats

    drawn = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=seed)
    low, high = drawn.confidence_interval
    return Interval(float(values.mean()), float(low), float(high))


def as_good(each: np.ndarray, best: np.ndarray, errors: float = 1.0) -> bool:
    """Whether accuracies (E,) lie within so many standard errors of the best ones, trial by trial: few trials can't
    tell more (Breiman et al. 1984, the 1-SE rule)."""
    behind = best - each
    if len(behind) < 2:
        return bool((behind <= 0).all())
    return bool(behind.mean() <= errors * behind.std(ddof=1) / len(behind) ** 0.5)


def interval_of_share(hits: int, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share of independent rows (Wilson 1927)."""
    from scipy.stats import binomtest

    found = binomtest(hits, rows).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)
