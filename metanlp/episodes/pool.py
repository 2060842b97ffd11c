"""Rows of one task as tokens: episodes and test sets are packed from a pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np

from metanlp.backbone.packing import pack, words_of
from metanlp.core.errors import InputError
from metanlp.core.offsets import counts, spread
from metanlp.core.types import Batch, Meaning, Row, Task, Tokens
from metanlp.forms import FORMS, Form
from metanlp.tasks.rowset import keys_of, targets_of, where

Encode = Callable[..., Tokens]
"""`Backbone.encode`: a sequence of texts, and whether word numbers are needed, to tokens."""


class Pool:
    """Rows of one task, tokenised at first use. Letters: R rows, U units of all rows, N units of a batch."""

    def __init__(self, meaning: Meaning, rows: Sequence[Row], encode: Encode) -> None:
        self.meaning, self.rows, self._encode = meaning, rows, encode
        self.form: Form = FORMS[meaning.form]
        if self.form.written:
            raise InputError(
                f"rows of the form {meaning.form!r} need a model that writes, and this one reads; leave them out, or "
                "train on them by recipes/translation.py"
            )
        self.classes = range(self.form.outputs(meaning))

    @staticmethod
    def of(task: Task, encode: Encode) -> Pool:
        """The training rows of a task; of rows with equal texts the first."""
        rows, form = task.pools["train"], FORMS[task.form]
        first = np.unique(keys_of(rows, form), return_index=True)[1]
        # Rows of an index stay in their file: those of thousands of pools would fill the memory.
        if len(first) < len(rows):
            rows = where(rows, np.isin(np.arange(len(rows)), first), form)
        return Pool(task.meaning, rows, encode)

    @cached_property
    def tokens(self) -> Tokens:
        texts = [text for row in self.rows for text in self.form.texts(row)]
        return self._encode(texts, True) if self.form.words else self._encode(texts)

    @cached_property
    def by_class(self) -> list[np.ndarray]:
        """For each class the numbers of the rows that are a shot of it; without classes one list of all rows."""
        if not self.form.by_class:
            return [np.arange(len(self.rows))]
        if self.form.single_label:
            targets = targets_of(self.rows, self.form)
            ends = np.bincount(targets, minlength=len(self.classes)).cumsum()
            return np.split(np.argsort(targets, kind="stable"), ends[:-1])
        found: list[list[int]] = [[] for _ in self.meaning.labels]
        for number, row in enumerate(self.rows):
            for label in dict.fromkeys(self.form.shots_of(row)):
                found[label].append(number)
        return [np.array(rows, dtype=np.int64) for rows in found]

    @cached_property
    def shots(self) -> list[tuple[int, ...]]:
        """For each row the classes of which it counts as a shot."""
        return [self.form.shots_of(row) for row in self.rows]

    def pack(self, rows: Sequence[int] | np.ndarray, classes: Sequence[int] | np.ndarray | None = None) -> Batch:
        """Packs rows into one batch. Targets are indices into `classes`, by default all classes of the task."""
        rows, classes, form = np.asarray(rows), self.classes if classes is None else classes, self.form
        if self._single:
            texts, gold, group = rows, self._gold[rows], None
        else:
            (units, places), texts = self.units(rows), spread(self._first_text, rows)
            owner = np.arange(len(rows)).repeat(units)  # which of `rows` a unit belongs to
            gold = self._gold[self._first[rows[owner]] + places]
            group = owner if form.words or len(texts) > len(rows) else None
        return pack(
            self.tokens, texts, form.renumbered(gold, classes), len(classes), form=form.name, group=group,
            by_word=form.words, background=form.background,
        )  # fmt: skip

    def whole(self) -> Batch:
        """All rows in one batch, in their order."""
        return self.pack(np.arange(len(self.rows)))

    def units(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For a batch of these rows: units of each row (R,), and the place of each unit within its row (N,)."""
        if self.form.words:
            texts = spread(self._first_text, rows)
            owner = np.repeat(np.arange(len(rows)), counts(self._first_text, rows))
            text, word, _ = words_of(self.tokens, texts)
            before = self._first_word[texts] - self._first[rows[owner]]  # units of the row in texts before
            return np.bincount(owner[text], minlength=len(rows)), before[text] + word
        members = counts(self._first, rows)
        return members, spread(self._first, rows) - np.repeat(self._first[rows], members)

    def parts(self, most: int) -> Iterator[np.ndarray]:
        """Row numbers in parts of about `most` tokens; rows of similar length share a part."""
        ends = self.tokens.starts[self._first_text]
        lengths = np.diff(ends)
        order = np.argsort(lengths, kind="stable")
        part = np.cumsum(lengths[order]) // most
        for number in np.unique(part):
            yield order[part == number]

    @cached_property
    def _answers(self) -> list[Sequence[object]]:
        return [self.form.gold(row, self.meaning) for row in self.rows]

    @cached_property
    def _gold(self) -> np.ndarray:
        """The answers of all units, row after row: (U, …)."""
        kind = np.int64 if self.form.class_targets else np.float32
        return np.array([answer for answers in self._answers for answer in answers], dtype=kind)

    @cached_property
    def _first(self) -> np.ndarray:
        """Row r has units [first[r], first[r + 1]): (R + 1,)."""
        return np.cumsum([0, *map(len, self._answers)])

    @cached_property
    def _single(self) -> bool:
        """Whether each row is one text and one unit, so that all three have the same numbers."""
        numbers = np.arange(len(self.rows) + 1)
        same = np.array_equal(self._first, numbers) and np.array_equal(self._first_text, numbers)
        return same and not self.form.words

    @cached_property
    def _first_word(self) -> np.ndarray:
        """Where words are units, text t has units [first[t], first[t + 1]): (texts + 1,)."""
        texts = (text for row in self.rows for text, *_ in self.form.texts(row))
        return np.cumsum([0, *(text.count(" ") + bool(text) for text in texts)])

    @cached_property
    def _first_text(self) -> np.ndarray:
        """Row r reads texts [first[r], first[r + 1]): (R + 1,)."""
        return np.cumsum([0, *(len(self.form.texts(row)) for row in self.rows)])


def counts_of(task: Task, pool: Callable[[], Pool]) -> tuple[int, ...]:
    """Number of different training rows of each class (K,); in a form without classes of all rows (1,). An index stores
    these numbers; for other rows they come from `pool()`."""
    known: tuple[int, ...] | None = getattr(task.pools["train"], "counts", None)
    return tuple(map(len, pool().by_class)) if known is None else known
