"""The whole process of learning as one function: a support set in, a classifier out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from metanlp.algorithms.direct import Direct
from metanlp.algorithms.networks.readers import READERS
from metanlp.algorithms.networks.set_attention import HEADS, moments, standard
from metanlp.algorithms.networks.sets import shared
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Weights


@dataclass(frozen=True)
class Mapping(Direct):
    """A network that reads a support set adds its scores to those of prototypes: `cnp` (conditional neural process) or
    `transformer` (prior-fitted network), in `readers.py`. Its scores begin at zero, so that the start is a prototypical
    network: from scratch it would need far more tasks than there are.

    There may be any number of classes, and permuting them permutes the scores. φ holds the head of the prototypes, what
    was read, and the network, which all tasks share without a copy.
    """

    kind: Literal["cnp", "transformer"] = "transformer"  # how the support set is read
    width: int = 64  # of a row within the network

    def __post_init__(self) -> None:
        if self.kind not in READERS:
            raise InputError(f"mapping of kind {self.kind!r} is not known; choose from {sorted(READERS)}")
        if self.width < 1 or self.width % HEADS:
            raise InputError(f"width {self.width} is not a positive multiple of {HEADS}; take 32, 64 or 128")

    def network(self, theta: Weights, width: int, generator: torch.Generator) -> Weights:
        return {f"mapping/{key}": value for key, value in READERS[self.kind].init(width, self.width, generator).items()}

    def condition(self, theta: Weights, features: Tensor, support: Batch) -> Weights:
        w = weights.pick_inside(theta, "mapping/")
        mean, spread = moments(features, support)
        memory = READERS[self.kind].read(w, standard(features, mean, spread, support), support)
        found = shared(w, support.count_tasks) | {f"memory/{key}": value for key, value in memory.items()}
        found |= {"mean": mean, "spread": spread}
        head = self.head.finish(theta, self.head.residual(features[0].numel(), support), features, support)
        return head | {f"mapping/{key}": value for key, value in found.items()}

    def answer(self, phi: Weights, features: Tensor, batch: Batch) -> Tensor:
        found = weights.pick_inside(phi, "mapping/")
        x = standard(features, found["mean"], found["spread"], batch)
        w = {key: value[0] for key, value in found.items()}
        said = READERS[self.kind].answer(w, weights.pick_inside(found, "memory/"), x, batch)
        return self.head.scores(phi, features, batch) + said
