"""A held-out pair of languages: beside the bits of its targets, how good the translations are that a method writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from metanlp.algorithms import Algorithm
from metanlp.algorithms.base import Net
from metanlp.core.types import Weights
from metanlp.episodes.corpus import TextPool
from metanlp.episodes.domains import Passages
from metanlp.evaluation.domains import HeldOutDomain
from metanlp.forms.generate import judges


class Writes(Protocol):
    """A model that writes, between the two languages."""

    def generate(self, phi: Weights, sources: Sequence[str], beams: int) -> list[str]:
        """The target of each source under φ of one task."""
        ...


class HeldOutPair(HeldOutDomain):
    """Support sets of sentences with their translations, and others to be translated: the same for every method."""

    def __init__(
        self, name: str, taught: TextPool, judged: TextPool, sampling: Passages, shots: Sequence[int], sets: int,
        queries: int, seed: int, *, texts: tuple[Sequence[str], Sequence[str]], writes: Writes, beams: int,
    ) -> None:  # fmt: skip
        """`texts` are the sources of `judged`, and their targets. Raises InputError."""
        super().__init__(name, taught, judged, sampling, shots, sets, queries, seed)
        order = [int(row) for row in np.concatenate(self.rows)]
        self._sources, self._targets = [texts[0][row] for row in order], [texts[1][row] for row in order]
        self._block_of = np.repeat(np.arange(len(self.rows)), list(map(len, self.rows)))
        self._writes, self._beams, self._judges = writes, beams, judges()

    def measures(self, algorithm: Algorithm, net: Net, phi: Weights) -> dict[str, np.ndarray]:
        """Bits a token, chrF and BLEU: on all sentences, and without each block of them, (1 + G,)."""
        written = self._writes.generate(phi, self._sources, self._beams)
        parts = [np.ones(len(written), bool)]
        if len(self.rows) > 1:
            parts += [self._block_of != block for block in range(len(self.rows))]
        scores = {
            name: np.array([judge(*([side[n] for n in np.flatnonzero(part)] for side in (written, self._targets)))
                            for part in parts])
            for name, judge in self._judges.items()
        }  # fmt: skip
        return super().measures(algorithm, net, phi) | scores
