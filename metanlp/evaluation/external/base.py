"""External baselines: methods without θ and recipe, given a support set and the texts of its query rows.

Letters: R rows, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np

from metanlp.core.types import Row, Task
from metanlp.evaluation.external.answer_cache import AnswerCache
from metanlp.evaluation.held_out import HeldOutTask, Protocol, Support
from metanlp.forms import Form, Scored
from metanlp.forms.metrics import score


@dataclass(frozen=True)
class Answers:
    """The answers of a baseline to R query rows."""

    values: np.ndarray  # (R, K) log-probabilities; without probabilities (R, K + 1) one-hot, last column: no label
    adapt_s: float = 0.0  # seconds to adapt to the support set


@dataclass(frozen=True)
class ExternalBaseline(ABC):
    """Its fields are its settings."""

    probable: ClassVar[bool] = True  # its answers come with probabilities

    answer_cache: AnswerCache = field(default_factory=AnswerCache, repr=False, compare=False, kw_only=True)

    @classmethod
    def learns(cls, form: Form) -> bool:
        """Whether it can be asked tasks of this form: those of texts with one label each."""
        return form.single_label

    @abstractmethod
    def check(self) -> None:
        """Raises InputError for what is missing, before anything is trained."""

    @abstractmethod
    def plan(self, trials: int, rows: int) -> str:
        """A sentence that says what it will do for `trials` support sets with `rows` query rows in all."""

    @abstractmethod
    def answer(self, task: Task, support: Sequence[Row], query: Sequence[Row], seed: int) -> Answers:
        """Answers the unlabelled query rows from the support rows and `task.labels`; reads no row of `task`. Raises
        InputError where it cannot go on."""

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Settings for the results; nothing that identifies this machine."""

    def spent(self) -> Mapping[str, Any]:
        """Its own costs, for the results."""
        return {}


def examine(
    baseline: ExternalBaseline, held_out: HeldOutTask, support: Support
) -> tuple[Callable[[Support], dict[str, float]], float, Scored | None]:
    """Metrics as a function of the query rows that count, seconds to adapt, and the scores of every query row; without
    probabilities no scores, and `no_label`, the share of invalid answers, in place of `ece`."""
    asked = np.flatnonzero(~support.excluded)
    rows = [held_out.rows[n] for n in asked]
    query = [question for row in rows if (question := held_out.form.question(row))]
    said = baseline.answer(held_out.task, support.rows, query, held_out.protocol.seed)
    values = np.zeros((len(held_out.rows), said.values.shape[1]))
    values[asked] = said.values
    scored = Scored(values, np.ones(len(values), np.int64), np.zeros(len(values), np.int64))
    judge = held_out.judge if baseline.probable else partial(judge_answers, held_out)
    return partial(judge, scored), said.adapt_s, scored if baseline.probable else None


def judge_answers(held_out: HeldOutTask, scored: Scored, support: Support) -> dict[str, float]:
    """Metrics of answers without probabilities; what is none of the labels has an index of its own, the last."""
    counting, rows = held_out.counting(scored, support)
    found, none = counting.values.argmax(1), len(held_out.task.labels)
    right = np.array([row["label"] for row in rows])
    return score(found, right, none, invalid=True) | {"no_label": float((found == none).mean())}


def count_asked(tasks: Sequence[Task], protocol: Protocol) -> tuple[int, int]:
    """The largest possible number of support sets, and of query rows over all of them."""
    each = len(protocol.shots) * protocol.episodes
    pools = [len(task.pools.get("test", task.pools["train"])) for task in tasks]
    return each * len(tasks), each * sum(min(rows, protocol.test_rows or rows) for rows in pools)
