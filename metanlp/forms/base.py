"""The contract of a form: what one example is, what its answer is, what the answer costs, how answers are judged.

A row has *units*, the things that get scores: a text has one, a question one a choice, a sentence one a word.
Letters: N units, R rows, K scores a unit, T tasks.

Losses and heads import torch, which takes a second, where they are used: rows are read and described without it.
"""

from __future__ import annotations

import hashlib
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from metanlp.core.offsets import spread
from metanlp.core.types import Batch, Meaning, Row
from metanlp.forms.reading import PAIR, SINGLE, TEXTS, Cells, LabelledRow, Numbering, Pools

if TYPE_CHECKING:
    from torch import Tensor

    from metanlp.forms.heads.base import Head


@dataclass(frozen=True)
class Scored:
    """Scores of R rows, row after row."""

    values: np.ndarray  # (N, K) scores of the units that the model could see
    counts: np.ndarray  # (R,) number of units of each row
    places: np.ndarray  # (N,) place of each unit within its row: which choice, which word
    texts: tuple[str, ...] = ()  # what was written for each row, in forms that are `written`: R

    def rows(self) -> list[np.ndarray]:
        """The scores of each row: R arrays (units, K)."""
        return np.split(self.values, np.cumsum(self.counts)[:-1])

    def of(self, rows: np.ndarray) -> Scored:
        """The scores of some rows, by number, in that order."""
        units = spread(np.cumsum([0, *self.counts]), rows)
        texts = tuple(self.texts[row] for row in rows) if self.texts else ()
        return Scored(self.values[units], self.counts[rows], self.places[units], texts)


class Loss(Protocol):
    """What scores cost in nats, a mean over each task's units: (N, K) -> (T,). `weight` (N,) leaves units out; 0 for a
    task of which none is left."""

    def __call__(self, scores: Tensor, batch: Batch, weight: Tensor | None = None) -> Tensor: ...


def mean_per_task(each: Tensor, batch: Batch, weight: Tensor | None) -> Tensor:
    """Weighted mean over the units of each task: (N,) -> (T,); 0 where all weights are 0."""
    import torch

    from metanlp.forms.heads.base import per_task

    weight = torch.ones_like(each) if weight is None else weight
    return per_task(each * weight, batch) / per_task(weight, batch).clamp(min=1)


