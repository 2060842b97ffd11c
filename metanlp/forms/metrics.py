"""Metrics of predictions and of their calibration. The only module that imports `evaluate`, which takes seconds.

Definitions are numpy's: those of scikit-learn give the same numbers in 5 ms a call instead of 0.07.
Letters: N examples, K classes.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from metanlp.core.errors import InputError

Scores = dict[str, float]


def score(predictions: np.ndarray, targets: np.ndarray, ways: int, *, invalid: bool = False) -> Scores:
    """accuracy, macro_f1, precision, recall, matthews; f1 of class 1 if there are two ways. (N,), (N,) class indices.
    With `invalid` the prediction `ways` is an answer that is no class: wrong, and no class in any mean.

    Precision, recall and F1 are means over the classes that occur on either side, 0 where nothing can be divided:
    scikit-learn's `average="macro", zero_division=0`. Raises InputError for anything but N ≥ 1 whole numbers from 0 to
    `ways` − 1 on both sides.
    """
    for name, values, known in (("predictions", predictions, ways + invalid), ("targets", targets, ways)):
        if values.ndim != 1 or not len(values):
            raise InputError(f"{name} of shape {values.shape}; a vector of at least one class index is needed")
        if len(wrong := values[~np.isin(values, np.arange(known))]):
            raise InputError(
                f"{name} hold {wrong[0]}; with {ways} ways a class index is a whole number from 0 to {known - 1}"
            )
    if len(predictions) != len(targets):
        raise InputError(f"{len(predictions)} predictions for {len(targets)} targets; one each is needed")
    # `compute` would write every call to an Arrow table and hash it: 2 to 8 ms.
    return classification()._compute(predictions=predictions, references=targets, ways=ways)


def calibration(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error over 10 bins of equal width (Guo et al. 2017, eq. 3), from the probability of each
    answer and whether it is right: (N,), (N,) bool -> 0 … 1. Raises InputError for other shapes, and for numbers that
    are not finite."""
    if confidence.shape != right.shape or not len(right) or not np.isfinite(confidence).all():
        raise InputError(
            f"{len(confidence)} rows of probabilities for {len(right)} targets; "
            "one row of finite numbers for each of at least one target is needed"
        )
    _, sure, hits = reliability(confidence, right)
    return float(np.abs(hits - sure).sum() / len(right))


def reliability(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """In 10 bins of equal width: number of answers, sum of their probabilities, number of right answers. (3, 10)"""
    bins = np.clip(np.ceil(confidence * 10) - 1, 0, 9).astype(np.int64)
    return np.stack([np.bincount(bins, each, minlength=10) for each in (np.ones(len(right)), confidence, right)])


def correlation(predictions: np.ndarray, targets: np.ndarray) -> Scores:
    """pearson, spearman, and rmse in the targets' unit: (N,), (N,). Correlations with a constant are 0. Raises
    InputError for values that are not finite."""
    from scipy import stats

    if not len(targets) or not np.isfinite(predictions).all() or not np.isfinite(targets).all():
        raise InputError(f"{len(targets)} scores to judge by; at least one is needed, and finite numbers on both sides")
    ranks = stats.rankdata(predictions), stats.rankdata(targets)
    error = float(np.sqrt(np.square(predictions - targets).mean()))
    return {"pearson": _pearson(predictions, targets), "spearman": _pearson(*ranks), "rmse": error}


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) and np.ptp(b) else 0.0


def auc(level: np.ndarray, right: np.ndarray, weight: np.ndarray) -> float:
    """Area under the curve of scores by their ranks, ties equal: (N,) whole numbers, (N,) bool, (N,) weights. That of
    scikit-learn, for thousands of bootstrap draws over one ranking, in a tenth of the time."""
    wins, losses = (np.bincount(level, weight * side) for side in (right, ~right))
    return float(wins @ (losses.cumsum() - losses / 2) / (wins.sum() * losses.sum()))


def label_sets(predictions: np.ndarray, targets: np.ndarray) -> Scores:
    """Metrics of sets of labels, (N, K) bool each: those of `_averages`, and `exact`, the share of rows whose sets are
    equal."""
    counted = _averages((predictions & targets).sum(0), predictions.sum(0), targets.sum(0))
    return counted | {"exact": float((predictions == targets).all(1).mean())}


def span_sets(
    predictions: Sequence[Sequence[tuple[int, int, int]]], targets: Sequence[Sequence[tuple[int, int, int]]], ways: int
) -> Scores:
    """Metrics of the entities of N sentences, (start, end, class) each: those of `_averages`, an entity being right if
    both ends and its class are (CoNLL 2003)."""
    hits, told, true = (np.zeros(ways, np.int64) for _ in range(3))
    for ours, theirs in zip(predictions, targets, strict=True):
        for counts, spans in ((told, set(ours)), (true, set(theirs)), (hits, set(ours) & set(theirs))):
            np.add.at(counts, [label for _, _, label in spans], 1)
    return _averages(hits, told, true)


