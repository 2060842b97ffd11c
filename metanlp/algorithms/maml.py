"""First-order MAML over adapters, with a prototype head."""

from __future__ import annotations

from dataclasses import dataclass, replace

from metanlp import weights
from metanlp.algorithms.base import Algorithm, Net
from metanlp.types import MetaGrad, Pass, Weights


@dataclass(frozen=True)
class Maml(Algorithm):
    """Model-agnostic meta-learning: Finn, Abbeel & Levine 2017, arXiv 1703.03400, first order (§5.2).

    The head starts from the prototypes at θ and keeps that path in the outer gradient: Proto-MAML, Triantafillou et al.
    2020, arXiv 1903.03096; first order on BERT, Holla et al. 2020, arXiv 2004.14355. With `head_only` the inner loop
    moves the head alone: ANIL, Raghu et al. 2020, arXiv 1909.09157.

    Where `classes` names the training tasks, the linear heads of multi-task learning help: prototypes of a few rows say
    little about entailment before the features do. Their loss, on the same features, is added with the weight `guide`.
    """

    guide: float = 1.0  # weight of the training tasks' own linear heads in the outer loss, where `classes` names them
    head_only: bool = False  # adapt the head alone; θ's adapters still learn in the outer loop

    def __post_init__(self) -> None:
        if self.head_only and self.inner.lr:
            object.__setattr__(self, "inner", replace(self.inner, lr=0.0))

    def meta_grad(self, net: Net, theta: Weights, episodes: Pass) -> MetaGrad:
        """With the inner updates Δ held fixed, the gradient is that of the query loss at θ + Δ, through the adapters
        and through the prototypes that the support set gives there."""
        support, query = net.with_trunk(episodes.support), net.with_trunk(episodes.query)
        theta = weights.leaves(theta)
        *_, moved = self.inner_loop(net, theta, support)
        adapters = weights.pick(moved, "lora/")
        seen, asked = net.features(adapters, support), net.features(adapters, query)
        phi = self.head.finish(theta, moved, seen, support)
        loss = self.scores_loss(self.head.scores(phi, asked, query), query)
        outer = loss + self.guide * self.tasks_loss(theta, [(seen, support), (asked, query)], episodes.episodes)
        grad = weights.gradient(outer.sum(), theta)
        passes = 2 + min(1, self.inner.steps) + (2 * self.inner.steps if self.inner.lr else 0)
        return MetaGrad(grad, loss.detach(), net.work(support, passes) + net.work(query, 2))

    def recipes(self) -> tuple[Algorithm, ...]:
        return gradient_recipes(self)


def gradient_recipes(algorithm: Algorithm) -> tuple[Algorithm, ...]:
    """Rates of the inner loop to try, its own first; step counts are read off one trajectory and not listed."""
    rates = [(algorithm.inner.lr, algorithm.inner.head_lr), (0.0, 1.0), (0.5, 0.5)]
    steps = max(5, algorithm.inner.steps)
    inners = [replace(algorithm.inner, steps=steps, lr=lr, head_lr=head_lr) for lr, head_lr in dict.fromkeys(rates)]
    return tuple(replace(algorithm, inner=inner) for inner in inners)
