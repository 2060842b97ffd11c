"""Which text of a pair a token belongs to, and where the second text is a phrase of the first. An export has a copy of
this file, which therefore imports nothing of ours."""

from __future__ import annotations

import re
from typing import Any

FIRST, SECOND, PHRASE = 1, 2, 3  # of a token; 0 where the tokenizer added it


def segments_of(encoding: Any, first: str, second: str = "") -> list[int]:
    """The segment of each token of a text or a pair, out of what `tokenizers` made of it. Of a second text that stands
    in the first, its tokens there and the one on either side are PHRASE: what a phrase is shows in the words around it.
    """
    segments = [0 if owner is None else owner + 1 for owner in encoding.sequence_ids]
    if (place := phrase_in(first, second)) is None:
        return segments
    begin, end = place
    inside = [
        n for n, (start, stop) in enumerate(encoding.offsets) if segments[n] == FIRST and start < end and stop > begin
    ]
    for n in range(inside[0] - 1, inside[-1] + 2) if inside else ():
        if 0 <= n < len(segments) and segments[n] == FIRST:
            segments[n] = PHRASE
    return segments


def phrase_in(first: str, second: str) -> tuple[int, int] | None:
    """Where the whole words of the second text stand in the first, whatever their case: its first place, as characters;
    None where they don't."""
    words = second.strip()
    if not words or words.lower() not in first.lower():
        return None
    found = re.search(rf"(?<!\w){re.escape(words)}(?!\w)", first, re.IGNORECASE)
    return found and found.span()
