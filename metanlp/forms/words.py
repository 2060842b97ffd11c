"""Texts split into words: what the forms whose units are words share."""

from __future__ import annotations

from typing import Any

import regex  # its \X and scripts: `re` has neither

from metanlp.core.types import MASK, Row

# Letters, digits and their combining marks are one word, joiners included; in scripts that put no space between words
# every character is one, marks included; anything else is one for each grapheme cluster (Unicode annex 29), of which
# some begin with a sign that joins even a space to it: then the sign alone. The mask is one.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
LETTER = rf"(?:(?!{UNSPACED})[\w\p{{M}}\u200c\u200d])"
WORD: Any = regex.compile(rf"{regex.escape(MASK)}|{LETTER}+(?:[-'’.&]{LETTER}+)*|(?=\S)\X(?<=\S)|\S")


def in_words(text: str) -> Row:
    """A text split into words and punctuation marks, with the (start, end) of each in characters."""
    found: list[Any] = list(WORD.finditer(text))
    return {"text": text, "tokens": [word.group() for word in found], "offsets": [word.span() for word in found]}
