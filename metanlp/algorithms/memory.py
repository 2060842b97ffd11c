"""Memories: a network reads the support set and then answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from metanlp.algorithms.direct import Direct
from metanlp.algorithms.sets import Sets, attended, in_order, products, recurrent, shared
from metanlp.errors import InputError
from metanlp.heads import normalized
from metanlp.types import Batch, Weights
from metanlp.weights import pick_inside

CODE = 64  # width of a label's code


@dataclass(frozen=True)
class Memory(Direct):
    """What was read is kept in a state, or in slots; classes are known by codes, so that there may be any number.

    `recurrent`: Hochreiter, Younger & Conwell 2001, with a gated recurrent unit; labels come one row late, as in
    Santoro et al. 2016, arXiv 1605.06065, §2: with the first row zeros, with the next the label of the one before. Each
    query row is read on its own after the whole support set, with the last support label, so that queries never meet.
    Support rows are read in the order that `Sets` says, a function of the batch; another order gives another answer. At
    the start nothing is said. Of all methods it learns last: the reader in tens of steps, but only from features that
    tell classes apart, and these it has from the linear heads of training tasks (`guide`) alone.

    `key-value`: Miller et al. 2016, arXiv 1606.03126, §3.1. Each support row is written into a slot of its own: key
    A x, value A x with the label's code. A query row q = A x reads `hops` times, with attention p over cosines: o = Σ p
    value, then q ← q + R o; there q ← R (q + o). The last codes read are its answer. The order of rows does not matter.

    Scores are products of what is said with the codes of classes.
    """

    kind: Literal["recurrent", "key-value"] = "key-value"  # how it remembers
    hidden: int = 128  # width of the state, or of a key
    hops: int = 2  # how often a query reads the slots

    def __post_init__(self) -> None:
        if self.kind not in ("recurrent", "key-value") or self.hidden < 1 or self.hops < 1:
            raise InputError(f"{self} is not possible: kind is recurrent or key-value, hidden and hops are at least 1")

    def network(self, width: int, generator: torch.Generator) -> Weights:
        """`memory/project` (H, V·D), A; `memory/scale` (), the logarithm of a factor on scores. recurrent: the unit
        `memory/reader` and `memory/say` (CODE, H). key-value: `memory/sharpness` (), the logarithm of a factor on
        cosines, and `memory/hop` (H, H), R."""
        own = {"project": torch.randn(self.hidden, width, generator=generator), "scale": torch.tensor(10.0).log()}
        if self.kind == "recurrent":
            own |= recurrent("reader", 3, self.hidden + CODE, self.hidden, generator)
            # A state that was filled at random would say so much of classes that features could learn nothing from it.
            own["say"] = torch.zeros(CODE, self.hidden)
        else:
            own |= {"sharpness": torch.tensor(10.0).log(), "hop": torch.zeros(self.hidden, self.hidden)}
        return {f"memory/{key}": value for key, value in own.items()}

    def condition(self, theta: Weights, features: Tensor, support: Batch) -> Weights:
        """The network, `memory/codes` (T, K, CODE); recurrent: `memory/state` (T, H) and `memory/last` (T, CODE), the
        last label; key-value: `memory/keys` (T, n, H) and `memory/values` (T, n, CODE), zeros where a set has ended."""
        w, sets = pick_inside(theta, "memory/"), Sets.of(support)
        x, known = normalized(features) @ w["project"].T, codes(support.max_ways, features)
        said = known[support.targets]
        slots = {"keys": sets.stack(x), "values": sets.stack(said)}
        read = _read(w, x, said, sets) if self.kind == "recurrent" else slots
        phi = read | shared(w | {"codes": known}, sets.tasks)
        return {f"memory/{key}": value for key, value in phi.items()}

    def answer(self, phi: Weights, features: Tensor, batch: Batch) -> Tensor:
        w = pick_inside(phi, "memory/")
        x = normalized(features) @ w["project"][0].T  # one network for all tasks
        said = self._recall(w, x, batch) if self.kind == "recurrent" else self._look_up(w, x, batch)
        return w["scale"][0].exp() * torch.einsum("nc,nkc->nk", said, w["codes"][batch.task_of])

    def _recall(self, w: Weights, x: Tensor, batch: Batch) -> Tensor:
        """(N, H) -> (N, CODE)"""
        inputs = torch.cat([x, w["last"][batch.task_of]], 1)
        state = torch.gru_cell(inputs, w["state"][batch.task_of], *[part[0] for part in in_order(w, "reader")])
        return state @ w["say"][0].T

    def _look_up(self, w: Weights, x: Tensor, batch: Batch) -> Tensor:
        """(N, H) -> (N, CODE)"""
        real, said = (w["values"] != 0).any(-1)[batch.task_of], x
        for _ in range(self.hops):
            cosine = products(normalize(x, dim=-1), normalize(w["keys"], dim=-1), batch)
            near = (w["sharpness"][0].exp() * cosine).masked_fill(~real, -math.inf)
            found, said = (attended(near, w[key], batch) for key in ("keys", "values"))
            x = x + found @ w["hop"][0].T
        return said


def _read(w: Weights, x: Tensor, said: Tensor, sets: Sets) -> Weights:
    """The state after the support set, and the label that the next row comes with."""
    lines = sets.stack(said)
    late = pad(lines[:, :-1], (0, 0, 1, 0))
    start = x.new_zeros(1, sets.tasks, x.shape[1])
    inputs = torch.cat([sets.stack(x), late], 2)
    states, _ = torch.gru(inputs, start, in_order(w, "reader"), True, 1, 0.0, True, False, True)
    return {"state": sets.last(states), "last": sets.last(lines)}


def codes(ways: int, like: Tensor) -> Tensor:
    """A vector of length one for each class, nearly at right angles to all others and the same however many there are:
    (K, CODE). Cosines and sines of k · frac(√2 j²), which are spread like random numbers (Weyl 1916)."""
    j = torch.arange(1, CODE // 2 + 1, device=like.device, dtype=torch.float64)
    angle = 2 * math.pi * torch.outer(torch.arange(ways, device=like.device, dtype=torch.float64), 2**0.5 * j * j % 1)
    return (torch.cat([angle.cos(), angle.sin()], 1) / (CODE / 2) ** 0.5).to(like)
