"""Rows as they stand in a file, and the checks of cells that the forms share. Every error names file and line."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as brief
from typing import Any, cast

from metanlp.core.errors import InputError
from metanlp.core.types import Meaning

SINGLE, PAIR = ("text",), ("text_a", "text_b")
TEXTS = (*SINGLE, *PAIR)  # columns of a text, or of two
# What other programs write where there is no label. "none" is not among them: it is the name of many a class.
NO_LABEL = ("NA", "<NA>", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null")
MISSING = object()  # the value of a cell that is not there
INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
DECIMAL = re.compile(r"[+-]?[0-9]*\.[0-9]+([eE][+-]?[0-9]+)?|[0-9]+\.")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")  # where only numbers are meant
SURROGATE = re.compile("[\ud800-\udfff]")
INVISIBLE = re.compile(r"[\u00ad\u200b\u2060\ufeff]|^[\s\u200c\u200d]+|[\s\u200c\u200d]+$")
"""Characters of a label that nobody sees. Joiners (200c, 200d) are part of the spelling inside a word or an emoji."""


class Untyped(str):
    """Text of a cell that may spell a number; whether it is one is decided for all rows of its task together."""


@dataclass(frozen=True)
class Cells:
    """One record of a file, under our names of columns."""

    where: str  # file:line
    values: Mapping[str, object]  # by the file's names
    names: Mapping[str, str]  # ours -> the file's, of the columns that are read

    def __getitem__(self, name: str) -> object:
        return self.values.get(self.names[name], MISSING)

    def text(self, name: str) -> str:
        """A text that is not blank. Raises InputError."""
        value, what = self[name], f"{self.where}: {self.names[name]!r}"
        if not isinstance(value, str):
            raise InputError(f"{what} is {came(value)}; every row needs a text there")
        if not value.strip():
            raise InputError(f"{what} is {'blank' if value else 'empty'}; every row needs a text there")
        if "\0" in value:
            raise InputError(f"{what} holds a NUL character; remove it")
        if not encodable(value):
            raise InputError(f"{what} holds half of a surrogate pair; write the character whole or remove it")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, which may be empty. Raises InputError."""
        return texts(self[name], f"{self.where}: {name!r}")


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One example as it stands in a file, checked by its form."""

    where: str  # file:line, for errors that show up later
    form: str  # a name in `metanlp.forms.FORMS`
    texts: Mapping[str, Any]  # the row without its answer
    label: Any  # the answer as it is written
    key: int = 0  # the identity of the row: a hash of its texts
    word: str | None = None  # the label in words, where the file has a column for it
    respelt: bool = False  # whether the file has its label with invisible characters, or letters in parts


Pools = Mapping[str, Sequence[LabelledRow]]
"""Rows by pool: "train", which says what answers there are, "validation", "test"."""


Numbering = Callable[[LabelledRow], Mapping[str, Any]]
"""From an answer as it is written to its part of a `Row`, where labels are numbers."""


def texts(value: object, what: str) -> tuple[str, ...]:
    """A list of texts, whole and without NUL. Raises InputError."""
    if isinstance(value, str) and value.strip().startswith("["):
        raise InputError(f'{what} begins like a list and is not valid JSON; write ["one", "two"]')
    if not isinstance(value, list | tuple):
        raise InputError(f'{what} is {came(value)}; write a list, ["one", "two"]')
    for item in cast("list[object]", value):
        if not isinstance(item, str):
            raise InputError(f"{what} holds {kind(item)}; every item has to be text")
        if "\0" in item or not encodable(item):
            raise InputError(f"{what} holds a NUL character or half of a surrogate pair; remove it")
    return tuple(cast("list[str]", value))


def label_word(word: str, what: str) -> str:
    """`word`, `composed`, so that labels that look the same are the same, and fit for the name of a class. Raises
    InputError."""
    word = composed(word)
    if not word:
        raise InputError(f"{what} is blank; write a word or an integer")
    if not is_plain(word) or len(word) > 200:
        raise InputError(f"{what} is {brief(word)}; a label is at most 200 printable characters on one line")
    if word in NO_LABEL:
        raise InputError(
            f"{what} is {word!r}, which says that there is none; write one, or give the class another name"
        )
    return word


def truth_word(value: bool, known: Iterable[str] = ()) -> str:
    """A label that is true or false in letters: those of the labels `known`, else Excel's, `TRUE`."""
    word = str(value).upper()
    return next((label for label in known if str(label).upper() == word), word)


