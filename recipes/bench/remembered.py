"""Rows whose features are computed once, for benches in which adapters stay and many episodes ask for them."""

from collections.abc import Sequence, Sized
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from metanlp import Backbone
from metanlp.algorithms import Algorithm
from metanlp.core.types import Batch, Episode, Tokens, Trunk, Weights
from metanlp.core.weights import pick
from metanlp.episodes.chunks import Chunk, chunks
from metanlp.episodes.pool import Pool


@dataclass(frozen=True)
class Remembered:
    """A net that looks features up: a text is one token, the number of its row."""

    table: Tensor  # (R, V, D)
    view_names: tuple[str, ...]
    width: int  # D

    @staticmethod
    def of(net: Backbone, theta: Weights, parts: Sequence[Chunk]) -> "Remembered":
        """All rows of a pool as `net` reads them with the adapters of θ."""
        with torch.no_grad():
            found = torch.cat([net.features(pick(theta, "lora/"), part.batch) for part in parts])
        order = np.argsort(np.concatenate([part.rows for part in parts]))
        return Remembered(found[torch.from_numpy(order)], net.view_names, net.width)

    def init(self, generator: torch.Generator) -> Weights:
        return {}

    def with_trunk(self, batch: Batch) -> Batch:
        frozen = [at for at, view in enumerate(self.view_names) if view.startswith("frozen")]
        return replace(batch, trunk=Trunk(self.table[:0], self.table[batch.ids][:, frozen]))

    def features(self, w: Weights, batch: Batch) -> Tensor:
        return self.table[batch.ids]

    def work(self, batch: Batch, passes: int) -> int:
        return 0


@torch.no_grad()
def accuracy(algorithm: Algorithm, net: Remembered, theta: Weights, episode: Episode) -> float:
    """On the query rows of an episode, in %."""
    phi = algorithm.adapt(net, theta, episode.support)
    return 100 * float((algorithm.scores(net, phi, episode.query).argmax(1) == episode.query.targets).float().mean())


def with_trunks(net: Backbone, pool: Pool) -> list[Chunk]:
    """All rows of a pool, with what the frozen model says of them: every θ has use of it."""
    return [replace(part, batch=net.with_trunk(part.batch)) for part in chunks(pool)]


def numbered(texts: Sized, words: bool = False) -> Tokens:
    """Encodes each text as one token, its number."""
    count = len(texts)
    return Tokens(np.arange(count), np.zeros(count, int), np.ones(count, int), np.arange(count + 1))
