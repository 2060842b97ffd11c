"""Plain baselines: a logistic regression whose penalty is chosen on the support rows, and no learning from other tasks.

Letters: R rows, D features, K classes.
"""

from __future__ import annotations

import re
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from metanlp.backbone import Backbone
from metanlp.core.types import Meaning, Row, Task
from metanlp.episodes.chunks import chunks
from metanlp.episodes.pool import Pool
from metanlp.evaluation.external.base import Answers, ExternalBaseline
from metanlp.forms import FORMS
from metanlp.forms.heads.logistic import blas

STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)  # C of the regression: the inverse of its penalty
FOLDS = 5  # of the cross-validation at the most; fewer where a class has fewer rows
LEAST = 1e-9  # probability of a class without support rows


@dataclass(frozen=True)
class Regression(ExternalBaseline):
    """Logistic regression on fixed features; C by cross-validated log-likelihood, where each class has two rows."""

    def check(self) -> None:
        """Everything that it needs comes with the package."""

    def plan(self, trials: int, rows: int) -> str:
        return f"fitted anew on at most {trials:,} support sets: less than a second each"

    def answer(self, task: Task, support: Sequence[Row], query: Sequence[Row], seed: int) -> Answers:
        form = FORMS[task.form]
        labels = np.array([form.shots_of(row)[0] for row in support])
        begun = time.perf_counter()
        with blas().limit(limits=1):
            read, asked = self.features(support, query, task.form)
            fitted = tuned(labels, seed).fit(read, labels)
            values = np.full((len(query), len(task.labels)), LEAST)
            values[:, np.unique(labels)] = fitted.predict_proba(asked)
        return Answers(np.log(values.clip(LEAST)), time.perf_counter() - begun)

    @abstractmethod
    def features(self, support: Sequence[Row], query: Sequence[Row], form: str) -> tuple[Any, Any]:
        """Of the support rows and of the query rows: (R, D) each."""

    def settings(self) -> Mapping[str, Any]:
        return {"C": list(STRENGTHS), "folds": FOLDS}


@dataclass(frozen=True)
class Logistic(Regression):
    """On the embeddings of the encoder as it came: its last layer, pooled as its folder says, of length one."""

    model: str  # minilm, a folder, or an id on the Hub
    known: dict[tuple[str, ...], np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def net(self) -> Backbone:
        """Loaded when it is first asked."""
        return Backbone.load(self.model, precision="fp32")

    def features(self, support: Sequence[Row], query: Sequence[Row], form: str) -> tuple[np.ndarray, np.ndarray]:
        sides = [[FORMS[form].texts(row)[0] for row in rows] for rows in (support, query)]
        new = [text for text in dict.fromkeys([*sides[0], *sides[1]]) if text not in self.known]
        self.known.update(zip(new, embedded(self.net, new, form), strict=True))
        read, asked = (np.array([self.known[text] for text in texts]) for texts in sides)
        return read, asked


@dataclass(frozen=True)
class Tfidf(Regression):
    """On the words of the texts, weighed by how rare they are in the support rows and the unlabelled query rows."""

    def features(self, support: Sequence[Row], query: Sequence[Row], form: str) -> tuple[Any, Any]:
        from sklearn.feature_extraction.text import TfidfVectorizer

        read, asked = ([" ".join(FORMS[form].texts(row)[0]) for row in rows] for rows in (support, query))
        # Where no text has a letter or digit, emoji say, what stands between spaces is its words.
        pattern = r"(?u)\w+" if any(re.search(r"\w", text) for text in (*read, *asked)) else r"\S+"
        words = TfidfVectorizer(sublinear_tf=True, token_pattern=pattern).fit([*read, *asked])
        return words.transform(read), words.transform(asked)


def tuned(labels: np.ndarray, seed: int) -> Any:
    """A regression whose C is chosen in as many folds as the smallest class allows; C = 1 where it allows none."""
    from sklearn.linear_model import LogisticRegression  # a second to import, and only these baselines need them
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    least = int(np.unique(labels, return_counts=True)[1].min())
    regression = LogisticRegression(max_iter=1000, class_weight="balanced")
    if least < 2:
        return regression
    folds = StratifiedKFold(min(FOLDS, least), shuffle=True, random_state=seed)
    return GridSearchCV(regression, {"C": STRENGTHS}, scoring="neg_log_loss", cv=folds)


@torch.no_grad()
def embedded(net: Backbone, texts: Sequence[tuple[str, ...]], form: str) -> list[np.ndarray]:
    """The first frozen view of each text or pair of texts, of length one: R times (D,)."""
    rows, found = [FORMS[form].question(text) or {} for text in texts], dict[int, np.ndarray]()
    for part in chunks(Pool(Meaning(form, ("",)), rows, net.encode)) if rows else ():
        trunk = net.with_trunk(part.batch, again=False).trunk
        assert trunk is not None
        vectors = torch.nn.functional.normalize(trunk.frozen[:, 0].float(), dim=-1).cpu().numpy()
        found |= dict(zip(part.rows.tolist(), vectors, strict=True))
    return [found[n] for n in range(len(rows))]
