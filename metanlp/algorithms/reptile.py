"""Reptile: towards where the inner loop leads."""

from __future__ import annotations

from dataclasses import dataclass

from metanlp.algorithms.base import Cost, Net, Reader
from metanlp.algorithms.inner import InnerLoop, last
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import MetaGrad, Pass, Weights


@dataclass(frozen=True)
class Reptile(InnerLoop):
    """Nichol, Achiam & Schulman 2018, arXiv 1803.02999: the adapters' gradient is (θ − φ) / `inner.lr` (§3), the sum of
    the gradients of all inner steps. One step would be plain training on all tasks; more do more because they see
    different rows (§5), so support and query rows take turns, each as a support set.

    The head's residual starts from zero on every task, so no start is learned for it. The head's own part of θ takes no
    inner step: it gets the gradient of the query loss at φ, adapters held fixed.
    """

    def meta_grad(self, net: Net, theta: Weights, episodes: Pass) -> MetaGrad:
        """The loss is that of query rows, of which two or more steps have seen the labels. Raises InputError without
        inner steps of the adapters."""
        steps, lr = self.inner.steps, self.inner.lr
        if not steps or not lr:
            raise InputError(
                f"reptile learns from where inner steps take the adapters, but takes {steps} of size {lr:g}; "
                "give both above 0: --inner-steps, --inner-lr"
            )
        support, query = Reader(net, episodes.support), Reader(net, episodes.query)
        moved = weights.detach(last(self.inner_loop(theta, support, query)))
        led = {key: (theta[key] - phi).sum(0) / lr for key, phi in weights.pick(moved, "lora/").items()}
        heads = weights.leaves(weights.drop(theta, "lora/"))
        phi = self.head.finish(heads, moved, support(moved), support.batch)
        loss = self.scores_loss(self.head.scores(phi, query(moved), query.batch), query.batch)
        grad = led | weights.gradient(loss.sum(), heads)
        return MetaGrad(grad, loss.detach(), self.cost().tokens(net.work, episodes))

    def cost(self) -> Cost:
        """Each step reads one side in turn and differentiates it; both are read once more at φ, without a graph."""
        steps = self.inner.steps
        return Cost(1 + 2 * ((steps + 1) // 2), 1 + 2 * (steps // 2))
