"""Made-up domains of plain text, each with words of its own, and their passages as tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from metanlp.episodes.corpus import Chunks, MaskedChunks, Masking, Vocabulary
from metanlp.episodes.domains import Passages

SAMPLING = Passages(shots=(2, 4), queries=4, copies=2)


def sentences(number: int, count: int = 60) -> list[str]:
    """Texts of eight words out of the five that this domain knows; the last one keeps texts apart."""
    rng = np.random.default_rng([3, number])
    own = rng.permutation([f"{first}{second}" for first in "bdfgklmnprst" for second in "aeiou"])[:5]
    return [" ".join([*rng.choice(own, 8), str(place)]) for place in range(count)]


def passages(folder: Path, net: Any, number: int) -> MaskedChunks:
    chunks = Chunks.write(folder / str(number), sentences(number), net.tokenizer, 24)
    return MaskedChunks(chunks, Vocabulary(*net.vocabulary), Masking(0.3))


def write_domains(folder: Path, count: int, texts: int = 60) -> Path:
    """A file of lines for each domain."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"d{number}.txt").write_text("\n".join(sentences(number, texts)) + "\n")
    return folder
