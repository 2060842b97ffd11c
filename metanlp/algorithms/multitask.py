"""Multi-task fine-tuning: the baseline that meta-learning has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metanlp import weights
from metanlp.algorithms.base import Algorithm, Net
from metanlp.algorithms.maml import gradient_recipes
from metanlp.types import Batch, Episode, MetaGrad, Pass, Weights


@dataclass(frozen=True)
class Multitask(Algorithm):
    """One adapter for all training tasks, with a linear head for each (Caruana 1997); new tasks are then fine-tuned
    from it with the same head and inner loop as every other method. In the forms without classes the heads share the
    vector of θ that new tasks start from."""

    def meta_grad(self, net: Net, theta: Weights, episodes: Pass) -> MetaGrad:
        """An episode's support and query rows are just rows here: half the loss each."""
        theta = weights.leaves(theta)
        sides = [net.with_trunk(side) for side in (episodes.support, episodes.query)]
        loss = torch.stack(
            [self._loss(theta, net.features(theta, side), side, episodes.episodes) for side in sides]
        ).mean(0)
        grad = weights.gradient(loss.sum(), theta)
        return MetaGrad(grad, loss.detach(), sum(net.work(side, 2) for side in sides))

    def _loss(self, theta: Weights, features: Tensor, side: Batch, episodes: tuple[Episode, ...]) -> Tensor:
        own = self.task_scores(theta, features, side, episodes)
        return self.scores_loss(own + self.head.known(theta, features, side), side)

    def recipes(self) -> tuple[Algorithm, ...]:
        return gradient_recipes(self)
