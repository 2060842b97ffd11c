"""A corpus as tokens on the disk, and passes over texts of which tokens have to be told, each a function of its number.

Letters: P tokens, N texts, M masked tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from metanlp.backbone.packing import pack
from metanlp.backbone.tokens import Chunk, chunks_of
from metanlp.core.errors import InputError
from metanlp.core.offsets import spread
from metanlp.core.settings import to_json
from metanlp.core.storage import disk
from metanlp.core.types import Batch, MaskedPass, Tokens
from metanlp.episodes.sampling import episode_rng

TOKENS, STARTS = "tokens.bin", "starts.bin"
DOCUMENTS = 256  # tokenised at once
KINDS = 3  # what a token is: 0 special, 1 the first of a word, 2 a later one; stands beside its id in one number
ROUNDS = 6  # of the Feistel network


@dataclass(frozen=True)
class Masking:
    """Which tokens are hidden and have to be told."""

    rate: float = 0.15  # share of the tokens: Devlin et al. 2019, arXiv 1810.04805; 0.3 and more: arXiv 2202.08005
    whole_words: bool = True  # all pieces of a word or none

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise InputError(f"the masking rate is {self.rate}; it is a share, between 0 and 1")


@dataclass(frozen=True)
class Chunks:
    """Texts of at most `max_length` tokens, their special tokens in them, in files that are read where needed."""

    folder: Path
    starts: np.ndarray  # (N + 1,) chunk n is [starts[n], starts[n + 1])
    numbers: np.ndarray  # (P,) uint32: id · KINDS + kind

    @staticmethod
    def write(folder: Path, texts: Iterable[str], tokenizer: Any, max_length: int) -> Chunks:
        """Tokenise texts, cut where they are longer, one after the other. Raises InputError for none, StorageError."""
        with disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / TOKENS).open("wb") as tokens, (folder / STARTS).open("wb") as starts:
                end = 0
                starts.write(np.int64(0).tobytes())
                rest = iter(texts)
                while some := list(islice(rest, DOCUMENTS)):
                    for chunk in chunks_of(tokenizer, some, max_length):
                        tokens.write(_numbers(chunk).tobytes())
                        starts.write(np.int64(end := end + len(chunk.ids)).tobytes())
        if not end:
            raise InputError(f"{folder}: no text has a token that could be masked; give a corpus with words")
        return Chunks.open(folder)

    @staticmethod
    def open(folder: Path) -> Chunks:
        with disk(folder):
            starts, numbers = (
                np.memmap(folder / name, dtype=kind, mode="r")
                for name, kind in ((STARTS, np.int64), (TOKENS, np.uint32))
            )
        return Chunks(folder, starts, numbers)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def tokens(self) -> int:
        """P."""
        return int(self.starts[-1])

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids and kinds of the tokens of these chunks, (P,) each, and where each begins, (N + 1,)."""
        ids, kinds = np.divmod(self.numbers[spread(self.starts, rows)].astype(np.int64), KINDS)
        lengths = self.starts[rows + 1] - self.starts[rows]
        return ids, kinds, np.cumsum([0, *lengths])

    def counts(self, vocabulary: int) -> np.ndarray:
        """How often each token occurs, special ones left out: (vocabulary,)."""
        found = np.zeros(vocabulary, np.int64)
        for at in range(0, len(self.numbers), 1 << 20):
            ids, kinds = np.divmod(self.numbers[at : at + (1 << 20)], KINDS)
            found += np.bincount(ids[kinds > 0], minlength=vocabulary)
        return found

    def checksum(self) -> str:
        """sha256 of both files."""
        digest = hashlib.sha256()
        for name in (STARTS, TOKENS):
            with (self.folder / name).open("rb") as file:
                hashlib.file_digest(file, lambda: digest)
        return digest.hexdigest()


@dataclass(frozen=True)
class Vocabulary:
    """What masking needs to know of a tokenizer."""

    mask: int  # id of the mask token
    ordinary: np.ndarray  # ids that may stand in for a word: all but the special ones


class TextPool(Protocol):
    """Texts of which some tokens have to be told: masked ones, or translations."""

    def __len__(self) -> int: ...

    def draw(self, rows: np.ndarray, rng: np.random.Generator, number: int) -> MaskedPass:
        """These texts, one as often as it is named, with what `rng` hides of them."""
        ...

    def identity(self) -> dict[str, Any]:
        """All that decides what they are."""
        ...


@dataclass(frozen=True)
class MaskedChunks:
    """Chunks that are masked anew each time they are drawn (Liu et al. 2019, arXiv 1907.11692, §4.1)."""

    chunks: Chunks
    vocabulary: Vocabulary
    masking: Masking

    def __len__(self) -> int:
        return len(self.chunks)

    def draw(self, rows: np.ndarray, rng: np.random.Generator, number: int) -> MaskedPass:
        ids, kinds, starts = self.chunks.take(rows)
        hidden = choose(kinds, self.masking, rng)
        return masked_pass(ids, kinds, starts, hidden, replaced(ids, hidden, self.vocabulary, rng), number)

    def identity(self) -> dict[str, Any]:
        return {"masking": to_json(self.masking), "chunks": len(self), "tokens": self.chunks.checksum()}


