"""Plain LoRA fine-tuning: what one does without any other task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from metanlp.algorithms.inner import InnerLoop


@dataclass(frozen=True)
class Finetune(InnerLoop):
    """Fresh adapters on every new task, head and inner loop as in the other methods."""

    meta_trains: ClassVar[bool] = False
