"""Maximum likelihood: what a model learns before it has tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from metanlp.core import weights
from metanlp.core.types import Batch, MaskedPass, MetaGrad, Weights


class TellingNet(Protocol):
    """What this method needs of a model that tells tokens."""

    def init(self, generator: torch.Generator) -> Weights: ...
    def loss(self, theta: Weights, given: MaskedPass) -> Tensor: ...
    def work(self, batch: Batch, passes: int) -> int: ...


@dataclass(frozen=True)
class Likelihood:
    """All weights learn to tell what is hidden: masked words (Devlin et al. 2019, arXiv 1810.04805, without the next
    sentence, as Liu et al. 2019, arXiv 1907.11692, §4.2), or the next word of a translation."""

    task_heads: ClassVar[bool] = False

    def init(self, net: TellingNet, generator: torch.Generator) -> Weights:
        return net.init(generator)

    def meta_grad(self, net: TellingNet, theta: Weights, given: MaskedPass, /) -> MetaGrad:
        """The gradient of the mean loss of the hidden tokens: one forward and one backward pass."""
        theta = weights.leaves(theta)
        loss = net.loss(theta, given)
        return MetaGrad(weights.gradient(loss, theta), loss.detach()[None], net.work(given.batch, 2))


def bits_per_token(net: Any, theta: Weights, passes: list[MaskedPass]) -> list[float]:
    """Of each pass, so that they can be compared pair by pair."""
    with torch.no_grad():
        return [float(net.loss(theta, each)) / float(torch.tensor(2.0).log()) for each in passes]
