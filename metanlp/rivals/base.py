"""The contract of a rival: a method without θ, which is given the texts of a support set and of its query rows.

It has no recipe to be searched and sees neither training nor validation tasks. Letters: R rows, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from metanlp.exams import Exam, Protocol, Support
from metanlp.forms import Scored
from metanlp.metrics import score
from metanlp.types import Row, Task


@dataclass(frozen=True)
class Said:
    """Of R query rows."""

    values: np.ndarray  # (R, K) logarithms of probabilities; (R, K + 1) 1 for the answer, the last for what is none
    adapt_s: float = 0.0  # seconds that adapting to the support set took


class Rival(ABC):
    """A frozen dataclass; its fields are its settings."""

    forms: ClassVar[tuple[str, ...]] = ("classify",)  # of tasks that it can be asked
    probable: ClassVar[bool] = True  # its answers come with probabilities

    @abstractmethod
    def check(self) -> None:
        """Raises InputError for whatever can be known to be missing before anything is trained."""

    @abstractmethod
    def plan(self, trials: int, rows: int) -> str:
        """What it is about to do, for people: so many support sets, and so many query rows over all of them."""

    @abstractmethod
    def answer(self, task: Task, support: Sequence[Row], query: Sequence[Row], seed: int) -> Said:
        """What it says of the query rows, which have no answers, knowing the support rows and the words of
        `task.labels`; of `task` it reads no row. Raises InputError where it can't go on."""

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """What a reader of the results wants to know; nothing of this machine."""

    def spent(self) -> Mapping[str, Any]:
        """Costs of its own, for the results."""
        return {}


def examine(rival: Rival, exam: Exam, support: Support) -> tuple[dict[str, float], float, Scored | None]:
    """As with a learner: metrics on one support set, the seconds it took to adapt, what was said of every query row;
    None of that where no answer has a probability, and `no_label` among the metrics in place of `ece`."""
    asked = np.flatnonzero(~support.excluded)
    rows = [exam.rows[n] for n in asked]
    query = [question for row in rows if (question := exam.form.question(row))]
    said = rival.answer(exam.task, support.rows, query, exam.protocol.seed)
    if not rival.probable:
        found, none = said.values.argmax(1), len(exam.task.labels)
        right = np.array([row["label"] for row in rows])
        return score(found, right, none + 1) | {"no_label": float((found == none).mean())}, said.adapt_s, None
    values = np.zeros((len(exam.rows), said.values.shape[1]))
    values[asked] = said.values
    scored = Scored(values, np.ones(len(values), np.int64), np.zeros(len(values), np.int64))
    return exam.judge(scored, support), said.adapt_s, scored


def count_asked(tasks: Sequence[Task], protocol: Protocol) -> tuple[int, int]:
    """Support sets, and query rows over all of them, at the most."""
    each = len(protocol.shots) * protocol.episodes
    pools = [len(task.pools.get("test", task.pools["train"])) for task in tasks]
    return each * len(tasks), each * sum(min(rows, protocol.test_rows or rows) for rows in pools)
