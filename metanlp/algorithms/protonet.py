"""Prototypical networks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from metanlp.algorithms.base import Algorithm, Guided, Inner, Look, Reader
from metanlp.algorithms.inner import InnerLoop, last
from metanlp.core.types import Weights


@dataclass(frozen=True)
class ProtoNet(InnerLoop, Guided):
    """Snell, Swersky & Zemel 2017, arXiv 1703.05175: MAML with no inner step, whose gradient is then exact."""

    inner: Inner = Inner(steps=0)  # nothing moves but the prototypes

    def looks(self, theta: Weights, support: Reader, query: Reader) -> Iterator[Look]:
        moved = last(self.inner_loop(theta, support))
        yield 1.0, self.head.finish(theta, moved, support(moved), support.batch), support(moved), query(moved)

    def recipes(self) -> tuple[Algorithm, ...]:
        return self.each_mixed([self])
