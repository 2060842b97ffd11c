"""Rows of one task as tokens: what episodes and exams are packed from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np

from metanlp.backbone.packing import pack, words_of
from metanlp.forms import FORMS, Form
from metanlp.ragged import counts, spread
from metanlp.types import Batch, Row, Task, Tokens

Encode = Callable[..., Tokens]
"""Texts to tokens, as `Backbone.encode` does: a sequence of texts, and whether words are wanted."""


class Pool:
    """Rows of one task, tokenised at first use. Letters: R rows, U units of all rows, N units of a batch."""

    def __init__(self, task: Task, rows: Sequence[Row], encode: Encode) -> None:
        self.task, self.rows, self._encode = task, rows, encode
        self.form: Form = FORMS[task.form]
        self.classes = range(self.form.outputs(task))

    @staticmethod
    def of(task: Task, encode: Encode) -> Pool:
        """The training rows of a task, without those whose texts came before."""
        first = dict[tuple[str, ...], Row]()
        for row in task.pools["train"]:
            first.setdefault(FORMS[task.form].key(row), row)
        return Pool(task, list(first.values()), encode)

    @cached_property
    def tokens(self) -> Tokens:
        texts = [text for row in self.rows for text in self.form.texts(row)]
        return self._encode(texts, True) if self.form.words else self._encode(texts)

    @cached_property
    def by_class(self) -> list[np.ndarray]:
        """Numbers of the rows that are a shot of each class, () each; in a form without classes one list of all."""
        if not self.form.by_class:
            return [np.arange(len(self.rows))]
        found: list[list[int]] = [[] for _ in self.task.labels]
        for number, row in enumerate(self.rows):
            for label in dict.fromkeys(self.form.shots_of(row)):
                found[label].append(number)
        return [np.array(rows, dtype=np.int64) for rows in found]

    @cached_property
    def shots(self) -> list[tuple[int, ...]]:
        """The classes of which each row is a shot."""
        return [self.form.shots_of(row) for row in self.rows]

    def pack(self, rows: Sequence[int] | np.ndarray, classes: Sequence[int] | np.ndarray | None = None) -> Batch:
        """These rows as one batch. Answers are counted within `classes`, by default all of the task's."""
        rows, classes = np.asarray(rows), self.classes if classes is None else classes
        units, texts = spread(self._first, rows), spread(self._first_text, rows)
        owner = np.repeat(np.arange(len(rows)), counts(self._first, rows))  # which of `rows` a unit belongs to
        if self.form.words:
            text, word, _ = words_of(self.tokens, texts)
            units = self._first[rows[text]] + word
        targets = self.form.renumbered(self._gold[units], classes)
        group = owner if len(texts) > len(rows) else None
        form, words = self.form.name, self.form.words
        return pack(self.tokens, texts, targets, len(classes), form=form, group=group, by_word=words)

    def units(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of a batch of these rows: how many units each row has (R,), and the place of each in its row (N,)."""
        if self.form.words:
            text, word, _ = words_of(self.tokens, rows)
            return np.bincount(text, minlength=len(rows)), word
        members = counts(self._first, rows)
        return members, spread(self._first, rows) - np.repeat(self._first[rows], members)

    def parts(self, most: int) -> Iterator[np.ndarray]:
        """All rows in parts of about `most` tokens, rows of like length together."""
        ends = self.tokens.starts[self._first_text]
        lengths = np.diff(ends)
        order = np.argsort(lengths, kind="stable")
        part = np.cumsum(lengths[order]) // most
        for number in np.unique(part):
            yield order[part == number]

    @cached_property
    def _answers(self) -> list[Sequence[object]]:
        return [self.form.gold(row, self.task) for row in self.rows]

    @cached_property
    def _gold(self) -> np.ndarray:
        """The answers of all units, row after row: (U, …)."""
        return np.array([answer for answers in self._answers for answer in answers], dtype=self.form.number)

    @cached_property
    def _first(self) -> np.ndarray:
        """Row r has units [first[r], first[r + 1]): (R + 1,)."""
        return np.cumsum([0, *map(len, self._answers)])

    @cached_property
    def _first_text(self) -> np.ndarray:
        """Row r reads texts [first[r], first[r + 1]): (R + 1,)."""
        return np.cumsum([0, *(len(self.form.texts(row)) for row in self.rows)])


def counts_of(task: Task, pool: Callable[[], Pool]) -> tuple[int, ...]:
    """Different training rows a class, () -> (K,), or their number in a form without classes. Rows out of an index know
    it unread; for others `pool` is asked."""
    known: tuple[int, ...] | None = getattr(task.pools["train"], "counts", None)
    return tuple(map(len, pool().by_class)) if known is None else known
