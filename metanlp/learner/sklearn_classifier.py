"""A learner as a scikit-learn classifier, for pipelines, cross-validation and searches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from numbers import Real
from pathlib import Path
from reprlib import repr as brief
from typing import Any, NamedTuple, cast

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.extmath import softmax
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import assert_all_finite, check_is_fitted, column_or_1d

from metanlp.core.effort import Effort
from metanlp.core.errors import InputError
from metanlp.learner.artefact import CONFIG, DEFAULT
from metanlp.learner.learner import Learner
from metanlp.learner.questions import as_texts
from metanlp.tasks.reading.columns import TEXTS
from metanlp.tasks.reading.containers import labelled_rows_of, rows_of
from metanlp.tasks.reading.rows import spelled

SHARPNESS = np.geomspace(0.05, 10.0, 60)  # factors on logits that are tried


class Suspect(NamedTuple):
    """A support row whose label is more likely wrong than right."""

    row: int  # its place among the texts of `fit`, from 0; those of `add` count on
    text: str | tuple[str, ...]  # the text, or both texts of a pair
    label: Any  # as it was given
    believed: Any  # the likeliest class, seen from the other rows
    probability: float  # that `label` is right, seen from the other rows


def taught(learner: Learner | str | Path) -> Learner:
    """The learner, or the one of that name, which is loaded once a process, and again where its folder was written
    anew."""
    if isinstance(learner, Learner):
        return learner
    written = os.path.join(learner, CONFIG)
    return _loaded(str(learner), os.stat(written).st_mtime_ns if os.path.exists(written) else 0)


@lru_cache(maxsize=4)
def _loaded(name: str, written: int) -> Learner:
    """`written` is when its configuration was: nanoseconds, 0 for what is no folder."""
    return Learner.load(name)


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """Adapts a Learner to the texts of `fit`; the learner itself never changes.

    Texts: a list, an array or a column of strings; pairs of texts: a list of 2-tuples, or an array or a frame of two
    columns. Labels: words or integers, matched to texts by place; what words mean does not count, as rows left out say
    how sure it is. Invalid input is a ValueError of one line.

    learner: the Learner to adapt, or what `Learner.load` takes; by default the one that comes with the package.
    effort: "recipe", or "fast", which takes no gradient step, or "best", which takes as many as pay.
    abstain: share of support rows, from 0 to 1, that `predict` may wrongly reject; None never abstains.
    none_label: what `predict` answers for a rejected row. With None, or a word among numbers, it returns an array of
        objects; the metrics of scikit-learn want the type of the other labels, as "none" among words, or -1.

    Abstention: `threshold_` is the quantile `abstain` of the support rows' largest leave-one-out logits, which measure
    the distance to the nearest prototype (probabilities are high for texts far from all classes); those of a learner
    that reads by a regression, as the default one, say less of that. Rows alone in their class have no such score. With
    n rows an `abstain` below 1 / (n + 1) cannot be had: 11 % with 4 shots of 2 classes. The threshold is approximate:
    each row left out misses one shot, which lowers it; gradient steps have seen every row, which raises it.

    After `fit`: `classes_` (K,), sorted; `adapted_`, the Adapted; `threshold_`, a logit, or None. To keep a fitted
    classifier, save `adapted_`, or fit again: metanlp writes and reads no pickles, though scikit-learn's own tools may
    send one from process to process.
    """

    def __init__(
        self,
        learner: Learner | str | Path = DEFAULT,
        *,
        effort: Effort = "recipe",
        abstain: float | None = None,
        none_label: Any = None,
    ) -> None:
        self.learner = learner
        self.effort: Effort = effort
        self.abstain = abstain
        self.none_label = none_label

    def fit(self, X: Any, y: Any) -> FewShotClassifier:
        """N texts or pairs, N labels of two classes or more. With `abstain` it adapts twice."""
        return self._fit(*support(X, y))

    def add(self, X: Any, y: Any = None) -> FewShotClassifier:
        """Fits again, on all rows so far and these, which may have new classes. Takes texts and labels as `fit`, or
        labelled examples as `Learner.adapt`."""
        check_is_fitted(self)
        if y is None:
            rows = as_list(list(labelled_rows_of(X)))
            texts, labels = as_texts(rows), as_labels([row.get("label") for row in rows])
        else:
            texts, labels = support(X, y)
        if not len(labels):
            return self
        if (labels.dtype.kind in "biuf") != (self._labels.dtype.kind in "biuf"):
            raise InputError(
                f"the labels added are {brief(labels.tolist())}, those before are {brief(self.classes_.tolist())}; "
                "write all labels as words, or all as integers"
            )
        return self._fit([*self._texts, *texts], np.concatenate([self._labels, labels]))

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each row, or `none_label` where even its logit is below `threshold_`: (N,)."""
        check_is_fitted(self)
        logits = self.adapted_.logits(as_list(X))
        labels = self.classes_[logits.argmax(1)]
        if self.threshold_ is None:
            return labels
        none = np.asarray(self.none_label)
        labels = labels if none.dtype.kind == labels.dtype.kind else labels.astype(object)
        return np.where(logits.max(1) < self.threshold_, none, labels)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities, classes in the order of `classes_`: (N, K)."""
        check_is_fitted(self)
        return self.adapted_.scores(as_list(X))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy. Where it abstains, a row is right if `y` says `none_label` too."""
        check_is_fitted(self)
        if self.threshold_ is None:
            return float(super().score(X, y, sample_weight))
        return float(np.average(self.predict(X) == column_or_1d(y), weights=sample_weight))

    def suspects(self, wrong: float = 0.1) -> list[Suspect]:
        """Support rows whose label is more likely wrong than right, the least likely label first. Adapts once more.

        `wrong` is the expected share of wrong labels; a higher one finds more of them, and more right ones. The
        leave-one-out scores are calibrated first (`chance_of_right`): where they are no better than chance, nothing is
        found. A row alone in its class is never suspect. Raises InputError where every row is alone."""
        check_is_fitted(self)
        if not (isinstance(cast(object, wrong), Real) and 0 < wrong < 0.5):
            raise InputError(f"wrong is {brief(wrong)}; give a share between 0 and 0.5")
        left_out = self._left_out()
        known_rows(left_out)
        names = self.classes_.tolist()
        given, believed = np.searchsorted(self.classes_, self._labels), left_out.argmax(1)
        right = np.ones(len(given))
        known = ~np.isnan(left_out).any(1)
        right[known] = chance_of_right(left_out[known], given[known], wrong)
        return [
            Suspect(int(row), as_given(self._texts[row]), names[given[row]], names[believed[row]], float(right[row]))
            for row in np.argsort(right, kind="stable")
            if right[row] < 0.5
        ]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False  # pairs are; but where this is True, numbers are expected to do
        return tags

    def _fit(self, texts: list[tuple[str, ...]], labels: np.ndarray) -> FewShotClassifier:
        """Nothing is set before everything has gone well."""
        self._check_parameters()
        classes, codes = np.unique(labels, return_inverse=True)
        self._check_classes(classes)
        learner = taught(self.learner)
        adapted = learner.adapt(texts, codes.tolist(), effort=self.effort)
        left_out = partial(learner.left_out, texts, codes.tolist(), effort=self.effort)
        threshold = None
        if self.abstain is not None:
            threshold = float(np.quantile(known_rows(left_out()).max(1), self.abstain, method="inverted_cdf"))
        self.classes_, self.threshold_ = classes, threshold
        given = [label if isinstance(label, str | int) else str(label) for label in classes.tolist()]
        self.adapted_ = replace(adapted, labels=tuple(given))
        self._texts, self._labels, self._left_out = texts, labels, left_out
        return self

    def _check_parameters(self) -> None:
        if not isinstance(cast(object, self.learner), Learner | str | Path):
            raise InputError(f"learner is {brief(self.learner)}; give a Learner, or what Learner.load takes")
        if self.abstain is not None and not (isinstance(self.abstain, Real) and 0 < self.abstain < 1):
            raise InputError(f"abstain is {brief(self.abstain)}; give a share between 0 and 1, or None")

    def _check_classes(self, classes: np.ndarray) -> None:
        if len(classes) < 2:
            found = "one class" if len(classes) else "no class"
            raise InputError(f"y has {found}, {classes.tolist()}; give texts of two classes or more")
        if self.abstain is not None and self.none_label in classes.tolist():
            raise InputError(f"none_label is {self.none_label!r}, which y has as a class; choose another")


