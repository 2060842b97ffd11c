"""Numbers that judge predictions, and how sure they are. The only door of evaluate, which takes seconds to open.

The metrics are subclasses of `evaluate.Metric` that live here: no script is downloaded, nothing is written.
Letters: N examples, K classes, E episodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from metanlp.errors import InputError

Scores = dict[str, float]


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval; no bounds where there is one value, which says nothing of its spread."""

    mean: float
    low: float | None
    high: float | None


def score(predictions: np.ndarray, targets: np.ndarray, ways: int) -> Scores:
    """accuracy, macro_f1, precision, recall, matthews; f1 of class 1 if there are two ways. (N,), (N,) class indices.

    Precision, recall and F1 are means over the classes that occur in either, 0 where nothing can be divided: the
    numbers of scikit-learn with `average="macro", zero_division=0`. Raises InputError for anything but N ≥ 1 whole
    numbers from 0 to `ways` − 1 on both sides.
    """
    pair = _classes("predictions", predictions, ways), _classes("targets", targets, ways)
    if pair[0].shape != pair[1].shape:
        raise InputError(f"{len(pair[0])} predictions for {len(pair[1])} targets; one each is needed")
    return classification().compute(predictions=pair[0], references=pair[1], ways=ways)


def calibration(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Expected calibration error over 10 bins of equal width: (N, K), (N,) -> 0 … 1. Guo et al. 2017, eq. 3."""
    if probabilities.shape[0] != targets.shape[0] or not len(targets) or not np.isfinite(probabilities).all():
        raise InputError(
            f"{probabilities.shape[0]} rows of probabilities for {len(targets)} targets; "
            "one row of finite numbers for each of at least one target is needed"
        )
    return confidence_error(probabilities.max(1), probabilities.argmax(1) == targets)


def confidence_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """The same from the probability of each answer and whether it was right: (N,), (N,) bool -> 0 … 1."""
    _, sure, hits = reliability(confidence, right)
    return float(np.abs(hits - sure).sum() / len(right))


def reliability(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Answers, the sum of their probabilities and the right ones among them in 10 bins of equal width: (3, 10)."""
    bins = np.clip(np.ceil(confidence * 10) - 1, 0, 9).astype(np.int64)
    return np.stack([np.bincount(bins, each, minlength=10) for each in (np.ones(len(right)), confidence, right)])


def correlation(predictions: np.ndarray, targets: np.ndarray) -> Scores:
    """pearson, spearman, and rmse in the targets' unit: (N,), (N,). A side that never changes correlates with nothing:
    0. Raises InputError for what is not finite."""
    from scipy import stats

    if not len(targets) or not np.isfinite(predictions).all() or not np.isfinite(targets).all():
        raise InputError(f"{len(targets)} scores to judge by; at least one is needed, and finite numbers on both sides")
    ranks = stats.rankdata(predictions), stats.rankdata(targets)
    error = float(np.sqrt(np.square(predictions - targets).mean()))
    return {"pearson": _pearson(predictions, targets), "spearman": _pearson(*ranks), "rmse": error}


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) and np.ptp(b) else 0.0


def label_sets(predictions: np.ndarray, targets: np.ndarray) -> Scores:
    """Of sets of labels, (N, K) bool each: micro_f1, macro_f1 over the labels that occur on either side, precision and
    recall (micro), and `exact`, the share of rows whose sets are equal."""
    hits, told, true = (predictions & targets).sum(0), predictions.sum(0), targets.sum(0)
    seen = told + true > 0
    each = 2 * hits[seen] / (told + true)[seen]
    counted = _micro(hits.sum(), told.sum(), true.sum())
    exact = float((predictions == targets).all(1).mean())
    return counted | {"macro_f1": float(each.mean()) if len(each) else 0.0, "exact": exact}


def span_sets(
    predictions: Sequence[Sequence[tuple[int, int, int]]], targets: Sequence[Sequence[tuple[int, int, int]]], ways: int
) -> Scores:
    """Of the entities of N sentences, (start, end, class) each: micro_f1, precision and recall over whole spans, an
    entity being right if both ends and its class are; macro_f1 over the classes that occur (CoNLL 2003)."""
    hits, told, true = (np.zeros(ways, np.int64) for _ in range(3))
    for ours, theirs in zip(predictions, targets, strict=True):
        for counts, spans in ((told, set(ours)), (true, set(theirs)), (hits, set(ours) & set(theirs))):
            np.add.at(counts, [label for _, _, label in spans], 1)
    seen = told + true > 0
    each = 2 * hits[seen] / (told + true)[seen]
    return _micro(hits.sum(), told.sum(), true.sum()) | {"macro_f1": float(each.mean()) if len(each) else 0.0}


def _micro(hits: int, told: int, true: int) -> Scores:
    """From counts over all classes; where nothing was to be found and nothing was told, all is 0."""
    ratios = {"micro_f1": (2 * hits, told + true), "precision": (hits, told), "recall": (hits, true)}
    return {name: float(above / max(below, 1)) for name, (above, below) in ratios.items()}


