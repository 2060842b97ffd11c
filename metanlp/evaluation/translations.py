"""A held-out pair of languages: beside the bits of its targets, how good the translations are that a method writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any, Protocol, cast

import numpy as np

from metanlp.algorithms import Algorithm
from metanlp.algorithms.base import Net
from metanlp.core.errors import InputError
from metanlp.core.types import Weights
from metanlp.episodes.corpus import TextPool
from metanlp.episodes.domains import Passages
from metanlp.evaluation.domains import HeldOutDomain

Judge = Callable[[Sequence[str], Sequence[str]], float]
"""From translations and the right ones to a score of all of them, 0 to 100."""


class WritingNet(Net, Protocol):
    """A model that also writes."""

    def generate(self, phi: Weights, sources: Sequence[str], beams: int) -> list[str]:
        """The target of each source under φ of one task."""
        ...


class HeldOutPair(HeldOutDomain):
    """Support sets of sentences with their translations, and others to be translated: the same for every method."""

    def __init__(
        self, name: str, taught: TextPool, judged: TextPool, sampling: Passages, shots: Sequence[int], sets: int,
        queries: int, seed: int, *, texts: tuple[Sequence[str], Sequence[str]], beams: int,
    ) -> None:  # fmt: skip
        """`texts` are the sources of `judged`, as the model reads them, and their targets. Raises InputError."""
        super().__init__(name, taught, judged, sampling, shots, sets, queries, seed)
        order = [int(row) for row in np.concatenate(self.rows)]
        self._sources, self._targets = [texts[0][row] for row in order], [texts[1][row] for row in order]
        self._block_of = np.repeat(np.arange(len(self.rows)), list(map(len, self.rows)))
        self._beams, self._judges = beams, judges()

    def measures(self, algorithm: Algorithm, net: Net, phi: Weights) -> dict[str, np.ndarray]:
        """Bits a token, chrF and BLEU: on all sentences, and without each block of them, (1 + G,)."""
        written = cast(WritingNet, net).generate(phi, self._sources, self._beams)
        parts = [np.ones(len(written), bool)]
        if len(self.rows) > 1:
            parts += [self._block_of != block for block in range(len(self.rows))]
        scores = {
            name: np.array([judge(*([side[n] for n in np.flatnonzero(part)] for side in (written, self._targets)))
                            for part in parts])
            for name, judge in self._judges.items()
        }  # fmt: skip
        return super().measures(algorithm, net, phi) | scores


def judges() -> dict[str, Judge]:
    """Of whole corpora, by sacrebleu (Post 2018, arXiv 1804.08771): chrF2 (Popović 2015) and BLEU. Raises InputError
    where it is not installed."""
    if find_spec("sacrebleu") is None:
        raise InputError(
            "translations are judged by sacrebleu, which is not installed: pip install 'metanlp[translation]'"
        )
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    def judge(metric: Any, written: Sequence[str], right: Sequence[str]) -> float:
        return float(metric.corpus_score(list(written), [list(right)]).score)

    # `force` leaves out what it says of texts that look tokenised, once for each block.
    return {"chrF": partial(judge, CHRF()), "BLEU": partial(judge, BLEU(force=True))}
