"""A held-out domain: frozen support passages, and query passages with the same masked tokens for every method.

Letters: S support sets, G blocks of query passages.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import torch

from metanlp.algorithms import Algorithm
from metanlp.algorithms.base import Net
from metanlp.core.intervals import Sample
from metanlp.core.types import Batch, Weights
from metanlp.episodes.corpus import Chunks, Vocabulary, masked
from metanlp.episodes.domains import Passages, check_passages
from metanlp.evaluation.meta_test import overlap

BLOCKS = 10  # of query passages


class HeldOutDomain:
    """What is masked is a function of (seed, name), and of the number of a support set: every method sees the same."""

    def __init__(
        self, name: str, taught: Chunks, judged: Chunks, vocabulary: Vocabulary, sampling: Passages,
        shots: Sequence[int], sets: int, queries: int, seed: int,
    ) -> None:  # fmt: skip
        """`sets` support sets of each of `shots` passages out of `taught`; `queries` passages out of `judged`, fewer
        where there are fewer. Raises InputError for too few passages."""
        check_passages(name, len(taught), max(shots), 0)
        self._key, self._vocabulary, self._sampling = (seed, zlib.crc32(name.encode())), vocabulary, sampling
        self.supports: dict[int, list[Batch]] = {}
        self.overlaps: dict[int, float] = {}
        for k in shots:
            chosen = [self._rng(k, n).permutation(len(taught))[:k] for n in range(sets)]
            sides = [(np.repeat(rows, sampling.copies), self._rng(k, n, 1)) for n, rows in enumerate(chosen)]
            self.supports[k] = [self._pack(taught, *side) for side in sides]
            self.overlaps[k] = overlap([frozenset(rows.tolist()) for rows in chosen])
        order = self._rng().permutation(len(judged))[:queries]
        parts = np.array_split(order, min(BLOCKS, len(order)))
        self.blocks = [self._pack(judged, part, self._rng(0, n, 2)) for n, part in enumerate(parts)]
        self.counts = np.array([len(block.targets) for block in self.blocks])  # masked tokens: (G,)

    def bits(self, algorithm: Algorithm, net: Net, phi: Weights, blocks: int = BLOCKS) -> np.ndarray:
        """Bits of all masked tokens of each of the first `blocks` blocks: (G,)."""
        self.blocks = [net.with_trunk(block) for block in self.blocks]
        read = self.blocks[:blocks]
        with torch.no_grad():
            losses = [algorithm.scores_loss(algorithm.scores(net, phi, block), block) for block in read]
        return torch.cat(losses).cpu().numpy().astype(np.float64) * self.counts[:blocks] / math.log(2)

    def sample(self, found: Sequence[np.ndarray], k: int) -> Sample:
        """Bits a token with each support set of `k` passages, and what each block adds to their mean (delete-a-group
        jackknife, as in `meta_test`), from the bits (G,) with each set."""
        bits, (total, count) = np.array(found), (self.counts.sum(), len(self.counts))
        whole = bits.sum(1) / total
        if count == 1:
            return Sample(whole, np.zeros(0), self.overlaps[k])
        without = (bits.sum(1, keepdims=True) - bits) / (total - self.counts)
        return Sample(whole, (count * whole[:, None] - (count - 1) * without).mean(0), self.overlaps[k])

    def _pack(self, chunks: Chunks, rows: np.ndarray, rng: np.random.Generator) -> Batch:
        return masked(chunks, rows, self._vocabulary, self._sampling.masking, rng, 0).batch

    def _rng(self, *which: int) -> np.random.Generator:
        return np.random.default_rng([*self._key, *which])
