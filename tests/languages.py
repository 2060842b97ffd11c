"""Made-up languages: each says the same sentences in words of its own, in another order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

ENGLISH = ("the", "dog", "cat", "sees", "house", "old", "finds", "tree", "my", "friend")


def sentences(number: int, count: int) -> list[tuple[str, str]]:
    """The same sources for every language, their targets word by word from behind."""
    rng, own = np.random.default_rng(5), np.random.default_rng([7, number])
    words = dict(
        zip(ENGLISH, own.permutation([f"{a}{b}" for a in "bdgklmnp" for b in "aeiou"])[: len(ENGLISH)], strict=True)
    )
    rows = [[*rng.choice(ENGLISH, 5), str(place)] for place in range(count)]
    return [(" ".join(row), " ".join(words.get(word, word) for word in row[::-1])) for row in rows]


def write_languages(folder: Path, count: int, train: int = 30, test: int = 12) -> Path:
    """A folder of pairs en_l0, en_l1 …"""
    for number in range(count):
        rows = [{"source": s, "target": t, "source_lang": "en", "target_lang": f"l{number}"}
                for s, t in sentences(number, train + test)]  # fmt: skip
        write_pair(folder / f"en_l{number}", rows[:train], rows[train:])
    return folder


def write_pair(folder: Path, train: list[dict[str, str]], test: list[dict[str, str]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
