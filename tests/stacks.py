"""Weights of several tasks as one stack, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from metanlp.core.types import Weights


def stacked(parts: Sequence[Weights]) -> Weights:
    """Stacks of tasks end to end: [(T₁, …), (T₂, …)] -> (T₁ + T₂, …)."""
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def take(w: Weights, task: int) -> Weights:
    """The weights of one task, its axis kept: (T, …) -> (1, …)."""
    return {key: value[task : task + 1] for key, value in w.items()}
