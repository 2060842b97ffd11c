"""Memories: a network reads the support set and then answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from metanlp.algorithms.direct import Direct
from metanlp.algorithms.networks.sets import Sets, attended, in_order, recurrent, shared
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Weights
from metanlp.core.weights import pick_inside
from metanlp.forms.heads import normalized
from metanlp.forms.heads.base import products, votes

CODE = 64  # width of a label's code


@dataclass(frozen=True)
class Memory(Direct):
    """The support set is read into a state, or into slots; classes are known by codes, so that there may be any number.
    Scores are products of the answer with the codes of classes.

    `recurrent`: Hochreiter, Younger & Conwell 2001, with a gated recurrent unit. Labels come one row late, zeros with
    the first row (Santoro et al. 2016, arXiv 1605.06065, §2). Each query row is read alone after the whole support set,
    with the last support label. `Sets` has the order of support rows, on which answers depend. Answers begin at zero.
    Of all methods it learns last: in tens of steps, and only from features that tell classes apart, which come from the
    linear heads of training tasks (`guide`) alone.

    `key-value`: Miller et al. 2016, arXiv 1606.03126, §3.1. Each support row x has a slot: key A x, value A x with the
    label's code. A query row q = A x reads `hops` times, with attention p over cosines: o = Σ p value, then q ← q + R o
    (there q ← R (q + o)). The last codes read are its answer. The order of rows does not matter, and every class has as
    many votes in p as the largest.
    """

    kind: Literal["recurrent", "key-value"] = "key-value"  # how it remembers
    hidden: int = 128  # width of the state, or of a key
    hops: int = 2  # how often a query reads the slots

    def __post_init__(self) -> None:
        if self.kind not in ("recurrent", "key-value") or self.hidden < 1 or self.hops < 1:
            raise InputError(f"{self} is not possible: kind is recurrent or key-value, hidden and hops are at least 1")

    def network(self, theta: Weights, width: int, generator: torch.Generator) -> Weights:
        """`memory/project` (H, V·D), A; `memory/scale` (), log factor on scores. recurrent: the unit `memory/reader`,
        `memory/say` (CODE, H). key-value: `memory/sharpness` (), log factor on cosines, `memory/hop` (H, H), R."""
        own = {"project": torch.randn(self.hidden, width, generator=generator), "scale": torch.tensor(10.0).log()}
        if self.kind == "recurrent":
            own |= recurrent("reader", 3, self.hidden + CODE, self.hidden, generator)
            # A state that was filled at random would say so much of classes that features could learn nothing from it.
            own["say"] = torch.zeros(CODE, self.hidden)
        else:
            own |= {"sharpness": torch.tensor(10.0).log(), "hop": torch.zeros(self.hidden, self.hidden)}
        return {f"memory/{key}": value for key, value in own.items()}

    def condition(self, theta: Weights, features: Tensor, support: Batch) -> Weights:
        """The network, `memory/codes` (T, K, CODE); recurrent: `memory/state` (T, H), `memory/last` (T, CODE), the last
        label; key-value: `memory/keys` (T, n, H), `memory/values` (T, n, CODE), `memory/votes` (T, n)."""
        w, sets = pick_inside(theta, "memory/"), Sets.of(support)
        x, known = normalized(features) @ w["project"].T, codes(support.max_ways, features)
        keys, values = sets.stack(x), sets.stack(known[support.targets])
        if self.kind == "recurrent":
            inputs = torch.cat([keys, pad(values[:, :-1], (0, 0, 1, 0))], 2)  # labels come one row late
            begin = x.new_zeros(1, sets.tasks, x.shape[1])
            states, _ = torch.gru(inputs, begin, in_order(w, "reader"), True, 1, 0.0, True, False, True)
            read = {"state": sets.last(states), "last": sets.last(values)}
        else:
            read = {"keys": keys, "values": values, "votes": sets.stack(votes(support).to(x))}
        phi = read | shared(w | {"codes": known}, sets.tasks)
        return {f"memory/{key}": value for key, value in phi.items()}

    def answer(self, phi: Weights, features: Tensor, batch: Batch) -> Tensor:
        w = pick_inside(phi, "memory/")
        x = normalized(features) @ w["project"][0].T  # one network for all tasks
        said = self._recall(w, x, batch) if self.kind == "recurrent" else self._look_up(w, x, batch)
        return w["scale"][0].exp() * torch.einsum("nc,nkc->nk", said, w["codes"][batch.task_of])

    def _recall(self, w: Weights, x: Tensor, batch: Batch) -> Tensor:
        """(N, H) -> (N, CODE)"""
        inputs = torch.cat([x, w["last"].index_select(0, batch.task_of)], 1)
        state, reader = w["state"].index_select(0, batch.task_of), in_order(w, "reader")
        state = torch.gru_cell(inputs, state, *[part[0] for part in reader])
        return state @ w["say"][0].T

    def _look_up(self, w: Weights, x: Tensor, batch: Batch) -> Tensor:
        """(N, H) -> (N, CODE)"""
        weight, said = w["votes"].log()[batch.task_of], x  # −∞ where a set has ended
        for _ in range(self.hops):
            cosine = products(normalize(x, dim=-1), normalize(w["keys"], dim=-1), batch)
            near = w["sharpness"][0].exp() * cosine + weight
            found, said = (attended(near, w[key], batch) for key in ("keys", "values"))
            x = x + found @ w["hop"][0].T
        return said


def codes(ways: int, like: Tensor) -> Tensor:
    """A unit vector for each class, nearly orthogonal to all others and the same for any number of classes: (K, CODE).
    Cosines and sines of k · frac(√2 j²), which are spread like random numbers (Weyl 1916)."""
    j = torch.arange(1, CODE // 2 + 1, device=like.device, dtype=torch.float64)
    angle = 2 * math.pi * torch.outer(torch.arange(ways, device=like.device, dtype=torch.float64), 2**0.5 * j * j % 1)
    return (torch.cat([angle.cos(), angle.sin()], 1) / (CODE / 2) ** 0.5).to(like)
