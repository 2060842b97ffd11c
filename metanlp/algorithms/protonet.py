"""Prototypical networks."""

from __future__ import annotations

from dataclasses import dataclass

from metanlp.algorithms.base import Algorithm
from metanlp.algorithms.maml import Maml
from metanlp.inner import Inner


@dataclass(frozen=True)
class ProtoNet(Maml):
    """Snell, Swersky & Zemel 2017, arXiv 1703.05175: MAML with no inner step, whose gradient is then exact."""

    inner: Inner = Inner(steps=0)  # nothing moves but the prototypes

    def recipes(self) -> tuple[Algorithm, ...]:
        return (self,)
