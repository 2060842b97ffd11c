"""A held-out domain, or pair of languages: frozen support passages, and query passages with the same tokens to tell for
every method.

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
from metanlp.episodes.corpus import TextPool
from metanlp.episodes.domains import Passages, check_passages
from metanlp.evaluation.meta_test import overlap

BLOCKS = 10  # of query passages


class HeldOutDomain:
    """What is masked is a function of (seed, name), and of the number of a support set: every method sees the same."""

    def __init__(
        self, name: str, taught: TextPool, judged: TextPool, sampling: Passages, shots: Sequence[int], sets: int,
        queries: int, seed: int,
    ) -> None:  # fmt: skip
        """`sets` support sets of each of `shots` passages out of `taught`; `queries` passages out of `judged`, fewer
        where there are fewer. Raises InputError for too few passages."""
        check_passages(name, len(taught), max(shots), 0)
        self._key = (seed, zlib.crc32(name.encode()))
        self.supports: dict[int, list[Batch]] = {}
        self.overlaps: dict[int, float] = {}
        for k in shots:
            chosen = [self._rng(k, n).permutation(len(taught))[:k] for n in range(sets)]
            sides = [(np.repeat(rows, sampling.copies), self._rng(k, n, 1)) for n, rows in enumerate(chosen)]
            self.supports[k] = [taught.draw(*side, 0).batch for side in sides]
            self.overlaps[k] = overlap([frozenset(rows.tolist()) for rows in chosen])
        order = self._rng().permutation(len(judged))[:queries]
        self.rows = np.array_split(order, min(BLOCKS, len(order)))  # of `judged`, in each block
        self.blocks = [judged.draw(part, self._rng(0, n, 2), 0).batch for n, part in enumerate(self.rows)]
        self.counts = np.array([len(block.targets) for block in self.blocks])  # tokens to tell: (G,)

    def bits(self, algorithm: Algorithm, net: Net, phi: Weights, blocks: int = BLOCKS) -> np.ndarray:
        """Bits of all tokens to tell of each of the first `blocks` blocks: (G,)."""
        self.blocks = [net.with_trunk(block) for block in self.blocks]
        read = self.blocks[:blocks]
        with torch.no_grad():
            losses = [algorithm.scores_loss(algorithm.scores(net, phi, block), block) for block in read]
        return torch.cat(losses).cpu().numpy().astype(np.float64) * self.counts[:blocks] / math.log(2)

    def measures(self, algorithm: Algorithm, net: Net, phi: Weights) -> dict[str, np.ndarray]:
        """What φ is worth, by name: on all query passages, and without each block of them, (1 + G,); of a single block
        (1,)."""
        bits, total = self.bits(algorithm, net, phi), self.counts.sum()
        without = (bits.sum() - bits) / (total - self.counts) if len(bits) > 1 else bits[1:]
        return {"bits": np.array([bits.sum() / total, *without])}

    def sample(self, found: Sequence[np.ndarray], k: int) -> Sample:
        """A measure with each support set of `k` passages, and what each block adds to their mean (delete-a-group
        jackknife, as in `meta_test`)."""
        each, count = np.array(found), len(self.counts)
        blocks = (count * each[:, :1] - (count - 1) * each[:, 1:]).mean(0)
        return Sample(each[:, 0], blocks, self.overlaps[k])

    def _rng(self, *which: int) -> np.random.Generator:
        return np.random.default_rng([*self._key, *which])
