"""From texts to token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from metanlp.types import Tokens


def encode(
    tokenizer: Any, texts: Sequence[tuple[str, ...]], prompt: str, max_length: int, words: bool = False
) -> Tokens:
    """Token ids of N texts, each of one part or two, cut to `max_length` tokens. `prompt` stands in front of each. With
    `words` also which word of the first part, counted between spaces, a token begins in."""
    columns = [list(column) for column in zip(*texts, strict=True)]
    columns[0] = [f"{prompt}{text}" for text in columns[0]]
    if columns[1:]:
        gap = between(tokenizer)
        columns[1:] = [[f"{gap}{text}" for text in column] for column in columns[1:]]
    # A tokenizer is asked for offsets only where they are needed: they cost as much as the ids.
    offsets = {"return_offsets_mapping": True} if words else {}
    encoded = tokenizer(*columns, truncation=True, max_length=max_length, **offsets)
    ids: list[list[int]] = encoded["input_ids"]
    segments = [[0 if s is None else s + 1 for s in encoded.sequence_ids(n)] for n in range(len(ids))]
    types = encoded["token_type_ids"] if "token_type_ids" in encoded else [[0] * len(row) for row in ids]
    flat = [np.concatenate([np.asarray(row, np.int64) for row in rows]) for rows in (ids, types, segments)]
    starts, numbers = np.cumsum([0, *map(len, ids)]), None
    if words:
        found = zip(columns[0], encoded["offset_mapping"], segments, strict=True)
        numbers = np.concatenate([word_numbers(*each, len(prompt)) for each in found])
    return Tokens(flat[0], flat[1], flat[2], starts, numbers)


def word_numbers(text: str, offsets: Sequence[tuple[int, int]], segments: Sequence[int], begins: int) -> np.ndarray:
    """Of each token the word in which it begins, counted between spaces from the character `begins` on; -1 for one
    that stands before it or outside the first part: (tokens,)."""
    firsts = np.array([start + len(text[start:end]) - len(text[start:end].lstrip()) for start, end in offsets])
    spaces = np.cumsum([0] + [letter == " " for letter in text[begins:]])
    inside = (np.array(segments) == 1) & (firsts >= begins)
    return np.where(inside, spaces[np.clip(firsts - begins, 0, len(spaces) - 1)], -1)


def between(tokenizer: Any) -> str:
    """What must stand before a second part, because this tokenizer puts nothing between two."""
    owners = tokenizer("a", "b").sequence_ids(0)
    return "" if None in owners[owners.index(0) : owners.index(1)] else "\n"
