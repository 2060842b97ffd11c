"""Matching networks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from metanlp.algorithms.direct import Direct
from metanlp.algorithms.networks.sets import Sets, attended, in_order, kinds, recurrent, shared, sum_by_kind
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Weights
from metanlp.core.weights import pick, pick_inside
from metanlp.forms.all_heads import own
from metanlp.forms.heads.base import products, view_weights

NONE = torch.finfo(torch.float32).min  # stands for log 0 where −∞ would give gradients that are no numbers


@dataclass(frozen=True)
class Matching(Direct):
    """Vinyals et al. 2016, arXiv 1606.04080: a query row is of the classes of the support rows that it attends to.

    Attention is the softmax of cosines (§2.1.1) times twice the head's learned scale; the score of a class is the
    logarithm of the attention to its rows (eq. 1) up to a constant of the query row, log Σ exp(2 scale · cosine): low
    for all classes where a row is far from all. Rows vote, weighted so that every class has as many votes as the
    largest. Views are weighed as in the prototype head: with one row a class this is a prototypical network. A class
    without support rows scores as with one row opposite to the query row.

    With `full_context` rows are embedded in the light of the support set: g by a bidirectional LSTM over it (A.2), f by
    an LSTM that attends to it `reads` times (A.1, started at h = f′). Unlike there, a learned matrix first reduces
    features to `hidden` numbers, and products are divided by √`hidden`. `Sets` has the order of support rows.
    """

    full_context: bool = False  # embed rows in the light of the whole support set
    hidden: int = 128  # width of the LSTMs
    reads: int = 3  # how often a query row attends to the support set

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.reads < 1:
            raise InputError(f"{self} is not possible: hidden and reads are at least 1")

    def network(self, theta: Weights, width: int, generator: torch.Generator) -> Weights:
        """`matching/project` (H, V·D), and the LSTMs `matching/forward`, `matching/backward` and `matching/read`."""
        if not self.full_context:
            return {}
        made = {"matching/project": torch.randn(self.hidden, width, generator=generator)}
        for name, size in (("forward", 1), ("backward", 1), ("read", 2)):
            made |= recurrent(f"matching/{name}", 4, size * self.hidden, self.hidden, generator)
        return made

    def condition(self, theta: Weights, features: Tensor, support: Batch) -> Weights:
        """`matching/keys` (T, n, V·D or H), `matching/classes` (T, n, K), the votes of each row, `matching/scale` (T,),
        `matching/share` (T, V) of the views and, with full context, the weights that read a query."""
        head, tasks, sets, reader = own(theta, support), support.count_tasks, Sets.of(support), Weights()
        share = view_weights(head, self.head.evidence(theta, features, support)["views/loss"])
        x = weighed(features, share.index_select(0, support.task_of))
        phi = {"scale": 2 * head["head/scale"].exp().expand(tasks), "share": share, "classes": sets.classes(support, x)}
        if self.full_context:
            w = pick_inside(theta, "matching/")
            x = x @ w["project"].T
            x = x + (over(w, "forward", x, sets.place, sets) + over(w, "backward", x, sets.back, sets))
            reader = shared(pick(w, "project", "read"), tasks)
        return {f"matching/{key}": value for key, value in (phi | {"keys": sets.stack(x)} | reader).items()}

    def answer(self, phi: Weights, features: Tensor, batch: Batch) -> Tensor:
        w = pick_inside(phi, "matching/")
        x = weighed(features, w["share"].index_select(0, batch.task_of))
        if self.full_context:
            x = self._read(w, x, batch)
        cosine = products(normalize(x, dim=-1), normalize(w["keys"], dim=-1), batch)
        scale = w["scale"].index_select(0, batch.task_of)[:, None]
        kind, ways = kinds(w["classes"], batch), w["classes"].shape[2]
        near = scale * cosine + w["classes"].sum(-1).clamp(min=1).log()[batch.task_of]
        top = near.detach().new_full((len(near), ways + 1), NONE).scatter_reduce(1, kind, near.detach(), "amax")
        odds = sum_by_kind((near - top.gather(1, kind)).exp(), kind, ways)
        return (odds.clamp(min=0.5).log() + top[:, :ways]).maximum(-scale)  # 0.5: at 0 the slope would be infinite

    def _read(self, w: Weights, x: Tensor, batch: Batch) -> Tensor:
        """f: (N, V·D) -> (N, H)."""
        x = x @ w["project"][0].T  # one network for all tasks
        lstm = [part[0] for part in in_order(w, "read")]
        h, c, said = x, torch.zeros_like(x), w["classes"].sum(-1).log()[batch.task_of]  # −∞ where a set has ended
        for _ in range(self.reads):
            near = products(h, w["keys"], batch) / math.sqrt(self.hidden)
            seen = attended(near + said, w["keys"], batch)
            h, c = torch.lstm_cell(torch.cat([x, seen], 1), [h, c], *lstm)
            h = h + x
        return h


def weighed(features: Tensor, share: Tensor) -> Tensor:
    """Each view to the length √share, then end to end: (N, V, D), (N, V) -> (N, V·D), of length one. Cosines are then
    averages of those of the views."""
    # The slope of a root is infinite at zero.
    return (normalize(features, dim=-1) * share.clamp(min=1e-12).sqrt()[..., None]).flatten(1)


def over(w: Weights, name: str, x: Tensor, place: Tensor, sets: Sets) -> Tensor:
    """An LSTM's outputs over the rows of each set, read in the order of `place`: (N, H) -> (N, H)."""
    zero = x.new_zeros(1, sets.tasks, x.shape[1])
    # Not run backwards as one bidirectional LSTM: that would begin with what fills up a short set.
    read, *_ = torch.lstm(sets.stack(x, place), [zero, zero], in_order(w, name), True, 1, 0.0, True, False, True)
    return read.flatten(0, 1)[place]
