"""A store of what the frozen model says of texts, which is then computed once a text and not once a pass.

It changes no bit of any result: matrix kernels give a token the same numbers in whatever pass it goes through, if that
has some `FEW` tokens. `is_exact` tries this on the model and the machine at hand; where it fails there is no store.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metanlp.backbone.packing import FEW, lengths_of, pack, some
from metanlp.core.types import Batch, Tokens, Trunk

Compute = Callable[[Batch], Trunk]
TRIED = (1, 1, 2, 3, 5, 8, 13)  # texts of the passes on which `is_exact` tries the kernels


class Said(NamedTuple):
    """What the frozen model says of one text."""

    states: Tensor  # (L, H)
    frozen: Tensor  # (units, frozen views, D)


class Store:
    """Holds at most `most` bytes, and keeps what came first: when epochs ask for more than it holds, it still answers
    the same part of each, where to keep what was asked last would answer nothing. Copies begin empty."""

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0
        self._said: dict[bytes, Said] = {}
        self._lock = Lock()  # passes run side by side

    def __reduce__(self) -> tuple[type[Store], tuple[int]]:
        return Store, (self.most,)

    def trunk(self, batch: Batch, compute: Compute) -> Trunk:
        """The trunk of a batch on the CPU, by `compute` for those of its texts that are not here."""
        if batch.count_tokens < FEW:
            return compute(batch)
        keys = keys_of(batch)
        said = {key: self._said[key] for key in keys.values() if key in self._said}
        if new := [place for place, key in enumerate(keys.values()) if key not in said]:
            part = some(batch, new)
            part = batch if part.count_tokens < FEW else part
            said = self._keep({keys[text]: each for text, each in by_text(part, compute(part)).items()}) | said
        frozen = [said[keys[text]].frozen for text in sorted(keys)]
        return Trunk(torch.cat([said[key].states for key in keys.values()]), torch.cat(frozen))

    def _keep(self, said: dict[bytes, Said]) -> dict[bytes, Said]:
        """The same; what there is room for is copied and held."""
        with self._lock:
            for key, (states, frozen) in said.items():
                size = states.nbytes + frozen.nbytes + len(key)
                if key not in self._said and self.held + size <= self.most:
                    self._said[key] = Said(states.clone(), frozen.clone())
                    self.held += size
        return said


def keys_of(batch: Batch) -> dict[int, bytes]:
    """By number of the text, in the order of tokens: all that the model reads of it, and which of its tokens are which
    unit."""
    code = batch.ids | batch.types << 32 | batch.segments << 36
    if batch.unit_of is not None:
        starts = torch.tensor([units.start for units in units_by_text(batch)])
        first = starts.repeat_interleave(torch.tensor(lengths_of(batch)))  # unit of each token's text
        code |= torch.where(batch.unit_of == len(batch.group), 0, batch.unit_of - first + 1) << 40
    parts = zip(texts_of(batch), code.split(lengths_of(batch)), strict=True)
    return {text: part.numpy().tobytes() for text, part in parts}


def by_text(part: Batch, trunk: Trunk) -> dict[int, Said]:
    """A trunk cut into what it says of each text of its batch."""
    states = trunk.states.split(lengths_of(part))
    found = zip(texts_of(part), states, units_by_text(part), strict=True)
    return {text: Said(each, trunk.frozen[units]) for text, each, units in found}


def units_by_text(batch: Batch) -> list[slice]:
    """The units of each text, which follow each other, in the order of tokens."""
    if batch.unit_of is None:
        return [slice(text, text + 1) for text in texts_of(batch)]
    count, found = len(batch.group), list[slice]()
    for units in batch.unit_of.split(lengths_of(batch)):
        words = units[units < count]
        found.append(slice(int(words.min()), int(words.max()) + 1) if len(words) else slice(0, 0))
    return found


def texts_of(batch: Batch) -> list[int]:
    """Numbers of the texts, in the order of tokens."""
    return batch.example_of[batch.positions == 0].tolist()


def is_exact(compute: Compute, vocabulary: int) -> bool:
    """Whether texts of chance get the same bits in one pass as in several of other sizes."""
    chance, count = np.random.default_rng(0), sum(TRIED)
    starts = np.cumsum([0, *chance.integers(3, 24, count)])
    ids = chance.integers(1, vocabulary, starts[-1])
    tokens = Tokens(ids, np.zeros_like(ids), np.ones_like(ids), starts)
    store, ends = Store(2**60), np.cumsum(TRIED)
    for rows in np.split(chance.permutation(count), ends[:-1]):
        store.trunk(pack(tokens, rows, rows, 1), compute)
    whole = pack(tokens, range(count), range(count), 1)
    found, expected = store.trunk(whole, compute), compute(whole)
    return torch.equal(found.states, expected.states) and torch.equal(found.frozen, expected.frozen)
