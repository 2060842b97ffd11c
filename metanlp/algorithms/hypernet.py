"""A network that reads a support set and writes the adapters for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from metanlp.algorithms.base import Cost, Net, Reader
from metanlp.algorithms.networks import set_attention as attention
from metanlp.algorithms.protonet import ProtoNet
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Weights
from metanlp.forms.heads.base import votes

DOWN = ".lora_A."  # in the name of an A (r, in); a B is (out, r)


@dataclass(frozen=True)
class Hypernet(ProtoNet):
    """Hypernetworks: Ha, Dai & Le 2017, arXiv 1609.09106; for adapters Mahabadi et al. 2021, arXiv 2106.04489; from a
    support set HyperTuning, Phang et al. 2022, arXiv 2211.12485.

    A set transformer (Lee et al. 2019, arXiv 1810.00825) over the support features at θ, then one learned seed for each
    matrix of the adapters that attends to all rows (PMA, eq. 11). Its result becomes M (r, basis) by one linear layer
    for all; M · G, with a learned G (basis, in) for each A and (basis, out) for each B, is added to θ's own matrix. One
    more seed adds to the evidence about views. Prototypes are computed anew from the adapted features. Both outputs
    begin at zero: the start is a prototypical network. The meta-gradient is exact.

    Beside adapters of rank r it learns basis / r times their number for G, and about W · (F + 17 W + r · basis) for the
    network, for a width W and F features of all views.
    """

    basis: int = 8  # directions in which each matrix of the adapters may move
    width: int = 64  # of a row within the network
    layers: int = 1  # blocks in which the rows look at each other

    def __post_init__(self) -> None:
        if self.inner.steps:
            raise InputError(f"a hypernet takes no gradient step, but {self.inner.steps} are asked for; take 0")
        if self.width < 1 or self.width % attention.HEADS or min(self.basis, self.layers) < 1:
            raise InputError(
                f"{self} is not possible: width is a multiple of {attention.HEADS}, basis and layers at least 1"
            )

    def network(self, theta: Weights, width: int, generator: torch.Generator) -> Weights:
        """`hypernet/…`: the network without a task axis, and for each matrix of θ's adapters its basis."""
        adapters = adapters_of(theta)
        made = attention.set_weights(width, self.width, (*map(str, range(self.layers)), "pool"), generator)
        rank = next(len(value) for key, value in adapters.items() if DOWN in key)
        made["seeds"] = torch.randn(len(adapters) + 1, self.width, generator=generator)
        made["move"] = torch.zeros(rank * self.basis, self.width)
        made["views"] = torch.zeros(len(theta["views/prior"]), self.width)
        for key, value in adapters.items():
            made[f"basis/{key}"] = attention.matrix(self.basis, value.numel() // rank, generator)
        return {f"hypernet/{key}": value for key, value in made.items()}

    def inner_loop(
        self, theta: Weights, support: Reader, *others: Reader, differentiable: bool = False
    ) -> Iterator[Weights]:
        """No step: what the network writes."""
        yield self.emit(theta, support(theta), support.batch)

    def evidence(self, net: Net, theta: Weights, support: Batch) -> Weights:
        (emitted,) = self.inner_loop(theta, Reader(net, support))
        return weights.pick(emitted, "views/")

    def emit(self, theta: Weights, features: Tensor, support: Batch) -> Weights:
        """Adapters (T, …), a residual of zero for the head, and `views/loss` (T, V), from features at θ."""
        w = weights.pick_inside(theta, "hypernet/")
        found = attention.norm(self._read(w, features, support)) / math.sqrt(self.width)  # (T, seeds, W)
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
        x = attention.standard(features, *attention.moments(features, support), support)
        x = attention.encoded(w, x, support, self.layers)[-1]
        tasks = torch.arange(support.count_tasks, device=x.device)
        mine = attention.unseen(tasks[:, None] == support.task_of)[:, None, None] + votes(support).log()  # (T, 1, 1, N)
        seeds = w["seeds"].expand(len(tasks), -1, -1)
        return attention.block(weights.pick_inside(w, "pool/"), seeds, x.expand(len(tasks), -1, -1), mine)

    def cost(self) -> Cost:
        """Support rows are read twice: at θ and under the adapters written for them."""
        return Cost(support=4, support_kept=2)


def adapters_of(theta: Weights) -> Weights:
    """θ's adapters, in the order of the seeds: that of their names, because files keep no other."""
    return dict(sorted(weights.pick(theta, "lora/").items()))
