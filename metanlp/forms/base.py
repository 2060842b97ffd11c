"""The contract of a form: what one example is, what its answer is, what the answer costs, how answers are judged.

A row has *units*, the things that get scores: a text has one, a question one a choice, a sentence one a word.
Letters: N units, R rows, K scores a unit, T tasks.
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from metanlp.ragged import spread
from metanlp.types import Batch, Row, Task


@dataclass(frozen=True)
class Scored:
    """What a model says of R rows, row after row."""

    values: np.ndarray  # (N, K) scores of the units that the model could see
    counts: np.ndarray  # (R,) units of each row among them
    places: np.ndarray  # (N,) of a unit within its row: which choice, which word

    def rows(self) -> list[np.ndarray]:
        """The scores of each row: R arrays (units, K)."""
        return np.split(self.values, np.cumsum(self.counts)[:-1])

    @staticmethod
    def joined(parts: Sequence[Scored]) -> Scored:
        """The rows of one after those of the other."""
        values, counts, places = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("values", "counts", "places")
        )
        return Scored(values, counts, places)

    def of(self, rows: np.ndarray) -> Scored:
        """The same of some rows, in their order."""
        units = spread(np.cumsum([0, *self.counts]), rows)
        return Scored(self.values[units], self.counts[rows], self.places[units])


class Form(ABC):
    """Stateless: a form is a set of pure functions over rows, scores and answers."""

    name: ClassVar[str]  # as in `FORMS`
    metric: ClassVar[str]  # by which a task is judged
    answer: ClassVar[str]  # the part of `answers` that says it shortly
    shown: ClassVar[str] = ""  # the part that people read, where it is another
    asks: ClassVar[str] = "a text, two texts, or a row with `text`"  # what a row without its answer may be
    by_class: ClassVar[bool] = True  # shots are counted for each class; else in rows
    least: ClassVar[int] = 2  # classes with shots that an episode needs
    one_class: ClassVar[bool] = True  # a row is a shot of one class at the most
    curvature: ClassVar[float] = 1.0  # of the loss, by that of cross-entropy: inner steps are so much shorter
    number: ClassVar[type] = np.int64  # what answers are as numbers
    words: ClassVar[bool] = False  # units are the words of a text; else the texts

    def question(self, item: Any) -> Row | None:
        """A row without its answer from what `asks` says, else None."""
        if isinstance(item, Mapping):
            item = (item["text"],) if "text" in item else (item.get("text_a"), item.get("text_b"))
        parts: tuple[Any, ...] = (item,) if isinstance(item, str) else ()
        parts = tuple(item) if isinstance(item, Sequence) and not parts else parts
        if len(parts) not in (1, 2) or not all(isinstance(part, str) for part in parts):
            return None
        return {"text": parts[0]} if len(parts) == 1 else {"text_a": parts[0], "text_b": parts[1]}

    def texts(self, row: Row) -> tuple[tuple[str, ...], ...]:
        """What the model reads: one text, or one for each choice, each of one part or two."""
        return ((row["text"],) if "text" in row else (row["text_a"], row["text_b"]),)

    def key(self, row: Row) -> tuple[str, ...]:
        """The row's identity for the leakage check: its texts, with case, compatible characters and white space
        folded."""
        return tuple(folded(part) for text in self.texts(row) for part in text)

    def length(self, row: Row) -> int:
        """Words that the model reads, counted between spaces."""
        return sum(len(part.split()) for text in self.texts(row) for part in text)

    def outputs(self, task: Task) -> int:
        """K, the number of scores a unit."""
        return len(task.labels)

    @abstractmethod
    def shots_of(self, row: Row) -> tuple[int, ...]:
        """The classes of which the row is a shot, one as often as it occurs; () where rows are counted."""

    def episode_classes(self, chosen: np.ndarray) -> np.ndarray:
        """What answers are counted within, where these classes were chosen for an episode."""
        return chosen

    @abstractmethod
    def gold(self, row: Row, task: Task) -> Sequence[Any]:
        """The answer of each unit, as numbers; anything where the row has no answer yet."""

    def renumbered(self, gold: np.ndarray, classes: Sequence[int] | np.ndarray) -> np.ndarray:
        """Answers of units, counted within the classes that take part in an episode."""
        return gold

    @abstractmethod
    def loss(self, scores: Tensor, batch: Batch, weight: Tensor | None = None) -> Tensor:
        """In nats, mean over a task: (N, K) -> (T,). `weight` (N,) leaves units out; none left gives 0."""

    @abstractmethod
    def answers(
        self, scored: Scored, rows: Sequence[Row], labels: Sequence[str], scale: tuple[float, float]
    ) -> list[dict[str, Any]]:
        """What a user is told of each row, by name; `labels` and `scale` are the task's."""

    @abstractmethod
    def metrics(self, scored: Scored, rows: Sequence[Row], task: Task) -> dict[str, float]:
        """How good the scores are: `self.metric` among others, and `ece` where an answer has a probability."""

    @abstractmethod
    def truth(self, row: Row, labels: Sequence[str]) -> Any:
        """The right answer, as the part of `answers` that people read."""

    def sure(self, scored: Scored, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray] | None:
        """The probability of each answer, and whether it is right: (R,), (R,) bool; None where there is none."""
        return None

    def wrong_by(self, scored: Scored, rows: Sequence[Row], task: Task) -> np.ndarray:
        """How wrong each answer is, 0 where it is right: (R,). Here its probability."""
        sure = self.sure(scored, rows)
        assert sure is not None  # else a form has a measure of its own
        return np.where(sure[1], 0.0, sure[0])


def folded(text: str) -> str:
    """Without differences of case, compatible characters and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def mean_per_task(each: Tensor, batch: Batch, weight: Tensor | None) -> Tensor:
    """Weighted mean of units: (N,) -> (T,); 0 for a task whose units all have no weight."""
    weight = each.new_ones(each.shape[0]) if weight is None else weight
    sums = each.new_zeros(batch.count_tasks).index_add(0, batch.task_of, each * weight)
    return sums / each.new_zeros(batch.count_tasks).index_add(0, batch.task_of, weight).clamp(min=1)


def softmax(values: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    odds = np.exp(values - values.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)
