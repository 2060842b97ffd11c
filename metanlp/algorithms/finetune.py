"""Plain LoRA fine-tuning: what one does without any other task."""

from __future__ import annotations

from dataclasses import dataclass

from metanlp.algorithms.base import Algorithm, Net
from metanlp.algorithms.maml import gradient_recipes
from metanlp.errors import InputError
from metanlp.types import MetaGrad, Pass, Weights


@dataclass(frozen=True)
class Finetune(Algorithm):
    """Fresh adapters on every new task, head and inner loop as in the other methods."""

    def meta_grad(self, net: Net, theta: Weights, episodes: Pass) -> MetaGrad:
        raise InputError("finetune learns nothing from other tasks, so it can't be meta-trained; use it as it is")

    def recipes(self) -> tuple[Algorithm, ...]:
        return gradient_recipes(self)