def interval(values: np.ndarray, level: float = 0.95) -> Interval:
    """Mean over episodes with its interval, of 95 % or another level: (E,). Student's t below 30 values, else a
    percentile bootstrap.

    Raises InputError for no value and for one that is not finite.
    """
    from scipy import stats

    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise InputError(f"an interval needs at least one finite number, not {np.array2string(values, threshold=6)}")
    mean = float(values.mean())
    if len(values) == 1:
        return Interval(mean, None, None)
    if len(values) < 30:
        half = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values))
        return Interval(mean, mean - half, mean + half)
    # Its own fixed stream: the same values have the same interval, whoever asks.
    found: Any = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=10_000,
        batch=1000,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = found.confidence_interval
    return Interval(mean, float(low), float(high))


def paired(a: np.ndarray, b: np.ndarray, *, level: float = 0.95) -> Interval:
    """The interval of a − b, episode by episode: (E,), (E,)."""
    if np.shape(a) != np.shape(b):
        raise InputError(f"{np.shape(a)} values cannot be paired with {np.shape(b)}; score both on the same episodes")
    return interval(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64), level)


def as_good(each: np.ndarray, best: np.ndarray) -> bool:
    """Whether accuracies (E,) lie within one standard error of the best ones, trial by trial: few trials can't tell
    more (Breiman et al. 1984, the 1-SE rule)."""
    behind = best - each
    if len(behind) < 2:
        return bool((behind <= 0).all())
    return bool(behind.mean() <= behind.std(ddof=1) / len(behind) ** 0.5)


@cache
def classification() -> Any:
    """An `evaluate.Metric` of all that `score` reports, made at first use; `evaluate.combine` takes it too."""
    import evaluate
    from evaluate.module import Features, Value

    class Classification(evaluate.Metric):
        def _info(self) -> Any:
            whole = Value("int64")
            return evaluate.MetricInfo(
                description="Accuracy, macro F1, precision and recall, Matthews correlation.",
                citation="",
                inputs_description="Class indices.",
                features=Features({"predictions": whole, "references": whole}),
            )

        def _build_data_dir(self) -> str:
            return ""  # rows are kept in memory; the original makes a folder in the user's home

        def compute(self, *, predictions: Any = None, references: Any = None, **options: Any) -> Any:
            """Scores of the rows given, or of those added before."""
            if predictions is None:
                return super().compute(**options)
            # evaluate writes every call to an Arrow table and hashes it: 2 to 8 ms that arrays at hand do not need.
            return self._compute(predictions=predictions, references=references, **options)

        def _compute(self, *, predictions: Any = None, references: Any = None, **options: Any) -> Scores:
            predictions, references = np.asarray(predictions), np.asarray(references)
            most = int(max(predictions.max(), references.max())) + 1
            return _scores(predictions, references, options.get("ways", most))

    return Classification(keep_in_memory=True)


def _scores(predictions: np.ndarray, targets: np.ndarray, ways: int) -> Scores:
    counts = confusion(predictions, targets, ways).astype(np.float64)
    hits, true, told, rows = counts.diagonal(), counts.sum(1), counts.sum(0), len(targets)
    seen = true + told > 0
    recall, precision, f1 = hits / true.clip(1), hits / told.clip(1), 2 * hits / (true + told).clip(1)
    # Gorodkin 2004: the correlation of the two class indicators.
    spread = np.sqrt((rows**2 - true @ true) * (rows**2 - told @ told))
    means = {"macro_f1": f1, "precision": precision, "recall": recall}
    return (
        {"accuracy": float(hits.sum() / rows)}
        | {name: float(values[seen].mean()) for name, values in means.items()}
        | {"matthews": float((hits.sum() * rows - true @ told) / spread) if spread else 0.0}
        | ({"f1": float(f1[1])} if ways == 2 else {})
    )


def confusion(predictions: np.ndarray, targets: np.ndarray, ways: int) -> np.ndarray:
    """How often class i was called j: (N,), (N,) class indices -> (K, K)."""
    return np.bincount(targets * ways + predictions, minlength=ways * ways).reshape(ways, ways)


def _classes(name: str, values: np.ndarray, ways: int) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1 or not len(values):
        raise InputError(f"{name} of shape {values.shape}; a vector of at least one class index is needed")
    # NaN fails every comparison, so the test says what must hold.
    wrong = values[~((values >= 0) & (values < ways) & (values == np.floor(values)))]
    if len(wrong):
        raise InputError(
            f"{name} hold {wrong[0]}; with {ways} ways a class index is a whole number from 0 to {ways - 1}"
        )
    return values.astype(np.int64)


def metric_of_means(metrics: Mapping[str, str]) -> str:
    """What a mean over these tasks is called: their metric, or `score` where they have several."""
    return next(iter(metrics.values())) if len({*metrics.values()}) == 1 else "score"