def as_list(X: Any) -> list[Any]:
    """The rows of a list, an array, a column or a frame (cells by place if no column has one of our names). Raises
    InputError."""
    if isinstance(X, str):
        raise InputError(f"X is {brief(X)}; give a list, an array or a column of texts, or of pairs of texts")
    rows = rows_of(X, "X")
    if rows and isinstance(rows[0], dict):
        rows = [cells for _, cells in spelled((("X", row) for row in rows), {})]
    return [tuple(row.values()) if isinstance(row, dict) and not row.keys() & {*TEXTS} else row for row in rows]


def as_labels(y: Any) -> np.ndarray:
    """(N,). Raises ValueError for what are no labels of classes."""
    if isinstance(y, Iterator | list | tuple) or hasattr(y, "array"):  # not yet an array, which makes words of all
        y = plain_labels(rows_of(y, "y"))
    y = column_or_1d(y, warn=True)
    assert_all_finite(y, input_name="y")
    try:
        found = type_of_target(y, input_name="y")
    except TypeError as error:  # labels that can't be sorted
        raise InputError(f"y is {brief(y.tolist())}; write all labels as words, or all as integers") from error
    if found not in ("binary", "multiclass"):
        raise InputError(
            f"Unknown label type: {found}: y is {brief(y.tolist())} of type {y.dtype}; write all labels as words, or "
            "all as integers, which y.astype(int) makes of objects"
        )
    return y


