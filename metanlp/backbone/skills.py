"""A small network over answers of students: the skill and what came before go in, features of the answer come out.

It takes the place of a pretrained encoder, behind the same doors: weights are handed in, and may have a task axis.
Letters: N answers, S skills, E numbers a skill's name, F about what came before, D features, T tasks.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import gelu

from metanlp.backbone.encoder import Backbone
from metanlp.backbone.packing import pack
from metanlp.core.types import Batch, Weights

NAMED = 16  # E at the most
SPREAD = 0.5  # of students' log-odds, before any learning


@dataclass(frozen=True)
class SkillNet:
    """Features (N, 1, D + 1): D numbers by which students differ, and the log-odds of a right answer for any student.

    A skill is a learned vector beside the frozen one of its name, so that one that nobody has taught is not unknown.
    All weights are adapters in the sense of the algorithms, `lora/…`: they are learned, and inner steps may move them.
    """

    names: Tensor  # (S, E) frozen vectors of the skills' names; (S, 0) without
    inputs: int  # F
    table: int = 16  # numbers a skill that are learned
    hidden: int = 32
    features_each: int = 16  # D

    @property
    def width(self) -> int:
        return self.features_each + 1

    @property
    def view_names(self) -> tuple[str, ...]:
        return ("adapted.answers",)

    @property
    def device(self) -> torch.device:
        return self.names.device

    def identity(self) -> dict[str, Any]:
        """All that decides what it computes, but its weights."""
        sizes = {key: value for key, value in asdict(self).items() if key != "names"}
        return {"net": sizes | {"names": hashlib.sha256(self.names.numpy().tobytes()).hexdigest()}}

    def init(self, generator: torch.Generator) -> Weights:
        """Nothing is known of skills; students differ in one number, how able they are."""
        read = self.table + self.names.shape[1] + self.inputs
        inner = torch.randn(self.hidden, read, generator=generator) / read**0.5
        out = 0.1 * torch.randn(self.width, self.hidden + read, generator=generator) / (self.hidden + read) ** 0.5
        bias = torch.zeros(self.width)
        bias[0] = SPREAD
        made = {"skills": torch.zeros(len(self.names), self.table), "in.weight": inner,
                "in.bias": torch.zeros(self.hidden), "out.weight": out, "out.bias": bias}  # fmt: skip
        return {f"lora/{key}": value for key, value in made.items()}

    def with_trunk(self, batch: Batch) -> Batch:
        """Answers come with what was before them."""
        return batch

    def features(self, w: Weights, batch: Batch) -> Tensor:
        assert batch.trunk is not None
        table, task = w["lora/skills"], batch.task_of
        own = table[batch.ids] if table.dim() == 2 else table[task, batch.ids]
        read = torch.cat([own, self.names[batch.ids], batch.trunk.states], 1)
        within = gelu(linear(w, "in", read, task))
        return linear(w, "out", torch.cat([within, read], 1), task)[:, None]

    def work(self, batch: Batch, passes: int) -> int:
        """Answers read."""
        return len(batch.targets) * passes


def linear(w: Weights, name: str, x: Tensor, task_of: Tensor) -> Tensor:
    """A layer whose weights may be each task's own: (N, I) -> (N, O)."""
    weight, bias = w[f"lora/{name}.weight"], w[f"lora/{name}.bias"]
    if weight.dim() == 2:
        return x @ weight.T + bias
    return torch.einsum("ni,noi->no", x, weight[task_of]) + bias[task_of]


def names_read(net: Backbone, names: tuple[str, ...]) -> Tensor:
    """What a frozen encoder says of the names, as the first principal components of its vectors: (S, E), of length one
    on average."""
    tokens = net.encode([(name,) for name in names])
    trunk = net.with_trunk(pack(tokens, np.arange(len(names)), np.zeros(len(names), np.int64), 1)).trunk
    assert trunk is not None
    x = trunk.frozen.flatten(1).float().cpu()
    x = x - x.mean(0)
    _, size, axes = torch.linalg.svd(x, full_matrices=False)
    found = x @ axes[: min(NAMED, len(size))].T
    return found / found.square().sum(1).mean().sqrt().clamp(min=1e-6)
