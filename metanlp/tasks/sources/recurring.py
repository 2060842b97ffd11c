"""Questions from plain text, which need no labels: where the words that were masked stand once more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metanlp.core.errors import InputError
from metanlp.core.types import MASK, Task
from metanlp.forms.span import Span
from metanlp.forms.words import in_words
from metanlp.tasks.sources.corpus import documents
from metanlp.tasks.sources.unlabelled import COMMON, SENTENCE, order_of

LENGTHS = (40, 150)  # words of a passage, between spaces
LONGEST = 10  # words of a span
AROUND = 12  # words of a question on either side of its mask
LEAST = 16  # passages that make a task


@dataclass(frozen=True)
class RecurringSpans:
    """Recurring span selection (Ram et al. 2021, arXiv 2101.00438, §3): of the places where some words of a passage
    stand, all but one are masked, and that one is the answer."""

    passages: int = 2_000  # the most that are used, spread over the corpus
    seed: int = 0

    def __post_init__(self) -> None:
        if self.passages < LEAST or self.seed < 0:
            raise InputError(f"{self} is not possible: passages from {LEAST} up, the seed from 0")


class Passage(NamedTuple):
    """A passage in words."""

    text: str
    words: list[str]  # in small letters
    offsets: list[tuple[int, int]]  # of each in characters


def recurring_spans(source: str, options: RecurringSpans = RecurringSpans(), column: str = "text") -> Task:
    """One question a passage, deterministic by `seed`: so support and query share none. The corpus is read twice and
    never held. Splinter asks by a token in the passage; here the question is what stands around one of the masks, in
    another sentence than the answer. Raises InputError for a corpus of too few passages with such words."""
    common = {word for word, _ in _counted(source, column).most_common(COMMON)}
    chosen = dict.fromkeys(nsmallest(4 * options.passages, _passages(source, column), key=order_of))
    found = [row for text in chosen if (row := _question(text, common, options.seed))][: options.passages]
    if len(found) < LEAST:
        raise InputError(
            f"{source}: {len(found)} passages of {LENGTHS[0]} to {LENGTHS[1]} words hold words twice, beside the "
            f"{COMMON} commonest; {LEAST} are needed: give longer documents"
        )
    np.random.default_rng(options.seed).shuffle(found)  # type: ignore[arg-type]
    name = Path(source).name or source
    about = "Where the words that are masked in the question stand in the passage."
    return Task(f"recurring/{name}", {"train": found}, (), name, form=Span.name, about=about, labelled=False)


def _passages(source: str, column: str) -> Iterator[str]:
    """Documents, long ones in parts."""
    low, high = LENGTHS
    for _, text in documents([source], column):
        words = text.replace(MASK, " ").split()
        parts = (words[at : at + high] for at in range(0, len(words), high))
        yield from (" ".join(part) for part in parts if len(part) >= low)


def _counted(source: str, column: str) -> Counter[str]:
    counts = Counter[str]()
    for text in _passages(source, column):
        counts.update(word for word in _in_words(text).words if _is_word(word))
    return counts


def _in_words(text: str) -> Passage:
    found = in_words(text)
    return Passage(text, [word.lower() for word in found["tokens"]], found["offsets"])


def _is_word(word: str) -> bool:
    return any(letter.isalnum() for letter in word)


def _question(text: str, common: set[str], seed: int) -> dict[str, Any] | None:
    """The row of a passage, None for one in which nothing recurs in another sentence."""
    passage, rng = _in_words(text), np.random.default_rng([seed, order_of(text)])
    spans = _recurring(passage, common)
    for number in rng.permutation(len(spans)).tolist():
        length, starts = spans[number]
        kept = int(rng.permutation(starts)[0])
        if row := _masked(passage, kept, [start for start in starts if start != kept], length):
            return row
    return None


def _recurring(passage: Passage, common: set[str]) -> list[tuple[int, list[int]]]:
    """Words that stand in a passage twice or more, as their number and where they begin; those within longer ones, at
    all their places, do not count. None begins or ends with a common word or a mark, or has a mark inside."""
    words, taken, found = passage.words, set[int](), list[tuple[int, list[int]]]()
    plain = [_is_word(word) for word in words]
    edge = [fine and word not in common for fine, word in zip(plain, words, strict=True)]
    for length in range(min(LONGEST, len(words)), 0, -1):
        places = dict[tuple[str, ...], list[int]]()
        for start in range(len(words) - length + 1):
            end = start + length
            if edge[start] and edge[end - 1] and all(plain[start:end]):
                starts = places.setdefault(tuple(words[start:end]), [])
                if not starts or start >= starts[-1] + length:
                    starts.append(start)
        new = [starts for starts in places.values() if len(starts) > 1 and not taken.issuperset(starts)]
        found += [(length, starts) for starts in new]
        taken.update(place for starts in new for start in starts for place in range(start, start + length))
    return found


def _masked(passage: Passage, kept: int, others: Sequence[int], length: int) -> dict[str, Any] | None:
    """The passage with its spans masked at `others`, asked for by one of these in another sentence than `kept`."""
    text, end, masks, answer = "", 0, list[int](), (0, 0)
    for start in sorted([kept, *others]):
        first, last = passage.offsets[start][0], passage.offsets[start + length - 1][1]
        text += passage.text[end:first]
        if start == kept:
            answer = len(text), len(text) + last - first
        else:
            masks.append(len(text))
        text, end = text + (passage.text[first:last] if start == kept else MASK), last
    text += passage.text[end:]
    ends = [found.end() for found in SENTENCE.finditer(text)]
    edges = [0, *ends, len(text)]
    for mask in masks:
        number = np.searchsorted(ends, mask, side="right")
        begin, stop = edges[number], edges[number + 1]
        if not begin <= answer[0] < stop:
            before, after = text[begin:mask].split(), text[mask + len(MASK) : stop]
            question = " ".join(before[-AROUND:]) + " " * bool(before) + MASK
            return {"question": question + _words_after(after), "context": text, "answers": (answer,)}
    return None


def _words_after(text: str) -> str:
    """The first words of what follows a mask, as close to it as they stand."""
    glued = "" if not text or text[0].isspace() else " ".join(text.split(maxsplit=1)[:1])
    rest = text[len(glued) :].split()
    return glued + "".join(f" {word}" for word in rest[: AROUND - bool(glued)])