class Epochs:
    """An endless sequence of passes over a pool of texts, each epoch in another order."""

    def __init__(self, pool: TextPool, batch: int, seed: int) -> None:
        """A pass has `batch` texts."""
        self.pool, self.batch, self.seed = pool, batch, seed

    def __getitem__(self, number: int) -> MaskedPass:
        rng, count = episode_rng(self.seed, number), len(self.pool)
        places = np.arange(number * self.batch, (number + 1) * self.batch)
        epochs = places // count
        parts = [shuffled(places[epochs == epoch] % count, count, (self.seed, epoch)) for epoch in np.unique(epochs)]
        return self.pool.draw(np.concatenate(parts), rng, number)

    def passes(self, start: int, count: int, size: int) -> list[Callable[[], MaskedPass]]:
        """Passes `start` to `start + count`; each is made when its function is called. `size` is of no account."""
        return [partial(self.__getitem__, number) for number in range(start, start + count)]

    def drawn(self, start: int, count: int) -> dict[str, int]:
        """There are no tasks."""
        return {}

    def checksum(self, start: int, count: int) -> str:
        """sha256 over tokens and targets of these passes."""
        digest = hashlib.sha256()
        for each in (self[number] for number in range(start, start + count)):
            digest.update(each.batch.ids.numpy().tobytes() + each.targets.numpy().tobytes())
        return digest.hexdigest()

    def identity(self) -> dict[str, Any]:
        """All that decides what is drawn."""
        return {"seed": self.seed, "batch": self.batch, **self.pool.identity()}


def choose(kinds: np.ndarray, masking: Masking, rng: np.random.Generator) -> np.ndarray:
    """Which tokens are hidden: (P,) bool. Words in a random order, until they make up the rate; at least one."""
    begins = kinds == 1 if masking.whole_words else kinds > 0
    word_of = np.cumsum(begins) - 1
    inside = kinds > 0
    sizes = np.bincount(word_of[inside], minlength=int(begins.sum()))
    order = rng.permutation(len(sizes))
    ends = np.cumsum(sizes[order])
    count = max(1, int(np.searchsorted(ends, round(masking.rate * inside.sum()), side="right")))
    chosen = np.zeros(len(sizes), bool)
    chosen[order[:count]] = True
    return inside & chosen[word_of]


def replaced(ids: np.ndarray, hidden: np.ndarray, vocabulary: Vocabulary, rng: np.random.Generator) -> np.ndarray:
    """What the model reads: of hidden tokens eight in ten are the mask, one any token, one itself (BERT, §3.1)."""
    draw, other = rng.random(len(ids)), rng.choice(vocabulary.ordinary, len(ids))
    return np.where(hidden & (draw < 0.8), vocabulary.mask, np.where(hidden & (draw >= 0.9), other, ids))


def masked_pass(
    ids: np.ndarray, kinds: np.ndarray, starts: np.ndarray, hidden: np.ndarray, read: np.ndarray, number: int
) -> MaskedPass:
    """Chunks packed end to end; masked tokens are units, as words are in tagging."""
    text_of = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    words = np.where(hidden, np.arange(len(ids)) - starts[text_of], -1)  # each masked token a word of its own
    tokens = Tokens(read, np.zeros_like(read), np.minimum(kinds, 1), starts, words)
    rows = np.arange(len(tokens))
    return told(pack(tokens, rows, ids[hidden], 1, form="masked", by_word=True), number)


def told(batch: Batch, number: int) -> MaskedPass:
    """The pass in which all units of a batch, tokens each, have to be told."""
    assert batch.unit_of is not None
    order = torch.argsort(batch.unit_of, stable=True)  # units first, in their order; tokens of none have the last
    return MaskedPass(batch, order[: len(batch.targets)], batch.targets, number)


def shuffled(places: np.ndarray, count: int, key: Sequence[int]) -> np.ndarray:
    """Where these of the places 0 … count − 1 go in a random order that `key` names, which is nowhere written down: a
    Feistel network (Luby & Rackoff 1988) over the next power of four, applied until it stays below `count`."""
    half = np.uint64(max(1, (int(count - 1).bit_length() + 1) // 2))
    low = (np.uint64(1) << half) - np.uint64(1)
    rounds = np.random.default_rng([*key]).integers(0, 1 << 63, ROUNDS, dtype=np.uint64)
    found = places.astype(np.uint64)
    todo = np.ones(len(found), bool)
    while todo.any():
        left, right = found[todo] >> half, found[todo] & low
        for each in rounds:
            left, right = right, left ^ (_mixed(right ^ each) & low)
        found[todo] = (left << half) | right
        todo = found >= count
    return found.astype(np.int64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """The bits of each number well mixed: the finalizer of SplitMix64 (Steele, Lea & Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _numbers(chunk: Chunk) -> np.ndarray:
    return (chunk.ids * KINDS + chunk.kinds).astype(np.uint32)
