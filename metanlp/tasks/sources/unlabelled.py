"""Tasks from plain text, which need no labels: which word was masked, and whether one sentence follows another.

Both are ordinary tasks of two texts: a masked sentence and the mask; two sentences. So the view of the second text
reads the mask where a marked phrase stands in labelled tasks.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from heapq import nsmallest
from pathlib import Path
from typing import Any

import numpy as np

from metanlp.core.errors import InputError
from metanlp.core.types import MASK, Task
from metanlp.tasks.sources.corpus import documents

SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+")
WORD = re.compile(r"[^\W\d_]{3,}")
LENGTHS = (5, 60)  # words of a sentence that is used
COMMON = 100  # the most frequent words, which any sentence could hold, are never asked for
DIMENSIONS, NEAR = 256, 2  # of vectors of words, and how far away a neighbour may stand

Read = Callable[[], Iterator[list[str]]]
"""The sentences of each document, from the first on."""


@dataclass(frozen=True)
class MaskedWords:
    """Subset masked language modelling (Bansal et al. 2020, arXiv 2009.08445, §3): N words, sentences that hold one of
    them, and which of them was masked."""

    tasks: int = 300  # how many
    words: int = 4  # N, the classes of a task
    rows: int = 20  # sentences a word
    bands: int = 5  # words of a task are about equally frequent: of one of so many bands
    similar: float = 0.5  # share of the tasks whose words have like neighbours, which is harder: arXiv 2111.01322
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.tasks, self.bands) < 1 or self.words < 2 or self.rows < 4 or not 0 <= self.similar <= 1:
            raise InputError(f"{self} is not possible: from 1 task, 1 band, 2 words and 4 rows on, similar a share")


def masked_words(source: str, options: MaskedWords = MaskedWords(), column: str = "text") -> tuple[Task, ...]:
    """The tasks of a corpus, which is read twice and never held: deterministic by `seed`. A sentence stands in a task
    once, with one of its words masked. Left out are tasks of a word with less than half its sentences, where those
    repeat each other or hold another word of the task. Raises InputError for a corpus of too few words."""
    read: Read = partial(_sentences, source, column)
    rng = np.random.default_rng(options.seed)
    counts, vectors = _counted(read)
    chosen = _chosen(source, counts, vectors, options, rng)
    found = _collected(read, chosen, options)
    kept = [number for number, task in enumerate(found) if 2 * min(map(len, task.values())) >= options.rows]
    if not kept:
        raise InputError(
            f"{source}: too few different sentences: of {options.tasks} tasks each has a word with less than half of "
            f"the {options.rows} rows; give other texts, or fewer rows"
        )
    name = Path(source).name or source
    return tuple(_task(f"masked/{name}_{number:04d}", source, chosen[number], found[number]) for number in kept)


def adjacent_sentences(source: str, most: int = 5_000, column: str = "text", seed: int = 0) -> Task:
    """Whether a sentence follows another in its document, or comes before it (Lan et al. 2020, arXiv 1909.11942, §3.1).
    At most `most` pairs, spread over the corpus, of which no more are held; no sentence stands in two, whatever its
    case. Raises InputError for too few sentences."""
    kept, seen = list[dict[str, Any]](), set[str]()
    for first, second, label in nsmallest(most, _pairs(_sentences(source, column)), key=lambda pair: order_of(pair[0])):
        both = {first.casefold(), second.casefold()}
        if not both & seen:
            kept.append({"text_a": first, "text_b": second, "label": label})
            seen |= both
    if len(kept) < 8:
        raise InputError(f"{source}: has {len(kept)} pairs of sentences; give longer documents, of four sentences on")
    np.random.default_rng(seed).shuffle(kept)  # type: ignore[arg-type]
    name = Path(source).name or source
    labels, about = ("comes before", "follows"), "Whether a sentence follows another, or comes before it."
    return Task(f"adjacent/{name}", {"train": kept}, labels, name, about=about, labelled=False)


def _pairs(read: Iterator[list[str]]) -> Iterator[tuple[str, str, int]]:
    """Of four sentences of a document the first two in their order, 1, and the last two in reverse, 0."""
    for sentences in read:
        distinct = list(dict.fromkeys(sentences))
        for at in range(0, len(distinct) - 3, 4):
            a, b, c, d = distinct[at : at + 4]
            yield from ((a, b, 1), (d, c, 0))


def _sentences(source: str, column: str) -> Iterator[list[str]]:
    low, high = LENGTHS
    for _, text in documents([source], column):
        parts = (" ".join(part.split()) for part in SENTENCE.split(text.replace(MASK, " ")))
        yield [part for part in parts if low <= part.count(" ") + 1 <= high]


def _words(sentence: str) -> list[str]:
    return [word.lower() for word in WORD.findall(sentence)]


def _counted(read: Read) -> tuple[Counter[str], dict[str, np.ndarray]]:
    """In how many sentences each word stands once; and its neighbours as a vector, by random indexing (Kanerva,
    Kristoferson & Holst 2000)."""
    counts, vectors = Counter[str](), defaultdict[str, np.ndarray](lambda: np.zeros(DIMENSIONS, np.float32))
    for sentence in (each for document in read() for each in document):
        words = _words(sentence)
        counts.update(word for word, times in Counter(words).items() if times == 1)
        for place, word in enumerate(words):
            for other in words[max(0, place - NEAR) : place] + words[place + 1 : place + 1 + NEAR]:
                at = order_of(other)
                vectors[word][at % DIMENSIONS] += 1 - 2 * (at // DIMENSIONS % 2)
    return counts, vectors


def _chosen(
    source: str, counts: Counter[str], vectors: dict[str, np.ndarray], options: MaskedWords, rng: np.random.Generator
) -> list[list[str]]:
    """The words of each task."""
    common = {word for word, _ in counts.most_common(COMMON)}
    able = sorted((w for w in counts if counts[w] >= options.rows and w not in common), key=lambda w: (-counts[w], w))
    if len(able) < max(options.words, options.bands):
        raise InputError(
            f"{source}: {len(able)} words stand in {options.rows} or more sentences, beside the {COMMON} commonest; "
            f"tasks of {options.words} words need more text, or fewer rows"
        )
    bands = [band.tolist() for band in np.array_split(np.array(able), min(options.bands, len(able) // options.words))]
    alike = np.stack([vectors[word] / (np.linalg.norm(vectors[word]) + 1e-9) for word in able])
    place, found = {word: number for number, word in enumerate(able)}, list[list[str]]()
    for number in range(options.tasks):
        if rng.random() < options.similar:
            nearness = alike @ alike[rng.integers(len(able))]
            pick = np.argsort(-nearness, kind="stable")[: 3 * options.words]
            found.append([able[n] for n in sorted(rng.permutation(pick)[: options.words])])
        else:
            band = bands[number % len(bands)]
            found.append(sorted(rng.permutation(band)[: options.words].tolist(), key=place.__getitem__))
    return found


def _collected(read: Read, chosen: Sequence[Sequence[str]], options: MaskedWords) -> list[dict[str, list[str]]]:
    """For each task, sentences of each of its words: those first in an order that their text gives."""
    tasks_of = defaultdict[str, list[int]](list)
    for number, words in enumerate(chosen):
        for word in words:
            tasks_of[word].append(number)
    found = [{word: list[tuple[int, str]]() for word in words} for words in chosen]
    for sentence in (each for document in read() for each in document):
        words = Counter(_words(sentence))
        held = Counter(number for word in words for number in tasks_of.get(word, ()))
        for word in (word for word, times in words.items() if times == 1 and word in tasks_of):
            for number in tasks_of[word]:
                if held[number] == 1:  # with two words of a task it would teach one by the other
                    rows = found[number][word]
                    rows.append((order_of(sentence), sentence))
                    if len(rows) >= 2 * options.rows:
                        found[number][word] = sorted(set(rows))[: options.rows]
    return [{word: [text for _, text in sorted(set(rows))[: options.rows]] for word, rows in task.items()}
            for task in found]  # fmt: skip


def _task(name: str, source: str, words: Sequence[str], found: dict[str, list[str]]) -> Task:
    rows = [
        {"text_a": _masked(sentence, word), "text_b": MASK, "label": label}
        for label, word in enumerate(words)
        for sentence in found[word]
    ]
    about = "Which of these words was masked in a sentence."
    return Task(name, {"train": rows}, tuple(words), Path(source).name or source, about=about, labelled=False)


def _masked(sentence: str, word: str) -> str:
    """The sentence with the mask in the word's place."""
    place = next(found for found in WORD.finditer(sentence) if found.group().lower() == word)
    return sentence[: place.start()] + MASK + sentence[place.end() :]


@lru_cache(maxsize=1 << 16)
def order_of(text: str) -> int:
    """A number that depends on the text alone, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
