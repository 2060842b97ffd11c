"""One example is a text, or a pair of texts, with one label out of a task's own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from metanlp.core.errors import InputError
from metanlp.core.types import Meaning, Row
from metanlp.forms.base import Form, Scored, softmax
from metanlp.forms.metrics import calibration, score
from metanlp.forms.reading import (
    DECIMAL,
    INTEGER,
    MISSING,
    Cells,
    LabelledRow,
    Numbering,
    Pools,
    Untyped,
    came,
    check_taught,
    kind,
    label_word,
    numbers_of,
    require_known,
    truth_word,
)

if TYPE_CHECKING:
    from metanlp.forms.heads.prototypes import PrototypeHead


class Classify(Form):
    """Cross-entropy over the classes of an episode."""

    name, metric, answer = "classify", "accuracy", "label"
    answer_columns, untyped = ("label", "label_text"), ("label",)
    prefix = ""
    least = 2
    shot = "rows a class"

    def make_head(self) -> PrototypeHead:
        from metanlp.forms.heads.prototypes import PrototypeHead

        return PrototypeHead()

    def read_answer(self, cells: Cells, row: Row) -> str | int:
        """A word, or an integer; true or false, which `typed` takes where a model knows such labels."""
        value, what = cells["label"], f"{cells.where}: the label"
        if isinstance(value, str):
            word = label_word(value, what)
            return Untyped(word) if isinstance(value, Untyped) else word
        if not isinstance(value, int):
            number = "NaN" if value != value else f"the decimal {value}"
            found = number if isinstance(value, float) else came(value)
            raise InputError(f"{what} is {found}; write a word or an integer")
        if abs(value) >= 10**18:
            raise InputError(f"{what} is an integer of more than 18 digits; write a word or a smaller one")
        return value

    def read_labelled(self, cells: Cells) -> LabelledRow:
        row, written, word = super().read_labelled(cells), cells["label"], cells["label_text"]
        row = replace(row, respelt=isinstance(written, str) and written.strip() != row.label)
        if word in (MISSING, None) or (isinstance(word, str) and not word.strip()):
            return row
        if not isinstance(word, str):
            found = f"{cells.where}: label_text is {kind(word)}"
            raise InputError(f"{found}; write the label in words or leave the cell out")
        return replace(row, word=label_word(word, f"{cells.where}: label_text"))

    def typed(self, rows: Sequence[LabelledRow], known: Collection[str] = ()) -> Callable[[LabelledRow], LabelledRow]:
        """`Untyped` labels become integers if all labels of the task are integers, else words. Raises InputError where
        all are numbers, and some decimals."""
        untyped = [row for row in rows if isinstance(row.label, Untyped)]
        decimals = [row for row in untyped if DECIMAL.fullmatch(row.label)]
        words = [row for row in untyped if not DECIMAL.fullmatch(row.label) and not INTEGER.fullmatch(row.label)]
        whole = not words and not any(type(row.label) is str for row in rows)
        if whole and decimals:
            raise InputError(
                f"{decimals[0].where}: the label is the decimal {decimals[0].label}; write a word or an integer, or "
                "name the column as a score: --columns score=…"
            )
        truths = [row for row in rows if isinstance(row.label, bool)]
        if new := [row for row in truths if truth_word(row.label, known) not in known]:
            raise InputError(f"{new[0].where}: the label is true or false; write a word or an integer")

        def said(row: LabelledRow) -> LabelledRow:
            if isinstance(row.label, bool):
                return replace(row, label=truth_word(row.label, known))
            if isinstance(row.label, Untyped):
                return replace(row, label=(int if whole else str)(row.label))
            return row

        return said

    def meaning(self, pools: Pools, name: str) -> Meaning:
        words = label_words([row for rows in pools.values() for row in rows])
        taught = {row.label for row in pools["train"]}
        if len(taught) < 2:
            where, only = pools["train"][0].where, next(iter(taught))
            raise InputError(
                f"{where}: task {name!r} has only the class {only!r} to train on; give rows of two classes or more"
            )
        check_taught(pools, lambda row: [row.label], taught)
        return Meaning(self.name, tuple(words.values()))

    def numbering(self, rows: Sequence[LabelledRow], meaning: Meaning) -> Numbering:
        numbers, words = numbers_of(meaning), label_words(rows)
        require_known(rows, lambda row: [words[row.label]], numbers)
        return lambda row: {"label": numbers[words[row.label]]}

    def shots_of(self, row: Row) -> tuple[int, ...]:
        return (row["label"],)

    def gold(self, row: Row, meaning: Meaning) -> Sequence[int]:
        return (row.get("label", 0),)

    def renumbered(self, gold: np.ndarray, classes: Sequence[int] | np.ndarray) -> np.ndarray:
        return np.searchsorted(classes, gold)

    def answers(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> list[dict[str, Any]]:
        probabilities = softmax(scored.values)
        return [{"label": meaning.labels[int(p.argmax())], "probability": float(p.max())} for p in probabilities]

    def metrics(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> dict[str, float]:
        found = score(scored.values.argmax(1), np.array([row["label"] for row in rows]), len(meaning.labels))
        return found | {"ece": calibration(*self.sure(scored, rows))}

    def truth(self, row: Row, meaning: Meaning) -> Any:
        return meaning.labels[row["label"]]

    def sure(self, scored: Scored, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
        return softmax(scored.values).max(1), scored.values.argmax(1) == np.array([row["label"] for row in rows])


def label_words(rows: Sequence[LabelledRow]) -> dict[Any, str]:
    """Label as written -> its word, in index order: integers ascending, strings sorted. Raises InputError."""
    first, written, owners = rows[0], dict[Any, LabelledRow](), dict[str, Any]()
    for row in rows:
        if type(row.label) is not type(first.label):
            raise InputError(
                f"{row.where}: the label is {row.label!r}, but {first.where} has {first.label!r}; "
                "write all labels of a task as words, or all as integers"
            )
        known = written.get(row.label)
        if known is None or known.word is None:
            written[row.label] = row
        elif row.word is not None and row.word != known.word:
            raise InputError(
                f"{row.where}: label {row.label!r} is called {row.word!r}, but {known.where} calls it {known.word!r}; "
                "give each label one label_text"
            )
    words = {label: written[label].word or str(label) for label in sorted(written)}
    for label, word in words.items():
        if (other := owners.setdefault(word, label)) != label:
            raise InputError(
                f"{written[label].where}: labels {other!r} and {label!r} are both called {word!r}; rename one"
            )
    return words
