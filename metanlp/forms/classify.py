"""One example is a text, or a pair of texts, with one label out of a task's own."""

from __future__ import annotations

import unicodedata

import torch
from torch import Tensor

from metanlp.types import Row


def texts(row: Row) -> tuple[str, ...]:
    """What the tokenizer reads: one text or two."""
    return (row["text"],) if "text" in row else (row["text_a"], row["text_b"])


def key(row: Row) -> tuple[str, ...]:
    """The row's identity for the leakage check: its texts, with case, compatible characters and white space folded."""
    return tuple(" ".join(unicodedata.normalize("NFKC", text).casefold().split()) for text in texts(row))


def loss(scores: Tensor, targets: Tensor, task_of: Tensor, tasks: int, weight: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of each task: (N, K), (N,), (N,) -> (T,). `weight` (N,) leaves rows out; none left gives 0."""
    each = torch.nn.functional.cross_entropy(scores.float(), targets, reduction="none")
    weight = torch.ones_like(each) if weight is None else weight
    sums = each.new_zeros(tasks).index_add(0, task_of, each * weight)
    return sums / each.new_zeros(tasks).index_add(0, task_of, weight).clamp(min=1)
