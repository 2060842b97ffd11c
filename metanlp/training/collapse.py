"""Collapse: adapters under which all texts look alike. The loss is then flat, and no gradient leads back."""

from __future__ import annotations

from statistics import fmean

import torch
from torch import Tensor
from torch.nn.functional import normalize

from metanlp.algorithms.base import Net
from metanlp.core import weights
from metanlp.core.types import Batch, Weights
from metanlp.episodes.sampling import Episodes
from metanlp.forms.heads.base import per_task

LOOKED_AT = 8  # episodes: the first
ALIKE = 0.02  # of the distance between texts at the start: what is left of it in a collapse


class Likeness:
    """How alike the texts of an episode are: the mean cosine between the features of two of its query rows, over the
    views with adapters and a few fixed episodes. Features are not centred, as after centring a few rows the mean cosine
    is a constant. How alike they were at the start depends on the model (frozen MiniLM: below 0.1, a random one: 0.9),
    so a collapse is a share of the distance at the start."""

    def __init__(self, net: Net, episodes: Episodes, start: Weights) -> None:
        self._net = net
        self._views = [number for number, name in enumerate(net.view_names) if name.startswith("adapted")]
        self._batches = [net.with_trunk(build().query) for build in episodes.passes(0, LOOKED_AT, 1)]
        self.start = self.of(start)

    def of(self, theta: Weights) -> float:
        """At θ, before any adaptation; 0 where no view has adapters."""
        if not self._views:
            return 0.0
        with torch.no_grad():
            return fmean(float(mean_cosine(self._features(theta, batch), batch)) for batch in self._batches)

    def collapsed(self, cosine: float) -> bool:
        return 1 - cosine < ALIKE * (1 - self.start)

    def _features(self, theta: Weights, batch: Batch) -> Tensor:
        return self._net.features(weights.pick(theta, "lora/"), batch)[:, self._views]


def mean_cosine(features: Tensor, batch: Batch) -> Tensor:
    """Between two different units of a task, mean over tasks and views: (N, V, D) -> ()."""
    x = normalize(features, dim=-1)
    rows = per_task(x.new_ones(len(x)), batch)[:, None]  # (T, 1)
    pairs = per_task(x, batch).square().sum(-1) - rows  # (T, V): each pair twice
    return (pairs / (rows * (rows - 1)).clamp(min=1)).mean()