def composed(word: str) -> str:
    """In letters that are whole (NFC), without invisible characters or spaces around it."""
    return word.strip() if word.isascii() else INVISIBLE.sub("", unicodedata.normalize("NFC", word))


def taught_words(
    pools: Pools, words: Callable[[LabelledRow], Iterable[str]], first: Sequence[str], name: str
) -> tuple[str, ...]:
    """The words in the training rows of task `name`: those of `first`, then the others sorted. Raises InputError where
    no training row has any, and for a word of another pool that is not among them."""
    found = sorted({word for row in pools["train"] for word in words(row)})
    if not found:
        where = pools["train"][0].where
        raise InputError(f"{where}: no row of task {name!r} has a label to train on; give rows with some")
    check_taught(pools, words, {*first, *found})
    return (*first, *found)


def numbers_of(meaning: Meaning) -> dict[str, int]:
    """The number of each label, by its word."""
    return {str(label): number for number, label in enumerate(meaning.labels)}


def require_known(
    rows: Sequence[LabelledRow], words: Callable[[LabelledRow], Iterable[str]], known: Collection[str]
) -> None:
    """Raises InputError for the first row with a label that is not among `known`."""
    for row in rows:
        for word in words(row):
            if word not in known:
                raise InputError(
                    f"{row.where}: the label {brief(word)} was never seen by this model, which knows "
                    f"{listed(known)}; mend it, or leave the row out"
                )


def check_taught(pools: Pools, labels: Callable[[LabelledRow], Iterable[Any]], taught: Container[Any]) -> None:
    """Raises InputError for a label that is not among `taught`, those of the training rows."""
    for pool, rows in pools.items():
        for row in rows:
            for label in labels(row):
                if label not in taught:
                    raise InputError(
                        f"{row.where}: label {label!r} of {pool!r} is not among the training rows; add or drop it"
                    )


def require_pairs(row: Mapping[str, Any], pairs: bool, where: str) -> None:
    """Raises InputError for a single text where a model learned from `pairs` of texts, or the other way round."""
    if ("text_a" in row) != pairs:
        given, learned = ("a single text", "pairs of texts") if pairs else ("a pair of texts", "single texts")
        raise InputError(f"{where} is {given}, but the model learned from {learned}; give it such")


def listed(names: Iterable[str]) -> str:
    """Names for an error: the first of many."""
    found = list(names)
    return ", ".join(brief(name) for name in found[:12]) + (", …" if len(found) > 12 else "") or "none"


def came(value: object) -> str:
    """What a cell holds, for an error."""
    return "missing" if value is MISSING else brief(value) if isinstance(value, str) else kind(value)


def kind(value: object) -> str:
    """What JSON calls a value; NaN is what pandas has for a cell with nothing in it."""
    if isinstance(value, float) and value != value:
        return "NaN"
    names = {"NoneType": "null", "dict": "an object", "list": "a list", "str": "text", "bool": "true or false"}
    names |= {"int": "an integer", "float": "a decimal", "bytes": "binary data"}
    return names.get(type(value).__name__, f"a {type(value).__name__}")


def is_plain(text: str) -> bool:
    """Whether `text` stands on one line as it is: no control characters, no half pairs, nothing that turns the line."""
    if text.isascii() and text.isprintable():
        return True
    turning = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    return not any(char in turning or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text)


def encodable(text: str) -> bool:
    """Whether UTF-8 can hold `text`: no half of a surrogate pair."""
    return text.isascii() or not SURROGATE.search(text)