def class_loss(scores: Tensor, batch: Batch, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy, for class targets."""
    from torch.nn.functional import cross_entropy

    return mean_per_task(cross_entropy(scores, batch.targets, reduction="none"), batch, weight)


class Objective:
    """What methods know of a form: how the units of a batch are scored, and what a score costs."""

    name: ClassVar[str]  # as in `FORMS`, or in `OBJECTIVES` alone
    prefix: ClassVar[str]  # in front of the keys of the head's part of θ
    loss: ClassVar[Loss] = staticmethod(class_loss)
    by_class: ClassVar[bool] = True  # shots are counted for each class; else in rows
    one_class: ClassVar[bool] = True  # a row is a shot of one class at the most
    class_targets: ClassVar[bool] = True  # a unit has one of its task's classes: targets are its index; else decimals
    curvature: ClassVar[float] = 1.0  # of the loss, by that of cross-entropy: inner steps are so much shorter

    @cached_property
    def head(self) -> Head:
        """From features to scores."""
        return self.make_head()

    def make_head(self) -> Head:
        """A new one, of the form's own kind."""
        raise NotImplementedError

    @property
    def single_label(self) -> bool:
        """Whether each row has one of its task's labels."""
        return self.by_class and self.one_class


class Form(Objective, ABC):
    """Stateless: a form is a set of pure functions over rows, scores and answers, and of facts about them."""

    metric: ClassVar[str]  # by which a task is judged
    answer: ClassVar[str]  # the key of `answers` whose value `predict` returns
    shown: ClassVar[str] = ""  # the key whose value is shown to people, where it is another

    # how a row is read
    question_columns: ClassVar[tuple[str, ...]] = TEXTS  # of a file: what the model reads; of TEXTS one kind
    answer_columns: ClassVar[tuple[str, ...]]  # the first tells rows of this form from others; more may be missing
    plain: ClassVar[tuple[str, ...]] = ()  # of the answer columns those that may stand in place of the first
    whole_texts: ClassVar[bool] = False  # where no answer is needed, a text may stand for the question's own columns
    untyped: ClassVar[tuple[str, ...]] = ()  # columns of which CSV does not say whether they hold numbers or words
    numbers: ClassVar[tuple[str, ...]] = ()  # columns that hold numbers, which CSV writes as text
    lists: ClassVar[tuple[str, ...]] = ()  # columns that hold lists, which CSV writes as JSON
    usual: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # column -> its names on the Hub, where they are its own
    answer_type: ClassVar[type | None] = None  # of the answers of texts on the Hub, where not a word or an integer
    asks: ClassVar[str] = "a text, two texts, or a row with `text`"  # what a row without its answer may be
    # The columns of an example that comes as a tuple, by its length; the answer is the last of the shortest.
    tuples: ClassVar[Mapping[int, tuple[str, ...]]] = {2: (*SINGLE, "label"), 3: (*PAIR, "label")}

    # how it is drawn
    least: ClassVar[int] = 1  # classes with shots that an episode needs
    background: ClassVar[bool] = False  # the first class is that of units in no class: it stays as common as it is
    shot: ClassVar[str] = "rows"  # what a number of shots counts
    words: ClassVar[bool] = False  # units are the words of a text; else the texts
    written: ClassVar[bool] = False  # answers are written by a model that writes; else read off scores of an encoder

    # how it is published
    hub_task: ClassVar[str] = "text-classification"  # what the Hub calls such a task
    example: ClassVar[Any] = "keyboard has three dead keys"  # a question, as `asks` says
    pair: ClassVar = ("a man plays a guitar", "somebody makes music")  # one of two texts, where a form may have such
    # Two of `tuples`, to show how a learner is used.
    few: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("The printer jams again", "equipment"),
        ("My badge stopped working", "access"),
    )

    def read(self, cells: Cells) -> Row:
        """The question of a record. Raises InputError."""
        return {name: cells.text(name) for name in TEXTS if name in cells.names}

    @abstractmethod
    def read_answer(self, cells: Cells, row: Row) -> Any:
        """The answer of a record whose question is `row`, as it is written. Raises InputError."""

    def read_labelled(self, cells: Cells) -> LabelledRow:
        """The question and the answer of a record. Raises InputError."""
        row = self.read(cells)
        return LabelledRow(cells.where, self.name, row, self.read_answer(cells, row), self.identity(row))

    def typed(self, rows: Sequence[LabelledRow], known: Collection[str] = ()) -> Callable[[LabelledRow], LabelledRow]:
        """How answers are read that don't say alone what they are, given all rows of a task, and the labels that are
        `known` where a model learned it. Raises InputError."""
        return lambda row: row

    def meaning(self, pools: Pools, name: str) -> Meaning:
        """What the answers of task `name` mean, by its training rows. Raises InputError for answers that can't be
        learned from, or don't go together."""
        return Meaning(self.name)

    def numbering(self, rows: Sequence[LabelledRow], meaning: Meaning) -> Numbering:
        """The function from an answer as written to its part of a row, for these rows. Raises InputError for an answer
        that `meaning` does not have."""
        return lambda row: {self.answer_columns[0]: row.label}

    def question(self, item: Any) -> Row | None:
        """A row without its answer from what `asks` says, else None."""
        if isinstance(item, Mapping):
            if "text" in item and not item.keys().isdisjoint(PAIR):
                return None  # as where it is taught: it may be one text or two
            item = (item["text"],) if "text" in item else (item.get("text_a"), item.get("text_b"))
        parts = (item,) if isinstance(item, str) else tuple(item) if isinstance(item, Sequence) else ()
        if len(parts) not in (1, 2) or not all(isinstance(part, str) for part in parts):
            return None
        return dict(zip(SINGLE if len(parts) == 1 else PAIR, parts, strict=True))

    def texts(self, row: Row) -> tuple[tuple[str, ...], ...]:
        """What the model reads: one text, or one for each choice, each of one part or two."""
        return ((row["text"],) if "text" in row else (row["text_a"], row["text_b"]),)

    def title(self, row: Row) -> tuple[str, ...]:
        """The texts by which people know the row."""
        return self.texts(row)[0]

    def key(self, row: Row) -> tuple[str, ...]:
        """The row's identity for the leakage check: its texts, `folded`."""
        return tuple(folded(part) for text in self.texts(row) for part in text)

    def identity(self, row: Row) -> int:
        """A 64-bit hash of `key`: equal for rows that are the same."""
        # ascii and not repr, which asks this Python's Unicode tables what can be printed.
        return int.from_bytes(hashlib.blake2b(ascii(self.key(row)).encode(), digest_size=8).digest(), "little")

    def length(self, row: Row) -> int:
        """Words that the model reads, counted between spaces."""
        return sum(len(part.split()) for text in self.texts(row) for part in text)

    def outputs(self, meaning: Meaning) -> int:
        """K, the number of scores a unit: one a label, one where there are none."""
        return len(meaning.labels) or 1

    def shots_of(self, row: Row) -> tuple[int, ...]:
        """The classes of which the row is a shot, one as often as it occurs; () where rows are counted."""
        return ()

    def episode_classes(self, chosen: np.ndarray) -> np.ndarray:
        """The classes of an episode's targets, where these were chosen for it."""
        return chosen

    @abstractmethod
    def gold(self, row: Row, meaning: Meaning) -> Sequence[Any]:
        """The answer of each unit, as numbers; any where the row has no answer."""

    def renumbered(self, gold: np.ndarray, classes: Sequence[int] | np.ndarray) -> np.ndarray:
        """Answers of units, as numbers within the classes of an episode."""
        return gold

    @abstractmethod
    def answers(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> list[dict[str, Any]]:
        """The answer to each row, by name, with its probability where it has one."""

    @abstractmethod
    def metrics(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> dict[str, float]:
        """`self.metric` and others, by name; `ece` where an answer has a probability."""

    def truth(self, row: Row, meaning: Meaning) -> Any:
        """The right answer, as the value of `answers` that is shown to people."""
        return row[self.answer]

    def marked(self, row: Row, answer: Mapping[str, Any]) -> tuple[str, int, int] | None:
        """The text of the row in which an answer of `answers` stands, with its first character and the one after its
        last; None for one that stands in none."""
        return None

    def sure(self, scored: Scored, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray] | None:
        """The probability of each answer, and whether it is right: (R,), (R,) bool; None where there is none."""
        return None

    def wrong_by(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> np.ndarray:
        """How wrong each answer is, 0 where it is right: (R,). By default the probability of a wrong answer."""
        sure = self.sure(scored, rows)
        assert sure is not None  # else a form has a measure of its own
        return np.where(sure[1], 0.0, sure[0])


def folded(text: str) -> str:
    """Without differences of case, compatible characters and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def softmax(values: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    odds = np.exp(values - values.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)