ARTICLES, MARKS = re.compile(r"\b(a|an|the)\b"), str.maketrans("", "", string.punctuation)


def answer_match(prediction: str, truths: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 of the words of an answer, the best over the right ones, of which one may be empty: there is
    no answer. The definitions are SQuAD's (Rajpurkar et al. 2016; 2018, arXiv 1806.03822), of which `evaluate`'s metric
    is the same script: without case, punctuation and English articles."""
    told = _squad_words(prediction)
    pairs = [(told == true, _overlap(told, true)) for true in map(_squad_words, truths)]
    return float(max(exact for exact, _ in pairs)), max(f1 for _, f1 in pairs)


def _squad_words(answer: str) -> list[str]:
    return ARTICLES.sub(" ", answer.lower().translate(MARKS)).split()


def _overlap(told: Sequence[str], true: Sequence[str]) -> float:
    """F1 of two bags of words; where one is empty, whether both are."""
    if not told or not true:
        return float(told == true)
    return 2 * (Counter(told) & Counter(true)).total() / (len(told) + len(true))


def _averages(hits: np.ndarray, told: np.ndarray, true: np.ndarray) -> Scores:
    """micro_f1, precision and recall (micro), and macro_f1 over the classes that occur on either side, from counts by
    class: (K,) each; 0 where nothing can be divided."""
    seen = told + true > 0
    each = 2 * hits[seen] / (told + true)[seen]
    ratios = {"micro_f1": (2 * hits, told + true), "precision": (hits, told), "recall": (hits, true)}
    micro = {name: float(above.sum() / max(below.sum(), 1)) for name, (above, below) in ratios.items()}
    return micro | {"macro_f1": float(each.mean()) if len(each) else 0.0}


@cache
def classification() -> Any:
    """An `evaluate.Metric` of all that `score` reports, made at first use; `evaluate.combine` takes it too. It
    downloads no script and writes nothing to disk."""
    import evaluate
    from evaluate.module import Features, Value

    class Classification(evaluate.Metric):
        def _info(self) -> Any:
            return evaluate.MetricInfo(
                description="Accuracy, macro F1, precision and recall, Matthews correlation.",
                citation="",
                inputs_description="Class indices.",
                features=Features({"predictions": Value("int64"), "references": Value("int64")}),
            )

        def _build_data_dir(self) -> str:
            return ""  # the original makes a folder in the user's home

        def _compute(self, *, predictions: Any = None, references: Any = None, **options: Any) -> Scores:
            predictions, references = (np.asarray(side).astype(np.int64) for side in (predictions, references))
            return _scores(predictions, references, options.get("ways") or int(max(*predictions, *references)) + 1)

    return Classification(keep_in_memory=True)


def _scores(predictions: np.ndarray, targets: np.ndarray, ways: int) -> Scores:
    counts = confusion(predictions, targets, max(ways, int(predictions.max()) + 1)).astype(np.float64)
    hits, true, told, rows = counts.diagonal(), counts.sum(1), counts.sum(0), len(targets)
    seen = (true + told > 0) & (np.arange(len(counts)) < ways)  # beyond them is what is no class
    recall, precision, f1 = hits / true.clip(1), hits / told.clip(1), 2 * hits / (true + told).clip(1)
    # Gorodkin 2004: the correlation of the two class indicators.
    spread = np.sqrt((rows**2 - true @ true) * (rows**2 - told @ told))
    found = {
        "accuracy": hits.sum() / rows, "macro_f1": f1[seen].mean(), "precision": precision[seen].mean(),
        "recall": recall[seen].mean(), "matthews": (hits.sum() * rows - true @ told) / spread if spread else 0.0,
    }  # fmt: skip
    return {name: float(value) for name, value in (found | ({"f1": f1[1]} if ways == 2 else {})).items()}


def confusion(predictions: np.ndarray, targets: np.ndarray, ways: int) -> np.ndarray:
    """Number of rows of class i that were predicted as j: (N,), (N,) class indices -> (K, K)."""
    return np.bincount(targets * ways + predictions, minlength=ways * ways).reshape(ways, ways)


def bounds_of(metric: str) -> tuple[float, float]:
    """The lowest and the highest value that a metric can have."""
    signed = metric in ("matthews", "pearson", "spearman")
    return -1.0 if signed else 0.0, np.inf if metric == "rmse" else 1.0


def metric_of_means(metrics: Mapping[str, str]) -> str:
    """Name of a mean over tasks: their metric, or `score` where they differ. `metrics` is metric by task."""
    return next(iter(metrics.values())) if len({*metrics.values()}) == 1 else "score"
