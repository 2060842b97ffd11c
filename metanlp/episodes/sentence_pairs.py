"""Sentences with their translations, as tokens: the texts of one pair of languages, or of several."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from metanlp.backbone.packing import pack
from metanlp.core.offsets import spread
from metanlp.core.types import Batch, MaskedPass, Tokens
from metanlp.episodes.corpus import told
from metanlp.forms.generate import Generated


@dataclass(frozen=True)
class SentencePairs:
    """A pool of n pairs. Text 2i of the tokens is a source, text 2i + 1 what a decoder reads of its target."""

    tokens: Tokens  # of 2n texts; what the decoder reads has a word a token
    targets: np.ndarray  # (N,) what these words have to tell

    def __len__(self) -> int:
        return len(self.tokens) // 2

    @cached_property
    def _starts(self) -> np.ndarray:
        """Where the targets of each pair begin: (n + 1,)."""
        return np.cumsum([0, *self.lengths])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens that each target has to tell: (n,)."""
        return self.tokens.lengths()[1::2]

    def pack(self, rows: np.ndarray) -> Batch:
        """These pairs in one batch."""
        texts = np.stack([2 * rows, 2 * rows + 1], 1).ravel()
        asked = self.targets[spread(self._starts, rows)]
        return pack(self.tokens, texts, asked, 1, form=Generated.name, by_word=True)

    def whole(self) -> Batch:
        """All pairs in one batch."""
        return self.pack(np.arange(len(self)))

    def draw(self, rows: np.ndarray, rng: np.random.Generator, number: int) -> MaskedPass:
        """These pairs; nothing is left to chance."""
        return told(self.pack(rows), number)

    def identity(self) -> dict[str, Any]:
        """sha256 of the tokens of either side."""
        digest = hashlib.sha256()
        for part in (self.tokens.starts, self.tokens.ids, self.targets):
            digest.update(part.tobytes())
        return {"pairs": len(self), "tokens": digest.hexdigest()}


def together(pools: Sequence[SentencePairs]) -> SentencePairs:
    """The pairs of several pools, end to end."""
    parts = [pool.tokens for pool in pools]
    ids, types, segments, words = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "types", "segments", "words")
    )
    starts = np.cumsum([0, *np.concatenate([part.lengths() for part in parts])])
    return SentencePairs(Tokens(ids, types, segments, starts, words), np.concatenate([pool.targets for pool in pools]))
