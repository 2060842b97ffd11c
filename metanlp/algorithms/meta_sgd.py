"""Meta-SGD: learned inner rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from metanlp.algorithms.base import Algorithm
from metanlp.algorithms.maml import Maml
from metanlp.algorithms.steps import Rates
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Weights


@dataclass(frozen=True)
class MetaSgd(Maml):
    """Li, Zhou, Chen & Li 2017, arXiv 1707.03835: the inner rates are part of θ. One for each matrix and each step, as
    in MAML++ (Antoniou, Edwards & Storkey 2019, arXiv 1810.09502, §4), rather than one for each number.

    `rates/KEY` (steps,) is the logarithm of a factor on the rate that `inner` gives to the tensor KEY, 0 at first: the
    start is MAML, and rates stay above zero. Steps beyond those that θ knows take the rates of the last one.

    First order holds the shortened support gradients g fixed: with φ_S = θ − Σ α_s g_s the gradient of log α_s is
    −α_s ⟨∇L_query(φ_S), g_s⟩. That is exact for the last step; an earlier one also changes the gradients after it,
    which only `second_order` sees.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner.optimiser != "sgd":
            raise InputError(f"meta_sgd learns the rates of 'sgd', but inner.optimiser is {self.inner.optimiser!r}")

    def network(self, theta: Weights, width: int, generator: torch.Generator) -> Weights:
        """`rates/…` for every tensor that may move."""
        keys = (*weights.pick(theta, "lora/"), "head/weight", "head/bias")
        return {f"rates/{key}": torch.zeros(max(1, self.inner.steps)) for key in keys}

    def rates(self, theta: Weights, keys: Iterable[str]) -> Sequence[Rates]:
        start = self.inner.moving(keys)
        factors = {key: theta[f"rates/{key}"].exp() for key in start}
        return [
            {key: rate * factors[key][min(step, len(factors[key]) - 1)] for key, rate in start.items()}
            for step in range(self.inner.steps)
        ]

    def recipes(self) -> tuple[Algorithm, ...]:
        """The learned rates as they are, halved and doubled, read by a mixture; and as they were trained."""
        inner = replace(self.inner, steps=max(5, self.inner.steps))
        scaled = (replace(inner, lr=by * inner.lr, head_lr=by * inner.head_lr) for by in (1.0, 0.5, 2.0))
        return self.each_mixed([replace(self, inner=each) for each in scaled])
