"""The head of what is told word by word: that of the pretrained model, and a bias a word for each task.

Letters: N units, W words of the vocabulary, T tasks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metanlp.core.types import Batch, Weights
from metanlp.forms.heads.base import Head


class VocabularyHead(Head):
    """Features are scores already: one view of W numbers, from the pretrained model's own vocabulary head, which stays
    as it is. A task's own are the adapters below, and a bias a word, which starts at zero: how much more often a word
    occurs in this domain. Nothing is solved on the support set, so that no unit has been seen by the head."""

    def init(self, views: int, width: int) -> Weights:
        return {}

    def residual(self, width: int, batch: Batch) -> Weights:
        """`head/bias` (T, W)."""
        return {"head/bias": torch.zeros(batch.count_tasks, width, device=batch.ways.device)}

    def evidence(self, theta: Weights, features: Tensor, batch: Batch) -> Weights:
        """One view needs none."""
        return {"views/loss": features.new_zeros(batch.count_tasks, features.shape[1])}

    def left_out(self, theta: Weights, moved: Weights, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.scores(moved, features, batch), features.new_ones(len(features))

    def finish(self, theta: Weights, moved: Weights, features: Tensor, batch: Batch) -> Weights:
        return {"head/bias": moved["head/bias"]}

    def known(self, theta: Weights, features: Tensor, batch: Batch) -> Tensor | float:
        return features[:, 0]

    def scores(self, phi: Weights, features: Tensor, batch: Batch) -> Tensor:
        return features[:, 0] + phi["head/bias"].index_select(0, batch.task_of)
