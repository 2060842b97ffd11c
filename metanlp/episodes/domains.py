"""Domains of plain text, or pairs of languages, as tasks: k texts of one with tokens to tell, and others with more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metanlp.core.errors import InputError
from metanlp.core.settings import to_json
from metanlp.core.types import Episode, Pass
from metanlp.episodes.corpus import TextPool
from metanlp.episodes.sampling import episode_rng, group
from metanlp.episodes.stream import Stream


@dataclass(frozen=True)
class Passages:
    """How an episode is drawn from a domain. A passage is a text of it, or a sentence with its translation."""

    shots: tuple[int, int] = (4, 16)  # fewest and most support passages; drawn evenly between them
    queries: int = 16  # query passages
    copies: int = 1  # maskings of each support passage: its words are told in several contexts

    def __post_init__(self) -> None:
        low, high = self.shots
        if not 1 <= low <= high or self.queries < 1 or self.copies < 1:
            raise InputError(f"{self} is not possible: shots, queries and copies from 1 up")


class Domains(Stream):
    """An endless sequence of episodes over domains, each drawn equally often; passages are masked anew each time, where
    they are masked."""

    def __init__(self, domains: Mapping[str, TextPool], sampling: Passages, seed: int) -> None:
        """Raises InputError for a domain with too few passages."""
        self.domains, self.sampling, self.seed = dict(domains), sampling, seed
        self._names = tuple(domains)
        for name, pool in domains.items():
            check_passages(name, len(pool), sampling.shots[1], sampling.queries)

    def __getitem__(self, number: int) -> Episode:
        rng, (low, high) = episode_rng(self.seed, number), self.sampling.shots
        name = self._names[int(rng.integers(len(self._names)))]
        pool, shots = self.domains[name], int(rng.integers(low, high + 1))
        rows = rng.permutation(len(pool))[: shots + self.sampling.queries]
        support, query = rows[:shots], rows[shots:]
        return Episode(
            task=name,
            number=number,
            classes=(),
            support_rows=tuple(support.tolist()),
            query_rows=tuple(query.tolist()),
            support=pool.draw(np.repeat(support, self.sampling.copies), rng, 0).batch,
            query=pool.draw(query, rng, 0).batch,
        )

    def identity(self) -> dict[str, Any]:
        """All that decides what is drawn."""
        return {"seed": self.seed, "sampling": to_json(self.sampling),
                "domains": {name: pool.identity() for name, pool in self.domains.items()}}  # fmt: skip

    def group(self, numbers: Sequence[int]) -> Pass:
        return group([self[number] for number in numbers])


def check_passages(name: str, count: int, shots: int, others: int) -> None:
    """Raises InputError for a domain or pair of languages without `shots` texts and as many `others`."""
    if count < shots + others:
        raise InputError(
            f"{name!r} has {count} texts to learn from, but {shots} shots and {others} beside them need "
            f"{shots + others}; give it more, ask for fewer --shots, or leave it out"
        )
