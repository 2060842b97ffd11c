"""Matching networks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from metanlp.algorithms.direct import Direct
from metanlp.algorithms.sets import Sets, attended, in_order, products, recurrent, shared
from metanlp.errors import InputError
from metanlp.heads import own
from metanlp.heads.base import view_weights
from metanlp.types import Batch, Weights
from metanlp.weights import pick_inside

NONE = torch.finfo(torch.float32).min  # stands for log 0 where −∞ would give gradients that are no numbers


@dataclass(frozen=True)
class Matching(Direct):
    """Vinyals et al. 2016, arXiv 1606.04080: a query row is of the classes of the support rows that it attends to.

    Attention is the softmax of cosines (§2.1.1), here times twice the learned scale of the head; the score of a class
    is the logarithm of what its rows get (eq. 1), up to a constant of the query row: log Σ exp(2 scale · cosine), so
    that a row far from all has low scores throughout. Rows are votes: a class with more of them is likelier. Views are
    weighed as the prototype head weighs them: with one row a class this is a prototypical network. A class without
    support rows scores as with one row opposite to the query row.

    With `full_context` rows are embedded in the light of the support set: g by a bidirectional LSTM over it (A.2), f by
    an LSTM that attends to it `reads` times (A.1, started at h = f′). Unlike there, features are first brought to
    `hidden` numbers by a learned matrix, and products are divided by √`hidden`. `Sets` says in which order support rows
    are read.
    """

    full_context: bool = False  # embed rows in the light of the whole support set
    hidden: int = 128  # width of the LSTMs
    reads: int = 3  # how often a query row attends to the support set

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.reads < 1:
            raise InputError(f"{self} is not possible: hidden and reads are at least 1")

    def network(self, width: int, generator: torch.Generator) -> Weights:
        """`matching/project` (H, V·D); of the LSTMs `forward`, `backward` (over the support set) and `read` (of the
        query) `w_ih` (4H, H or 2H), `w_hh` (4H, H), `b_ih` and `b_hh` (4H,)."""
        if not self.full_context:
            return {}
        project = {"matching/project": torch.randn(self.hidden, width, generator=generator)}
        inputs = {"forward": self.hidden, "backward": self.hidden, "read": 2 * self.hidden}
        parts = [recurrent(f"matching/{name}", 4, size, self.hidden, generator) for name, size in inputs.items()]
        return project | parts[0] | parts[1] | parts[2]

    def condition(self, theta: Weights, features: Tensor, support: Batch) -> Weights:
        """`matching/keys` (T, n, V·D or H), `matching/classes` (T, n, K), one-hot, zeros where a set has ended,
        `matching/scale` (T,), `matching/share` (T, V) and, with full context, the weights that read a query row."""
        head, tasks, sets = own(theta, support.form), support.count_tasks, Sets.of(support)
        share = view_weights(head, self.head.evidence(theta, features, support)["views/loss"])
        x = weighed(features, share[support.task_of])
        phi = {"scale": 2 * head["head/scale"].exp().expand(tasks), "share": share, "classes": sets.classes(support, x)}
        if self.full_context:
            w = pick_inside(theta, "matching/")
            x = x @ w["project"].T
            both = over(w, "forward", x, sets.place, sets) + over(w, "backward", x, sets.back, sets)
            phi["keys"] = sets.stack(x + both)
            phi |= shared({key: w[key] for key in w if key.startswith(("project", "read"))}, tasks)
        else:
            phi["keys"] = sets.stack(x)
        return {f"matching/{key}": value for key, value in phi.items()}

    def answer(self, phi: Weights, features: Tensor, batch: Batch) -> Tensor:
        w = pick_inside(phi, "matching/")
        x = weighed(features, w["share"][batch.task_of])
        if self.full_context:
            x = self._read(w, x, batch)
        cosine = products(normalize(x, dim=-1), normalize(w["keys"], dim=-1), batch)
        scale = w["scale"][batch.task_of, None]
        theirs = w["classes"][batch.task_of] > 0  # (N, n, K)
        return torch.where(theirs, (scale * cosine)[..., None], NONE).logsumexp(1).maximum(-scale)

    def _read(self, w: Weights, x: Tensor, batch: Batch) -> Tensor:
        """f: (N, V·D) -> (N, H)."""
        x = x @ w["project"][0].T  # one network for all tasks
        lstm = [part[0] for part in in_order(w, "read")]
        h, c, real = x, torch.zeros_like(x), (w["classes"].sum(-1) > 0)[batch.task_of]
        for _ in range(self.reads):
            near = products(h, w["keys"], batch) / math.sqrt(self.hidden)
            seen = attended(near.masked_fill(~real, -math.inf), w["keys"], batch)
            h, c = torch.lstm_cell(torch.cat([x, seen], 1), [h, c], *lstm)
            h = h + x
        return h


def weighed(features: Tensor, share: Tensor) -> Tensor:
    """Each view to the length √share, then end to end: (N, V, D), (N, V) -> (N, V·D), of length one. Cosines are then
    averages of those of the views."""
    # At a share of zero the slope of a root is infinite.
    return (normalize(features, dim=-1) * share.clamp(min=1e-12).sqrt()[..., None]).flatten(1)


def over(w: Weights, name: str, x: Tensor, place: Tensor, sets: Sets) -> Tensor:
    """An LSTM's outputs over the rows of each set, read in the order of `place`: (N, H) -> (N, H)."""
    zero = x.new_zeros(1, sets.tasks, x.shape[1])
    # Not run backwards as one bidirectional LSTM: that would begin with what fills up a short set.
    read, *_ = torch.lstm(sets.stack(x, place), [zero, zero], in_order(w, name), True, 1, 0.0, True, False, True)
    return read.flatten(0, 1)[place]
