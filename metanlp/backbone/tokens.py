"""From texts to token ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metanlp.backbone.phrase import segments_of
from metanlp.core.types import MASK, Tokens


def encode(
    tokenizer: Any, texts: Sequence[tuple[str, ...]], prompt: str, max_length: int, words: bool = False
) -> Tokens:
    """Token ids of N texts of one part or two, after `prompt`, cut to `max_length` tokens. With `words` also the number
    of the word, between spaces, of the first part in which a token begins."""
    columns = columns_of(tokenizer, texts, prompt)
    # Offsets cost as much as the ids.
    encoded = tokenizer(*columns, truncation=True, max_length=max_length, return_offsets_mapping=words)
    # Where a tokenizer adds nothing a blank text has no token; so that it is there it gets one that says nothing.
    ids: list[list[int]] = [row or [filler(tokenizer)] for row in encoded["input_ids"]]
    segments = [segments_of(encoded[n], *text) or [0] for n, text in enumerate(zip(*columns, strict=True))]
    types = [row or [0] for row in encoded.get("token_type_ids", [[0] * len(row) for row in ids])]
    flat = [np.concatenate([np.asarray(row, np.int64) for row in rows]) for rows in (ids, types, segments)]
    starts, numbers = np.cumsum([0, *map(len, ids)]), None
    if words:
        found = zip(columns[0], (row or [(0, 0)] for row in encoded["offset_mapping"]), segments, strict=True)
        numbers = np.concatenate([word_numbers(*each, len(prompt)) for each in found])
    cut = sum(len(row) >= max_length and bool(encoded[n].overflowing) for n, row in enumerate(ids))
    inside = flat[2] > 0  # the token for what is not known may have another meaning at an end
    strange = inside & (flat[0] == (-1 if tokenizer.unk_token_id is None else tokenizer.unk_token_id))
    sums = [np.add.reduceat(which, starts[:-1], dtype=np.int64) for which in (strange, inside)]
    return Tokens(flat[0], flat[1], flat[2], starts, numbers, cut, int((2 * sums[0] > sums[1]).sum()))


def filler(tokenizer: Any) -> int:
    """The token that stands for nothing: that of an end, of padding, or of what is not known."""
    known = (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
    return next((token for token in known if token is not None), 0)


def notice(read: Mapping[str, int], max_length: int) -> str:
    """One line about texts that were cut or mostly unknown, from counts by `Backbone.encode`; "" if none were."""
    of, found = f"of {read.get('texts', 0)} texts that were read", list[str]()
    if read.get("cut"):
        found.append(f"{read['cut']} {of} were cut after {max_length} tokens")
    if read.get("unknown"):
        found.append(f"{read['unknown']} {of} consist mostly of pieces that the tokenizer does not know")
    return "; ".join(found)


def columns_of(tokenizer: Any, texts: Sequence[tuple[str, ...]], prompt: str) -> list[list[str]]:
    """The tokenizer's arguments: first parts of N texts, each after `prompt`, and second parts if there are any."""
    columns = [list(column) for column in zip(*texts, strict=True)]
    if (mask := tokenizer.mask_token or "_") != MASK:
        columns = [[text.replace(MASK, mask) for text in column] for column in columns]
    columns[0] = [f"{prompt}{text}" for text in columns[0]]
    if columns[1:]:
        gap = between(tokenizer)
        columns[1:] = [[f"{gap}{text}" for text in column] for column in columns[1:]]
    return columns


def word_numbers(text: str, offsets: Sequence[tuple[int, int]], segments: Sequence[int], begins: int) -> np.ndarray:
    """The word in which each token begins, counted between spaces from the character `begins` on; -1 before it and
    outside the first part: (tokens,)."""
    firsts = np.array([start + len(text[start:end]) - len(text[start:end].lstrip()) for start, end in offsets])
    spaces = np.cumsum([0] + [letter == " " for letter in text[begins:]])
    inside = (np.array(segments) == 1) & (firsts >= begins)
    return np.where(inside, spaces[np.clip(firsts - begins, 0, len(spaces) - 1)], -1)


def between(tokenizer: Any) -> str:
    """A line break for a tokenizer that puts no token between two parts, else ""."""
    owners = tokenizer("a", "b").sequence_ids(0)
    return "" if None in owners[owners.index(0) : owners.index(1)] else "\n"


@dataclass(frozen=True)
class Chunk:
    """A text, or a part of one that is longer than the model may read, with its special tokens."""

    ids: np.ndarray  # (P,)
    kinds: np.ndarray  # (P,) 0 special, 1 the first token of a word, 2 a later one


def chunks_of(tokenizer: Any, texts: Sequence[str], max_length: int) -> Iterator[Chunk]:
    """All tokens of the texts, in chunks of at most `max_length`; those without a word are left out."""
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length, return_overflowing_tokens=True)
    for number, ids in enumerate(encoded["input_ids"]):
        words = np.array([-1 if word is None else word for word in encoded.word_ids(number)])
        begins = np.diff(words, prepend=-1) != 0
        kinds = np.where(words < 0, 0, np.where(begins, 1, 2))
        if kinds.any():
            yield Chunk(np.asarray(ids, np.int64), kinds)
