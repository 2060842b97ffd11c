"""Networks that read a support set and score queries by it.

Letters: N rows, M support rows, F features of all views, T tasks, K classes, W width.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import gelu, one_hot

from metanlp.algorithms.networks import set_attention as attention
from metanlp.core import weights
from metanlp.core.types import Batch, Weights
from metanlp.forms.heads.base import per_task, votes

LAYERS = 2  # of the transformer


class Reader(Protocol):
    """A function of sets: neither the order of rows nor the numbers of classes change what it says of a class.
    `read` gives what a query has to know of a support set, (N, F) -> (T, …), `answer` scores, (N, F) -> (N, K)."""

    def init(self, inputs: int, width: int, generator: torch.Generator) -> Weights: ...
    def read(self, w: Weights, x: Tensor, support: Batch) -> Weights: ...
    def answer(self, w: Weights, memory: Weights, x: Tensor, batch: Batch) -> Tensor: ...


class ConditionalProcess:
    """Garnelo et al. 2018, arXiv 1807.01613, for classes: each row is encoded twice, as a member and as a
    non-member. A class is the mean of its members beside the mean of all others, in which classes count alike. Every
    pair of query and class is decoded alike."""

    def init(self, inputs: int, width: int, generator: torch.Generator) -> Weights:
        sizes = {"encode": (width, width), "from": (width, 2 * width), "with": (width, width), "decode": (width, width)}
        made = {name: attention.matrix(*size, generator) for name, size in sizes.items()}
        role = torch.randn(2, width, generator=generator)  # of the others, of a member
        return made | {"embed": attention.matrix(width, inputs, generator), "role": role, "score": torch.zeros(width)}

    def read(self, w: Weights, x: Tensor, support: Batch) -> Weights:
        each = gelu((x @ w["embed"].T)[:, None] + w["role"]) @ w["encode"].T  # (N, 2, W)
        own = one_hot(support.targets, support.max_ways).to(x.dtype)  # (N, K)
        others, member = each.unbind(1)
        inside, outside = (
            per_task(which[..., None] * rows[:, None], support) / per_task(which, support).clamp(min=1)[..., None]
            for which, rows in ((own, member), ((1 - own) * votes(support).to(x.dtype)[:, None], others))
        )
        return {"classes": torch.cat([inside, outside], -1)}  # (T, K, 2W)

    def answer(self, w: Weights, memory: Weights, x: Tensor, batch: Batch) -> Tensor:
        classes = (memory["classes"] @ w["from"].T).index_select(0, batch.task_of)  # (N, K, W)
        asked = gelu(classes + (gelu(x @ w["embed"].T) @ w["with"].T)[:, None])
        return gelu(asked @ w["decode"].T) @ w["score"]


class PriorFitted:
    """A transformer over support and query rows: Müller et al. 2022, arXiv 2112.10510; TabPFN, Hollmann et al. 2023,
    arXiv 2207.01848. Support rows look at each other, a query at the support rows of its task alone.

    There labels are embedded; here the attention among support rows has a bias for rows of one class, and a query's
    score for a class comes from its attention within the rows of that class.
    """

    def init(self, inputs: int, width: int, generator: torch.Generator) -> Weights:
        made = attention.set_weights(inputs, width, map(str, range(LAYERS)), generator)
        sizes = {"query": (width, width), "key": (width, width), "value": (width, width), "compare": (width, 3 * width)}
        made |= {name: attention.matrix(*size, generator) for name, size in sizes.items()}
        return made | {"score": torch.zeros(width)}

    def read(self, w: Weights, x: Tensor, support: Batch) -> Weights:
        """`rows` (T, LAYERS + 1, N, W), before each layer and after the last, of all tasks of the pass and shared by
        them; `own` (T, N, K), the votes of each row for a task's classes."""
        states = attention.encoded(w, x, support, LAYERS)
        tasks = torch.arange(support.count_tasks, device=x.device)
        own = one_hot(support.targets, support.max_ways) * (tasks[:, None] == support.task_of)[..., None]
        own = own * votes(support)[:, None]
        return {"rows": torch.stack(states).expand(len(tasks), -1, -1, -1), "own": own.to(x.dtype)}

    def answer(self, w: Weights, memory: Weights, x: Tensor, batch: Batch) -> Tensor:
        seen, own = memory["rows"][0], memory["own"]  # (LAYERS + 1, M, W), (T, M, K)
        visible = own.sum(-1).log()[batch.task_of]  # (N, M): −∞ for rows of other tasks
        x = x @ w["embed"].T
        for number in range(LAYERS):
            x = attention.block(weights.pick_inside(w, f"{number}/"), x, seen[number], visible)
        query = attention.norm(x)
        found = self._class_values(w, query, attention.norm(seen[-1]), own.sum(0), visible)
        query = query[:, None].expand_as(found)
        return gelu(torch.cat([query, found, query * found], -1) @ w["compare"].T) @ w["score"]

    def _class_values(self, w: Weights, query: Tensor, seen: Tensor, own: Tensor, visible: Tensor) -> Tensor:
        """Attention of each query within each class: (N, W), (M, W), (M, K), (N, M) -> (N, K, W), zeros for a class
        without rows."""
        keys, values = (attention.heads(seen @ w[name].T) for name in ("key", "value"))
        by_head = attention.heads(query @ w["query"].T)
        logits = by_head @ keys.transpose(-2, -1) / math.sqrt(by_head.shape[-1]) + visible  # (HEADS, N, M)
        odds = (logits - logits.amax(-1, keepdim=True).detach()).exp()
        by_class = torch.einsum("mk,hmd->hmkd", own, values).flatten(2)
        sums = (odds @ by_class).unflatten(-1, (own.shape[1], -1))  # (HEADS, N, K, W / HEADS)
        return (sums / (odds @ own).clamp(min=1e-20)[..., None]).permute(1, 2, 0, 3).flatten(2)


READERS: dict[str, Reader] = {"cnp": ConditionalProcess(), "transformer": PriorFitted()}
