"""Multi-task fine-tuning: the baseline that meta-learning has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from metanlp import weights
from metanlp.algorithms.base import Algorithm, Net
from metanlp.algorithms.maml import gradient_recipes
from metanlp.forms import classify
from metanlp.heads import linear_scores
from metanlp.types import Batch, Episode, MetaGrad, Pass, Weights


@dataclass(frozen=True)
class Multitask(Algorithm):
    """One adapter for all training tasks, with a linear head for each (Caruana 1997); new tasks are then fine-tuned
    from it with the same head and inner loop as every other method."""

    classes: tuple[tuple[str, int], ...] = ()  # training tasks and their numbers of classes

    def init(self, net: Net, generator: torch.Generator) -> Weights:
        """θ with `tasks/NAME/weight` (K, V·D) and `tasks/NAME/bias` (K,), all zero."""
        theta = super().init(net, generator)
        like = next(iter(theta.values()))
        width = len(net.view_names) * net.width
        for name, count in self.classes:
            theta[f"tasks/{name}/weight"] = like.new_zeros(count, width)
            theta[f"tasks/{name}/bias"] = like.new_zeros(count)
        return theta

    def meta_grad(self, net: Net, theta: Weights, episodes: Pass) -> MetaGrad:
        """An episode's support and query rows are just rows here: half the loss each."""
        theta = weights.leaves(theta)
        sides = [net.with_trunk(side) for side in (episodes.support, episodes.query)]
        loss = torch.stack([self._loss(net, theta, side, episodes.episodes) for side in sides]).mean(0)
        grad = weights.gradient(loss.sum(), theta)
        return MetaGrad(grad, loss.detach(), sum(net.work(side, 2) for side in sides))

    def _loss(self, net: Net, theta: Weights, batch: Batch, episodes: tuple[Episode, ...]) -> torch.Tensor:
        heads = [
            (theta[f"tasks/{e.task}/weight"][list(e.classes)], theta[f"tasks/{e.task}/bias"][list(e.classes)])
            for e in episodes
        ]
        weight = torch.stack([pad(w, (0, 0, 0, batch.max_ways - len(w))) for w, _ in heads])
        bias = torch.stack([pad(b, (0, batch.max_ways - len(b))) for _, b in heads])
        scale = theta["head/scale"].exp()
        scores = linear_scores(scale * weight, scale * bias, net.features(theta, batch), batch)
        return classify.loss(scores, batch.targets, batch.task_of, batch.count_tasks)

    def recipes(self) -> tuple[Algorithm, ...]:
        return self, *gradient_recipes(self)
