"""Multi-task fine-tuning: the baseline that meta-learning has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metanlp.algorithms.base import Net, Reader
from metanlp.algorithms.inner import InnerLoop
from metanlp.core import weights
from metanlp.core.types import MetaGrad, Pass, Weights


@dataclass(frozen=True)
class Multitask(InnerLoop):
    """One adapter for all training tasks, with a linear head for each (Caruana 1997); new tasks are then fine-tuned
    from it with the same head and inner loop as every other method. In the forms without classes the heads share the
    vector of θ that new tasks start from."""

    task_heads: ClassVar[bool] = True

    def meta_grad(self, net: Net, theta: Weights, episodes: Pass) -> MetaGrad:
        """An episode's support and query rows are just rows here: half the loss each."""
        theta, losses = weights.leaves(theta), list[Tensor]()
        for side in (Reader(net, episodes.support), Reader(net, episodes.query)):
            own = self.task_scores(theta, side(theta), side.batch, episodes.episodes)
            losses.append(self.scores_loss(own + self.head.known(theta, side(theta), side.batch), side.batch))
        loss = torch.stack(losses).mean(0)
        return MetaGrad(weights.gradient(loss.sum(), theta), loss.detach(), self.cost().tokens(net.work, episodes))