def plain_labels(labels: list[Any]) -> np.ndarray:
    """Labels of Python as an array. Raises InputError where one is missing, or some are words and some are not."""
    if missing := [n for n, label in enumerate(labels, 1) if label is None or label != label]:
        raise InputError(f"Input y contains NaN: label {missing[0]} is missing; give one label for each text")
    if len({isinstance(label, str) for label in labels}) > 1:
        raise InputError(f"y is {brief(labels)}; write all labels as words, or all as integers")
    return np.array(labels)


def support(X: Any, y: Any) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """As many texts as labels. Raises InputError where they are not."""
    texts, labels = as_texts(as_list(X)), as_labels(y)
    if len(texts) != len(labels):
        raise InputError(f"X has {len(texts)} texts, y has {len(labels)} labels; give one label for each text")
    return texts, labels


def known_rows(left_out: np.ndarray) -> np.ndarray:
    """The rows that have a score. Raises InputError where none has."""
    known = left_out[~np.isnan(left_out).any(1)]
    if not len(known):
        raise InputError(
            "every row is alone in its class, so that none can be left out and scored by the others; give two rows or "
            "more of a class, or go without `abstain` and `suspects`"
        )
    return known


def chance_of_right(logits: np.ndarray, given: np.ndarray, wrong: float) -> np.ndarray:
    """Probability that each given label is right, (N,), from leave-one-out logits (N, K).

    A share `wrong` of labels is any other of the K with equal chance (Larsen et al. 1998, ICASSP); the rest follows the
    softmax of the logits times the likeliest factor (temperature scaling, Guo et al. 2017, arXiv 1706.04599)."""
    rows, others = np.arange(len(given)), logits.shape[1] - 1
    own = np.stack([softmax(factor * logits)[rows, given] for factor in SHARPNESS])
    right = (1 - wrong) * own
    seen = right + wrong * (1 - own) / others
    best = np.log(seen).sum(1).argmax()
    return right[best] / seen[best]


def as_given(texts: tuple[str, ...]) -> str | tuple[str, ...]:
    return texts[0] if len(texts) == 1 else texts
