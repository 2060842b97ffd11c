"""One example is a sentence in words, some of which are entities: a class a word, the first class is "O", none."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from reprlib import repr as brief
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from metanlp.core.errors import InputError
from metanlp.core.types import Meaning, Row
from metanlp.forms.base import Form, Scored
from metanlp.forms.metrics import span_sets
from metanlp.forms.reading import (
    Cells,
    LabelledRow,
    Numbering,
    Pools,
    label_word,
    numbers_of,
    require_known,
    taught_words,
)
from metanlp.forms.words import in_words

if TYPE_CHECKING:
    from metanlp.forms.heads.prototypes import PrototypeHead

Span = tuple[int, int, int]
"""First word, word after the last, class."""

OUTSIDE = 0  # the class of words in no entity
PREFIX = re.compile(r"([BIELSU])-(.+)")  # of a tag: where in an entity its word stands
SCHEMES = frozenset("BIES"), frozenset("BILU")  # the prefixes that stand together


class Tag(Form):
    """Each word is classified on its own; neighbours of one class are one entity (the IO scheme). It merges adjacent
    entities of one class, which lowers the scores: entities are judged as whole spans."""

    name, metric, answer = "tag", "micro_f1", "entities"
    asks = "a text, or a row with `tokens`"
    question_columns, answer_columns, whole_texts = ("tokens",), ("tags",), True
    lists = ("tokens", "tags")
    usual: ClassVar = {"tokens": ("tokens",), "tags": ("tags", "ner_tags")}
    prefix = "tag/"
    one_class, words, background = False, True, True
    hub_task, example = "token-classification", "Maria lives in Lima."
    shot = "entities of each class"

    def make_head(self) -> PrototypeHead:
        from metanlp.forms.heads.prototypes import PrototypeHead

        return PrototypeHead()

    def read(self, cells: Cells) -> Row:
        if "tokens" not in cells.names:
            return super().read(cells)
        tokens, where = cells.texts("tokens"), cells.where
        if wrong := [token for token in tokens if token.split() != [token]]:
            raise InputError(
                f"{where}: the word {brief(wrong[0])} is empty or holds white space; split it, or remove it"
            )
        if not tokens:
            raise InputError(f"{where}: has no words; give at least one in 'tokens'")
        return {"tokens": tokens}

    def read_answer(self, cells: Cells, row: Row) -> tuple[str, ...]:
        """The tags as they are written, a word each; `typed` reads the entities off them."""
        tags, where = cells.texts("tags"), cells.where
        if len(tags) != len(row["tokens"]):
            raise InputError(
                f"{where}: has {len(tags)} tags for {len(row['tokens'])} words; give each word one, `O` for none"
            )
        return tuple(label_word(tag, f"{where}: a tag") for tag in tags)

    def typed(self, rows: Sequence[LabelledRow], known: Collection[str] = ()) -> Callable[[LabelledRow], LabelledRow]:
        """Tags become the entities that they spell. All but `O` have a prefix, or none has: beside `phone`, `E-mail` is
        a class."""
        with_prefix = prefixed(rows, known)
        return lambda row: replace(row, label=spelled(row.label, with_prefix, row.where))

    def meaning(self, pools: Pools, name: str) -> Meaning:
        return Meaning(self.name, taught_words(pools, entity_words, ["O"], name))

    def numbering(self, rows: Sequence[LabelledRow], meaning: Meaning) -> Numbering:
        numbers = numbers_of(meaning)
        require_known(rows, entity_words, numbers)
        return lambda row: {"spans": tuple((start, end, numbers[word]) for start, end, word in row.label)}

    def question(self, item: Any) -> Row | None:
        item = {"text": item} if isinstance(item, str) else item
        if not isinstance(item, Mapping):
            return None
        if "tokens" not in item:
            return in_words(item["text"]) if isinstance(item.get("text"), str) else None
        tokens: Any = item["tokens"]
        whole = isinstance(tokens, list | tuple) and all(isinstance(t, str) and t.split() == [t] for t in tokens)
        return {"tokens": tuple(tokens)} if whole else None

    def texts(self, row: Row) -> tuple[tuple[str, ...], ...]:
        return ((" ".join(row["tokens"]),),)

    def shots_of(self, row: Row) -> tuple[int, ...]:
        """Each entity is a shot."""
        return tuple(label for _, _, label in row["spans"])

    def gold(self, row: Row, meaning: Meaning) -> Sequence[int]:
        found = np.full(len(row["tokens"]), OUTSIDE)
        for start, end, label in row.get("spans", ()):
            found[start:end] = label
        return found.tolist()

    def episode_classes(self, chosen: np.ndarray) -> np.ndarray:
        return np.array([OUTSIDE, *chosen])

    def renumbered(self, gold: np.ndarray, classes: Sequence[int] | np.ndarray) -> np.ndarray:
        """Entities of classes outside the episode count as `OUTSIDE`."""
        place = np.full(max(*classes, gold.max(initial=0)) + 1, OUTSIDE)
        place[list(classes)] = range(len(classes))
        return place[gold]

    def answers(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> list[dict[str, Any]]:
        return [
            {"entities": [entity(row, span, meaning.labels) for span in spans]}
            for row, spans in zip(rows, told(scored, rows), strict=True)
        ]

    def metrics(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> dict[str, float]:
        return span_sets(told(scored, rows), [row["spans"] for row in rows], len(meaning.labels))

    def truth(self, row: Row, meaning: Meaning) -> list[dict[str, Any]]:
        return [entity(row, span, meaning.labels) for span in row["spans"]]

    def wrong_by(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> np.ndarray:
        """Number of entities that are predicted and wrong, or missed."""
        pairs = zip(told(scored, rows), rows, strict=True)
        return np.array([len({*spans} ^ {(a, b, c) for a, b, c in row["spans"]}) for spans, row in pairs])


def prefixed(rows: Sequence[LabelledRow], known: Collection[str]) -> bool:
    """Whether the tags of the rows have the prefixes of a scheme; else they are plain, as where a whole one is among
    the classes that are `known`. Raises InputError where some have, and others not."""
    places = {tag: row.where for row in reversed(rows) for tag in row.label if tag != "O"}
    if not places.keys().isdisjoint(known):
        return False
    marks = marks_of(places)
    begun = next((word for word, each in marks.items() if "B" in each and each & {"I", "E", "L"}), None)
    bare = next((word for word, each in marks.items() if "" in each), None)
    if begun and bare:
        raise InputError(
            f"{places[bare]}: the tag {brief(bare)} has no prefix, and {brief(f'B-{begun}')} has one at "
            f"{places[f'B-{begun}']}; give one to every tag but O, or to none"
        )
    one_scheme = any({mark for each in marks.values() for mark in each} <= scheme for scheme in SCHEMES)
    opened = all(each & {"B", "I"} for each in marks.values() if each & {"E", "L"})
    return begun is not None or (one_scheme and opened)


def marks_of(tags: Iterable[str]) -> Mapping[str, set[str]]:
    """The classes of tags, if they have prefixes: those that each stands with, "" for none."""
    found = defaultdict[str, set[str]](set)
    for tag in tags:
        match = PREFIX.fullmatch(tag)
        found[match[2] if match else tag].add(match[1] if match else "")
    return found


def spelled(tags: Sequence[str], with_prefix: bool, where: str) -> tuple[tuple[int, int, str], ...]:
    """The entities: (first word, word after the last, class in words) each."""
    spans, open_ = list[tuple[int, int, str]](), False
    for place, tag in enumerate(tags):
        found = PREFIX.fullmatch(tag) if with_prefix else None
        prefix, word = (found[1], label_word(found[2], f"{where}: a tag")) if found else ("", tag)
        if word != "O":
            goes_on = open_ and prefix not in ("B", "S", "U") and spans[-1][2] == word
            spans.append((spans.pop()[0] if goes_on else place, place + 1, word))
        open_ = word != "O" and prefix not in ("E", "L", "S", "U")
    return tuple(spans)


def entity_words(row: LabelledRow) -> list[str]:
    """The classes of the entities of a row, as written."""
    return [word for *_, word in row.label]


def told(scored: Scored, rows: Sequence[Row]) -> list[list[Span]]:
    """The entities of each row, by the best class of each word; words beyond the model's maximal length are in none."""
    found, places = list[list[Span]](), np.split(scored.places, np.cumsum(scored.counts)[:-1])
    for row, values, seen in zip(rows, scored.rows(), places, strict=True):
        classes = np.full(len(row["tokens"]), OUTSIDE)
        classes[seen] = values.argmax(1)
        found.append(list(runs(classes.tolist())))
    return found


def runs(classes: Sequence[int]) -> Iterator[Span]:
    """The runs of words of one class, without those of `OUTSIDE`."""
    for label, places in groupby(range(len(classes)), classes.__getitem__):
        start, *more = places
        if label != OUTSIDE:
            yield start, start + 1 + len(more), label


def entity(row: Row, span: Span, labels: Sequence[str]) -> dict[str, Any]:
    """An entity as users see it; `start` and `end` count characters of a text, or words if the row came as tokens."""
    start, end, label = span
    if "text" in row:
        start, end = row["offsets"][start][0], row["offsets"][end - 1][1]
    text = row["text"][start:end] if "text" in row else " ".join(row["tokens"][start:end])
    return {"label": labels[label], "start": start, "end": end, "text": text}
