"""What may stand in the column of an answer: a number on a scale, a choice, a set of labels, tags of words."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from reprlib import repr as brief
from typing import cast

from metanlp.errors import InputError
from metanlp.tasks.records import Record, is_plain, kind

# What other programs write where there is no label. "none" is not among them: it is the name of many a class.
NO_LABEL = ("NA", "<NA>", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null")

INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
DECIMAL = re.compile(r"[+-]?[0-9]*\.[0-9]+([eE][+-]?[0-9]+)?|[0-9]+\.")
PREFIX = re.compile(r"([BIELSU])-(.+)")
MISSING = object()

Span = tuple[int, int, str]
"""An entity: first word, word after the last, what it is."""


def as_typed(records: Iterator[Record], names: Mapping[str, str]) -> Iterator[Record]:
    """CSV has only text: a label or answer that spells an integer becomes one, a score a number, and lists are read
    as JSON. What spells something else is refused later."""
    numbers = [names[name] for name in ("label", "answer", "score") if name in names]
    lists = [names[name] for name in ("labels", "choices", "tokens", "tags") if name in names]
    for where, cells in records:
        typed = {name: _number(cells[name]) for name in numbers if name in cells}
        typed |= {name: _list(cells[name], f"{where}: {name!r}") for name in lists if name in cells}
        yield where, cells | typed


def _number(cell: object) -> object:
    text = str(cell).strip()
    return int(text) if INTEGER.fullmatch(text) else float(text) if DECIMAL.fullmatch(text) else cell


def _list(cell: object, what: str) -> object:
    text = str(cell).strip()
    if not text.startswith("["):
        return cell
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f'{what} begins like a list and is not valid JSON; write ["one", "two"]') from None


def read_score(value: object, where: str) -> float:
    """A number on the task's scale. Raises InputError."""
    what = f"{where}: the score is"
    if isinstance(value, bool) or not isinstance(value, int | float):
        came = "missing" if value is MISSING else brief(value) if isinstance(value, str) else kind(value)
        raise InputError(f"{what} {came}; write a number")
    if not math.isfinite(value) or abs(value) > 1e15:
        raise InputError(f"{what} {value}; write a finite number of ordinary size")
    return float(value)


def read_choices(value: object, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Two choices or more, and their letters where there are: {"text": […], "label": ["A", …]}. Raises InputError."""
    letters: tuple[str, ...] = ()
    if isinstance(value, Mapping):
        parts = cast("Mapping[str, object]", value)
        letters = _texts(parts.get("label", []), f"{where}: 'label' of the choices")
        value = parts.get("text", MISSING)
    choices = _texts(value, f"{where}: 'choices'")
    if len(choices) < 2 or len({*choices}) < len(choices) or (letters and len(letters) != len(choices)):
        raise InputError(
            f"{where}: the choices are {brief(choices)}; give two different ones or more, lettered all or none"
        )
    return choices, letters


def read_answer(value: object, choices: Sequence[str], letters: Sequence[str], where: str) -> int:
    """The place of the right choice, given as its number from 0, its letter or its text. Raises InputError."""
    text = str(value).strip()
    if text in letters:
        return letters.index(text)
    if isinstance(value, str) and value in choices:
        return choices.index(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(choices):
        return value
    came = "missing" if value is MISSING else brief(value)
    allowed = f"{', '.join(letters)}, " if letters else ""
    raise InputError(
        f"{where}: the answer is {came}; write {allowed}a number from 0 to {len(choices) - 1} or the choice"
    )


def read_labels(value: object, where: str) -> tuple[str, ...]:
    """The labels of a row, any number of them, none twice. Raises InputError."""
    if isinstance(value, str):
        raise InputError(
            f'{where}: the labels are {brief(value)}; write a list, ["one", "two"]; a task with one label a row has '
            "the column `label`: --columns label=labels"
        )
    labels = tuple(label_word(label, f"{where}: a label") for label in _texts(value, f"{where}: 'labels'"))
    if len({*labels}) < len(labels):
        raise InputError(f"{where}: the labels {brief(labels)} name one twice; remove one of the two")
    return labels


def read_tokens(value: object, where: str) -> tuple[str, ...]:
    """The words of a sentence. Raises InputError."""
    tokens = _texts(value, f"{where}: 'tokens'")
    for token in tokens:
        if not token or any(letter.isspace() for letter in token):
            raise InputError(f"{where}: the word {brief(token)} is empty or holds white space; split it, or remove it")
    if not tokens:
        raise InputError(f"{where}: has no words; give at least one in 'tokens'")
    return tokens


def read_spans(value: object, words: int, where: str) -> tuple[Span, ...]:
    """The entities that tags of `words` words spell: `O`, and `B-X`, `I-X`, also with E, S, L and U, or plain `X`.
    Raises InputError."""
    tags = _texts(value, f"{where}: 'tags'")
    if len(tags) != words:
        raise InputError(f"{where}: has {len(tags)} tags for {words} words; give each word one, `O` for none")
    spans, open_ = list[Span](), False
    for place, tag in enumerate(tags):
        found = PREFIX.fullmatch(tag)
        prefix, word = (found[1], found[2]) if found else ("", tag)
        if word == "O":
            open_ = False
            continue
        word = label_word(word, f"{where}: a tag")
        if open_ and prefix not in ("B", "S", "U") and spans[-1][2] == word:
            spans[-1] = (spans[-1][0], place + 1, word)
        else:
            spans.append((place, place + 1, word))
        open_ = prefix not in ("E", "L", "S", "U")
    return tuple(spans)


def label_word(word: str, what: str) -> str:
    """`word`, fit for the name of a class. Raises InputError."""
    word = word.strip()
    if not word:
        raise InputError(f"{what} is blank; write a word or an integer")
    if not is_plain(word) or len(word) > 200:
        raise InputError(f"{what} is {brief(word)}; a label is at most 200 printable characters on one line")
    if word in NO_LABEL:
        raise InputError(
            f"{what} is {word!r}, which says that there is none; write one, or give the class another name"
        )
    return word


def _texts(value: object, what: str) -> tuple[str, ...]:
    """A list of texts, whole and without NUL."""
    if not isinstance(value, list | tuple):
        came = "missing" if value is MISSING else brief(value) if isinstance(value, str) else kind(value)
        raise InputError(f'{what} is {came}; write a list, ["one", "two"]')
    for item in cast("list[object]", value):
        if not isinstance(item, str):
            raise InputError(f"{what} holds {kind(item)}; every item has to be text")
        if "\0" in item or not encodable(item):
            raise InputError(f"{what} holds a NUL character or half of a surrogate pair; remove it")
    return tuple(cast("list[str]", value))


def encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
