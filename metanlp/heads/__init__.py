"""From features to scores: one head for each form, behind one door."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import fields as fields_of

from torch import Tensor

from metanlp.heads.base import Head, beyond, linear_scores, normalized
from metanlp.heads.prototypes import PrototypeHead, class_means, left_out_scores
from metanlp.heads.ridge import RidgeHead
from metanlp.types import Batch, Weights
from metanlp.weights import pick_inside

__all__ = [
    "Head", "Heads", "PrototypeHead", "RidgeHead", "beyond", "class_means", "left_out_scores", "linear_scores",
    "normalized",
]  # fmt: skip


@dataclass(frozen=True)
class Heads:
    """A head for each form, by its name. Each has its own part of θ: that of classify under the plain keys, those of
    the others below their names, `regress/head/scale`."""

    classify: PrototypeHead = PrototypeHead()
    tag: PrototypeHead = PrototypeHead()
    multilabel: RidgeHead = RidgeHead()
    choose: RidgeHead = RidgeHead(contrast=True, learned=True)
    regress: RidgeHead = RidgeHead(scale=1.0, offset=0.5, learned=True)

    def init(self, views: int, width: int) -> Weights:
        """All heads' parts of θ."""
        return {
            f"{_prefix(form)}{key}": value
            for form in (field.name for field in fields_of(self))
            for key, value in self.of(form).init(views, width).items()
        }

    def of(self, form: str) -> Head:
        return getattr(self, form)

    def residual(self, width: int, batch: Batch) -> Weights:
        return self.of(batch.form).residual(width, batch)

    def evidence(self, theta: Weights, features: Tensor, batch: Batch) -> Weights:
        return self.of(batch.form).evidence(own(theta, batch.form), features, batch)

    def left_out(self, theta: Weights, moved: Weights, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.of(batch.form).left_out(own(theta, batch.form), moved, features, batch)

    def finish(self, theta: Weights, moved: Weights, features: Tensor, batch: Batch) -> Weights:
        return self.of(batch.form).finish(own(theta, batch.form), moved, features, batch)

    def known(self, theta: Weights, features: Tensor, batch: Batch) -> Tensor | float:
        return self.of(batch.form).known(own(theta, batch.form), features, batch)

    def scores(self, phi: Weights, features: Tensor, batch: Batch) -> Tensor:
        return self.of(batch.form).scores(phi, features, batch)


def own(theta: Weights, form: str) -> Weights:
    """A head's part of θ, under plain keys."""
    return pick_inside(theta, f"{form}/") if _prefix(form) else theta


def _prefix(form: str) -> str:
    return "" if form == "classify" else f"{form}/"
