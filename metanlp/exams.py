"""A task made ready to be tested on: frozen support sets and query rows, the same for every method."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from metanlp.algorithms.base import Algorithm
from metanlp.backbone import Backbone
from metanlp.backbone.packing import pack
from metanlp.episodes import Pool, pack_rows
from metanlp.forms import classify
from metanlp.types import Batch, Row, Task, Tokens, Weights

CHUNK = 6_000  # tokens in one pass without gradients


@dataclass(frozen=True)
class Protocol:
    """What is asked of every method."""

    shots: tuple[int, ...] = (4, 8, 16)  # support rows a class
    episodes: int = 10  # support sets a task and shots, where the task does not bring its own
    test_rows: int | None = None  # query rows a task at the most, drawn once; None takes all
    drop_repeats: bool = False  # leave out query rows whose text is also in the support set of a published split
    seed: int = 0  # of everything that is drawn


@dataclass(frozen=True)
class Support:
    """One support set."""

    shots: int  # k
    number: int  # which of the sets with k shots
    batch: Batch
    keys: tuple[tuple[str, ...], ...]  # identities of its rows
    excluded: np.ndarray  # (R,) bool: query rows that may not be scored with it


class Exam:
    """Query rows of one task in packed passes, and support sets by shots."""

    def __init__(self, task: Task, net: Backbone, protocol: Protocol) -> None:
        self.task, self.net, self.protocol = task, net, protocol
        self.ways = len(task.labels)
        # crc32 and not hash(): Python's own hash of a string differs from process to process.
        self._rng = np.random.default_rng([protocol.seed, zlib.crc32(task.name.encode())])
        self._train = Pool(task.name, task.pools["train"], self.ways, net.encode)
        apart = "test" in task.pools
        rows = task.pools["test"] if apart else self._train.rows
        order = self._rng.permutation(len(rows))[: protocol.test_rows]
        self.rows = [rows[n] for n in sorted(order)]
        self.targets = np.array([row["label"] for row in self.rows])
        self.keys = [classify.key(row) for row in self.rows]
        self._one_pool = not apart
        self.supports, self.skipped = self._all_supports()

    @cached_property
    def chunks(self) -> list[tuple[np.ndarray, Batch]]:
        """Row numbers and their batch with its trunk, shortest rows first: attention pads little, layers never."""
        tokens = self.net.encode([classify.texts(row) for row in self.rows])
        return [(part, self.net.with_trunk(batch)) for part, batch in packed(tokens, self.targets, self.ways)]

    def probabilities(self, algorithm: Algorithm, phi: Weights) -> np.ndarray:
        """Of every query row: (R, K)."""
        out = np.zeros((len(self.rows), self.ways), dtype=np.float32)
        with torch.no_grad():
            for part, batch in self.chunks:
                out[part] = torch.softmax(algorithm.scores(self.net, phi, batch), dim=1).cpu().numpy()
        return out

    def fingerprint(self) -> str:
        """sha256 over the identities of all rows in use: equal where two people tested on the same episodes."""
        digest = hashlib.sha256(repr((self.task.name, self.keys, self.targets.tolist())).encode())
        for support in self.supports:
            digest.update(repr((support.shots, support.number, support.keys)).encode())
        return digest.hexdigest()

    def _all_supports(self) -> tuple[list[Support], dict[int, str]]:
        """The support sets, and the shots that this task can't give with the reason."""
        found: list[Support] = []
        skipped: dict[int, str] = {}
        for k in self.protocol.shots:
            fixed, smallest = self.task.supports.get(k), min(map(len, self._train.by_class))
            if fixed:
                found += [self._fixed(k, number, rows) for number, rows in enumerate(fixed[: self.protocol.episodes])]
            elif self.task.supports:
                skipped[k] = f"its support sets are for {sorted(self.task.supports)} shots"
            elif smallest < k + self._one_pool:
                skipped[k] = f"its smallest class has {smallest} rows"
            else:
                found += [self._drawn(k, number) for number in range(self.protocol.episodes)]
        return found, skipped

    def _fixed(self, k: int, number: int, rows: Sequence[Row]) -> Support:
        batch = pack_rows(rows, self.ways, self.net.encode)
        keys = tuple(classify.key(row) for row in rows)
        repeats = np.array([key in set(keys) for key in self.keys])
        return Support(k, number, batch, keys, repeats & self.protocol.drop_repeats)

    def _drawn(self, k: int, number: int) -> Support:
        chosen = np.concatenate([self._rng.permutation(rows)[:k] for rows in self._train.by_class])
        batch = pack(self._train.tokens, chosen, self._train.targets[chosen], self.ways)
        keys = tuple(classify.key(self._train.rows[n]) for n in chosen)
        return Support(k, number, batch, keys, np.array([key in set(keys) for key in self.keys]))


def packed(tokens: Tokens, targets: np.ndarray, ways: int) -> Iterator[tuple[np.ndarray, Batch]]:
    """Row numbers and their batch, in passes of about `CHUNK` tokens, rows of like length together."""
    order = np.argsort(tokens.lengths(), kind="stable")
    group = np.cumsum(tokens.lengths()[order]) // CHUNK
    for number in np.unique(group):
        part = order[group == number]
        yield part, pack(tokens, part, targets[part], ways)


def count_repeats(exam: Exam) -> int:
    """Query rows that are also a support row somewhere: a property of some published splits."""
    support = {key for support in exam.supports for key in support.keys}
    return sum(key in support for key in exam.keys) if exam.task.supports else 0
