"""Frozen features: the baseline that costs nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from metanlp.algorithms.base import Adaptations, Algorithm, Inner, Net
from metanlp.algorithms.readout import Readout
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Weights


@dataclass(frozen=True)
class Frozen(Readout):
    """No adapter: prototypes (Snell et al. 2017), a logistic regression, or both, on the frozen views alone."""

    meta_trains: ClassVar[bool] = False
    adapters: ClassVar[bool] = False

    inner: Inner = Inner(steps=0)  # no gradient step

    def init(self, net: Net, generator: torch.Generator) -> Weights:
        if not any(view.startswith("frozen.") for view in net.view_names):
            raise InputError(f"the frozen baseline needs a frozen view, but the views are {list(net.view_names)}")
        return super().init(net, generator)

    def adapting(self, net: Net, theta: Weights, support: Batch, steps: Collection[int]) -> Adaptations:
        yield self.inner.steps, weights.detach(self.read_head(*self._seen(net, theta, support), support))

    def left_out(self, net: Net, theta: Weights, support: Batch) -> tuple[Tensor, Tensor]:
        return self.read_left_out(*self._seen(net, theta, support), support)

    def views_share(self, theta: Weights, moved: Weights, features: Tensor, batch: Batch) -> Tensor:
        """One each: this is the plain regression that others report."""
        return features.new_ones(batch.count_tasks, features.shape[1])

    def features(self, net: Net, phi: Weights, batch: Batch) -> Tensor:
        trunk = net.with_trunk(batch).trunk
        assert trunk is not None
        return trunk.frozen

    def recipes(self) -> tuple[Algorithm, ...]:
        tried = [replace(self, classifier="logistic", c=c) for c in (1.0, 10.0, 100.0)]
        return tuple(dict.fromkeys((*self.each_mixed([self]), *tried)))

    def _seen(self, net: Net, theta: Weights, support: Batch) -> tuple[Weights, Weights, Tensor]:
        """θ whose heads have the frozen views alone, a residual of zero, and the features (N, frozen views, D)."""
        shown = [number for number, name in enumerate(net.view_names) if name.startswith("frozen.")]
        by_view = ("views/prior", "head/vector")
        theta = {key: value[shown] if key.endswith(by_view) else value for key, value in theta.items()}
        features = self.features(net, theta, support)
        return theta, self.head.residual(features[0].numel(), support), features
