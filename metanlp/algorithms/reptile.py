"""Reptile: towards where the inner loop leads."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor

from metanlp import weights
from metanlp.algorithms.base import Algorithm, Net
from metanlp.algorithms.maml import gradient_recipes
from metanlp.errors import InputError
from metanlp.inner import last, trajectory
from metanlp.types import Batch, MetaGrad, Pass, Weights


@dataclass(frozen=True)
class Reptile(Algorithm):
    """Nichol, Achiam & Schulman 2018, arXiv 1803.02999: the adapters' gradient is (θ − φ) / `inner.lr` (§3), the sum of
    the gradients of all inner steps. With one step it is that of the support loss, plain training on all tasks.

    What makes more steps more than that is that they see different rows (§5), so support and query rows take turns,
    each as a support set. The head's residual starts from zero on every task: no start is learned for it. The head's
    own part of θ, its scale, its weights over views and its vectors, takes no inner step: it gets the gradient of the
    query loss at φ, adapters held fixed. Training tasks have no linear heads here: `classes` is passed over.
    """

    def init(self, net: Net, generator: torch.Generator) -> Weights:
        return weights.drop(super().init(net, generator), "tasks/")

    def meta_grad(self, net: Net, theta: Weights, episodes: Pass) -> MetaGrad:
        """The loss is that of query rows which, after two steps, have taught. Raises InputError without inner steps of
        the adapters."""
        steps, lr = self.inner.steps, self.inner.lr
        if not steps or not lr:
            raise InputError(
                f"reptile learns from where inner steps take the adapters, but takes {steps} of size {lr:g}; "
                "give both above 0: --inner-steps, --inner-lr"
            )
        support, query = net.with_trunk(episodes.support), net.with_trunk(episodes.query)
        moved = self._moved(net, theta, support, query)
        adapters = weights.pick(moved, "lora/")
        led = {key: (theta[key] - phi).sum(0) / lr for key, phi in adapters.items()}
        with torch.no_grad():
            seen, asked = net.features(adapters, support), net.features(adapters, query)
        heads = weights.leaves(weights.drop(theta, "lora/"))
        phi = self.head.finish(heads, moved, seen, support)
        loss = self.scores_loss(self.head.scores(phi, asked, query), query)
        tokens = net.work(support, 2 + 2 * ((steps + 1) // 2)) + net.work(query, 1 + 2 * (steps // 2))
        return MetaGrad(led | weights.gradient(loss.sum(), heads), loss.detach(), tokens)

    def _moved(self, net: Net, theta: Weights, support: Batch, query: Batch) -> Weights:
        """What the last inner step leaves."""
        sides = cycle((support, query))

        def loss(moved: Weights) -> Tensor:
            side = next(sides)
            return self.support_loss(theta, moved, net.features(moved, side), side)

        begin = next(self.inner_loop(net, theta, support))
        return last(trajectory(loss, begin, self.inner))

    def recipes(self) -> tuple[Algorithm, ...]:
        return gradient_recipes(self)
