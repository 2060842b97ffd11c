"""What reads the features of texts with one label: prototypes, a logistic regression, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from torch import Tensor

from metanlp.algorithms.base import Algorithm
from metanlp.core.types import Batch, Weights
from metanlp.forms import OBJECTIVES
from metanlp.forms.heads.base import view_weights
from metanlp.forms.heads.logistic import logistic_heads, logistic_left_out
from metanlp.forms.heads.mixture import mixed_heads, mixed_scores, mixture_factors

Factors = tuple[Tensor, Tensor]
"""What a mixture multiplies its heads with: (T, H), and for each row without it (N, H)."""


@dataclass(frozen=True)
class Readout(Algorithm):
    """Methods that choose what reads their features where a text has one label; other forms have their own head, and
    meta-training has prototypes. In a mixture the left-out rows weigh and scale the two."""

    classifier: Literal["prototypes", "logistic", "mixture"] = "prototypes"  # what reads the features
    c: float = 10.0  # inverse strength of the logistic regression's L2 penalty

    def mixed(self) -> Self:
        """The same with a mixture, whose answers are as often right and better calibrated; itself where another reading
        was asked for."""
        return replace(self, classifier="mixture") if self.classifier == "prototypes" else self

    def each_mixed(self, settings: Sequence[Self]) -> tuple[Self, ...]:
        """The settings read by a mixture, and the first of them as it is, each once."""
        return tuple(dict.fromkeys([*(setting.mixed() for setting in settings), settings[0]]))

    def factors(self, theta: Weights, moved: Weights, features: Tensor, batch: Batch) -> Factors | None:
        """Of a mixture, from what these features say of left-out rows; None without one."""
        if self.classifier != "mixture" or self._has_own_head(batch):
            return None
        return mixture_factors(*self._each_left_out(theta, moved, features, batch), batch)

    def read_head(
        self, theta: Weights, moved: Weights, features: Tensor, batch: Batch, factors: Factors | None = None
    ) -> Weights:
        """φ's head: `head/weight` (T, K, V·D), `head/bias` (T, K). A mixture's factors are by default those of
        `features`."""
        prototypes = self.head.finish(theta, moved, features, batch)
        if self._has_own_head(batch):
            return prototypes
        logistic = logistic_heads(features, batch, self.c, self.views_share(theta, moved, features, batch))
        factors = factors or self.factors(theta, moved, features, batch)
        return mixed_heads([prototypes, logistic], factors[0]) if factors else logistic

    def read_left_out(
        self, theta: Weights, moved: Weights, features: Tensor, batch: Batch, factors: Factors | None = None
    ) -> tuple[Tensor, Tensor]:
        """Every unit scored by a head without it, and in a mixture by factors without it: (N, K), and which count (N,).
        The evidence about views alone, by which they are weighed, is that of all units."""
        if self._has_own_head(batch):
            return self.head.left_out(theta, moved, features, batch)
        (prototypes, logistic), usable = self._each_left_out(theta, moved, features, batch)
        if self.classifier == "logistic":
            return logistic, usable
        _, each = factors or mixture_factors([prototypes, logistic], usable, batch)
        return mixed_scores([prototypes, logistic], each, batch), usable

    def views_share(self, theta: Weights, moved: Weights, features: Tensor, batch: Batch) -> Tensor:
        """Of a row's squared length in the regression. Half evenly over the views, as a regression finds out by itself
        what a view is good for, and half by the evidence about them: (T, V)."""
        evidence = moved if "views/loss" in moved else self.head.evidence(theta, features, batch)
        return (view_weights(theta, evidence["views/loss"]) + 1 / features.shape[1]) / 2

    def _has_own_head(self, batch: Batch) -> bool:
        return self.classifier == "prototypes" or not OBJECTIVES[batch.form].single_label

    def _each_left_out(
        self, theta: Weights, moved: Weights, features: Tensor, batch: Batch
    ) -> tuple[list[Tensor], Tensor]:
        """By prototypes and by the regression: (N, K) each, and which rows count (N,)."""
        prototypes, usable = self.head.left_out(theta, moved, features, batch)
        share = self.views_share(theta, moved, features, batch)
        logistic, _ = logistic_left_out(features, batch, self.c, share)
        return [prototypes, logistic], usable
