"""A network that reads a support set and writes the adapters for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from metanlp import weights
from metanlp.algorithms.attention import (
    HEADS,
    among,
    block,
    block_weights,
    matrix,
    moments,
    norm,
    rows,
    rows_weights,
    standard,
    unseen,
)
from metanlp.algorithms.base import Algorithm, Net
from metanlp.errors import InputError
from metanlp.inner import Inner
from metanlp.types import Batch, MetaGrad, Pass, Weights

DOWN = ".lora_A."  # in the name of an A (r, in); a B is (out, r)


@dataclass(frozen=True)
class Hypernet(Algorithm):
    """Hypernetworks: Ha, Dai & Le 2017, arXiv 1609.09106; for adapters Mahabadi et al. 2021, arXiv 2106.04489; from a
    support set HyperTuning, Phang et al. 2022, arXiv 2211.12485.

    A set transformer (Lee et al. 2019, arXiv 1810.00825) over the support features at θ, in which rows know of each
    other whether they are of one class; then one learned seed for each matrix of the adapters looks at all rows (PMA,
    eq. 11). What a seed finds becomes M (r, basis) by one linear layer for all, and M · G, with a learned G (basis, in)
    for each A and (basis, out) for each B, is added to θ's own. One more seed doubts views, beside the evidence that
    prototypes have; the prototypes are taken anew from the adapted features. Both begin at zero: the start is a
    prototypical network.

    Learned beside the adapters of rank r: basis / r times their number for G, and W · (F + 17 W + r · basis) or so for
    the network, for a width W and F features of all views.
    """

    inner: Inner = Inner(steps=0)  # no gradient step
    basis: int = 8  # directions in which each matrix of the adapters may move
    width: int = 64  # of a row within the network
    layers: int = 1  # blocks in which the rows look at each other
    guide: float = 1.0  # weight of the training tasks' own linear heads in the outer loss, where `classes` names them

    def __post_init__(self) -> None:
        if self.inner.steps:
            raise InputError(f"a hypernet takes no gradient step, but {self.inner.steps} are asked for; take 0")
        if self.width < 1 or self.width % HEADS or min(self.basis, self.layers) < 1:
            raise InputError(f"{self} is not possible: width is a multiple of {HEADS}, basis and layers at least 1")

    def init(self, net: Net, generator: torch.Generator) -> Weights:
        """`hypernet/…`: the network without a task axis, and for each matrix of θ's adapters its basis."""
        theta, views = super().init(net, generator), len(net.view_names)
        adapters = adapters_of(theta)
        made = rows_weights(views * net.width, self.width, generator)
        for name in (*map(str, range(self.layers)), "pool"):
            made |= {f"{name}/{key}": value for key, value in block_weights(self.width, generator).items()}
        rank = next(len(value) for key, value in adapters.items() if DOWN in key)
        made["seeds"] = torch.randn(len(adapters) + 1, self.width, generator=generator)
        made |= {"move": torch.zeros(rank * self.basis, self.width), "views": torch.zeros(views, self.width)}
        for key, value in adapters.items():
            made[f"basis/{key}"] = matrix(self.basis, value.numel() // rank, generator)
        device = next(iter(theta.values())).device
        return theta | {f"hypernet/{key}": value.to(device) for key, value in made.items()}

    def inner_loop(
        self, net: Net, theta: Weights, support: Batch, *, differentiable: bool = False
    ) -> Iterator[Weights]:
        """No step: what the network writes."""
        with torch.set_grad_enabled(differentiable):
            yield self.emit(theta, net.features(weights.pick(theta, "lora/"), support), support)

    def emit(self, theta: Weights, features: Tensor, support: Batch) -> Weights:
        """Adapters (T, …), a residual of zero for the head, and the doubts about views (T, V), from features at θ."""
        w = weights.pick_inside(theta, "hypernet/")
        found = norm(self._read(w, features, support)) / math.sqrt(self.width)  # (T, seeds, W)
        moves = (found[:, :-1] @ w["move"].T).unflatten(-1, (-1, self.basis))  # (T, matrices, r, basis)
        adapters: Weights = {}
        for (key, value), move in zip(adapters_of(theta).items(), moves.unbind(1), strict=True):
            update = move @ w[f"basis/{key}"]
            adapters[key] = value + (update if DOWN in key else update.mT)
        doubts = found[:, -1] @ w["views"].T
        evidence = self.head.evidence(theta, features, support)["views/loss"]
        residual = self.head.residual(features[0].numel(), support)
        return adapters | residual | {"views/loss": evidence + doubts}

    def _read(self, w: Weights, features: Tensor, support: Batch) -> Tensor:
        """What each seed finds in each task's rows: (N, V, D) -> (T, seeds, W)."""
        x = rows(w, standard(features, *moments(features, support), support), support)
        for number in range(self.layers):
            layer = weights.pick_inside(w, f"{number}/")
            x = block(layer, x, x, among(layer, support))
        tasks = torch.arange(support.count_tasks, device=x.device)
        mine = unseen(tasks[:, None] == support.task_of)[:, None, None]  # (T, 1, 1, N)
        seeds = w["seeds"].expand(len(tasks), -1, -1)
        return block(weights.pick_inside(w, "pool/"), seeds, x.expand(len(tasks), -1, -1), mine)

    def kept(self, support: int, query: int) -> tuple[int, int]:
        """The support set goes through the model at θ and with the adapters written for it."""
        return 2 * support + query, 0

    def meta_grad(self, net: Net, theta: Weights, episodes: Pass) -> MetaGrad:
        """Exact: through the adapters that are written, and through the features that they are written from."""
        support, query = net.with_trunk(episodes.support), net.with_trunk(episodes.query)
        theta = weights.leaves(theta)
        moved = self.emit(theta, net.features(weights.pick(theta, "lora/"), support), support)
        adapters = weights.pick(moved, "lora/")
        seen, asked = net.features(adapters, support), net.features(adapters, query)
        phi = self.head.finish(theta, moved, seen, support)
        loss = self.scores_loss(self.head.scores(phi, asked, query), query)
        outer = loss + self.guide * self.tasks_loss(theta, [(seen, support), (asked, query)], episodes.episodes)
        grad = weights.gradient(outer.sum(), theta)
        return MetaGrad(grad, loss.detach(), net.work(support, 4) + net.work(query, 2))


def adapters_of(theta: Weights) -> Weights:
    """θ's adapters, in the order of the seeds: that of their names, because files keep no other."""
    return dict(sorted(weights.pick(theta, "lora/").items()))
