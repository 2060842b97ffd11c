"""What endless sequences of episodes share whose tasks have no linear heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

from metanlp.core.types import Episode, Pass
from metanlp.episodes.sampling import checksum_of


class Stream(ABC):
    """Episode i is a function of i; passes are fixed groups of consecutive ones."""

    @abstractmethod
    def __getitem__(self, number: int) -> Episode: ...

    @abstractmethod
    def group(self, numbers: Sequence[int]) -> Pass:
        """These episodes in one pass."""

    def passes(self, start: int, count: int, size: int) -> list[Callable[[], Pass]]:
        """Episodes `start` to `start + count` in fixed groups of `size`; each is built when called."""
        numbers = range(start, start + count)
        return [partial(self.group, numbers[at : at + size]) for at in range(0, count, size)]

    def drawn(self, start: int, count: int) -> dict[str, int]:
        """No task has a linear head of its own: what answers mean is the same for all."""
        return {}

    def checksum(self, start: int, count: int) -> str:
        """sha256 over tokens and targets of these episodes."""
        return checksum_of(self[n] for n in range(start, start + count))
