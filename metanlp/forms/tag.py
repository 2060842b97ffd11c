"""One example is a sentence in words, some of which are entities: a class a word, the first class is "O", none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from metanlp.forms.base import Scored, folded
from metanlp.forms.classify import Classify
from metanlp.metrics import span_sets
from metanlp.types import Row, Task

Span = tuple[int, int, int]
"""First word, word after the last, class."""

OUTSIDE = 0  # the class of words in no entity


class Tag(Classify):
    """Words are classified each on its own; neighbours of one class are one entity (the IO scheme). Two entities of one
    class side by side can't be told apart by it, which costs: entities are judged as whole spans."""

    name, metric, answer = "tag", "micro_f1", "entities"
    asks = "a text, or a row with `tokens`"
    one_class, least, words = False, 1, True

    def question(self, item: Any) -> Row | None:
        if isinstance(item, str):
            return in_words(item)
        if not isinstance(item, Mapping):
            return None
        if "tokens" not in item:
            return in_words(item["text"]) if isinstance(item.get("text"), str) else None
        tokens: Any = item["tokens"]
        whole = isinstance(tokens, list | tuple) and all(isinstance(t, str) and t.split() == [t] for t in tokens)
        return {"tokens": tuple(tokens)} if whole else None

    def texts(self, row: Row) -> tuple[tuple[str, ...], ...]:
        return ((" ".join(row["tokens"]),),)

    def key(self, row: Row) -> tuple[str, ...]:
        return (folded(" ".join(row["tokens"])),)

    def shots_of(self, row: Row) -> tuple[int, ...]:
        """Each entity is a shot."""
        return tuple(label for _, _, label in row["spans"])

    def gold(self, row: Row, task: Task) -> Sequence[int]:
        found = np.full(len(row["tokens"]), OUTSIDE)
        for start, end, label in row.get("spans", ()):
            found[start:end] = label
        return found.tolist()

    def episode_classes(self, chosen: np.ndarray) -> np.ndarray:
        return np.array([OUTSIDE, *chosen])

    def renumbered(self, gold: np.ndarray, classes: Sequence[int] | np.ndarray) -> np.ndarray:
        """Entities of classes that take no part are none."""
        place = np.full(max(*classes, gold.max(initial=0)) + 1, OUTSIDE)
        place[list(classes)] = range(len(classes))
        return place[gold]

    def answers(
        self, scored: Scored, rows: Sequence[Row], labels: Sequence[str], scale: tuple[float, float]
    ) -> list[dict[str, Any]]:
        return [
            {"entities": [entity(row, span, labels) for span in spans]}
            for row, spans in zip(rows, told(scored, rows), strict=True)
        ]

    def metrics(self, scored: Scored, rows: Sequence[Row], task: Task) -> dict[str, float]:
        return span_sets(told(scored, rows), [row["spans"] for row in rows], len(task.labels))

    def truth(self, row: Row, labels: Sequence[str]) -> list[dict[str, Any]]:
        return [entity(row, span, labels) for span in row["spans"]]

    def sure(self, scored: Scored, rows: Sequence[Row]) -> None:
        """Words have probabilities, entities have none."""

    def wrong_by(self, scored: Scored, rows: Sequence[Row], task: Task) -> np.ndarray:
        """Entities too many and too few."""
        pairs = zip(told(scored, rows), rows, strict=True)
        return np.array([len({*spans} ^ {(a, b, c) for a, b, c in row["spans"]}) for spans, row in pairs])


def told(scored: Scored, rows: Sequence[Row]) -> list[list[Span]]:
    """The entities that scores say; words that the model could not see, beyond its longest text, are none."""
    best, found, at = scored.values.argmax(1), list[list[Span]](), 0
    for row, count in zip(rows, scored.counts.tolist(), strict=True):
        classes = np.full(len(row["tokens"]), OUTSIDE)
        classes[scored.places[at : at + count]] = best[at : at + count]
        found.append(list(runs(classes.tolist())))
        at += count
    return found


def runs(classes: Sequence[int]) -> Iterator[Span]:
    """Neighbours of one class other than none."""
    start = 0
    for place, label in enumerate(classes):
        last = place + 1 == len(classes) or classes[place + 1] != label
        if last and label != OUTSIDE:
            yield start, place + 1, label
        start = place + 1 if last else start


def entity(row: Row, span: Span, labels: Sequence[str]) -> dict[str, Any]:
    """An entity in words; in a text that came whole, places count characters, else words."""
    first, after, label = span
    if "text" not in row:
        return {"label": labels[label], "start": first, "end": after, "text": " ".join(row["tokens"][first:after])}
    start, end = row["offsets"][first][0], row["offsets"][after - 1][1]
    return {"label": labels[label], "start": start, "end": end, "text": row["text"][start:end]}


def in_words(text: str) -> Row:
    """A text cut into words and marks, with the places of each."""
    found = list(re.finditer(r"\w+(?:[-'’.&]\w+)*|[^\w\s]", text))
    return {"text": text, "tokens": [word.group() for word in found], "offsets": [word.span() for word in found]}
