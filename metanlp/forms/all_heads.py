"""The heads of all forms behind one door."""

from __future__ import annotations

from torch import Tensor

from metanlp.core.types import Batch, Weights
from metanlp.core.weights import pick_inside
from metanlp.forms.heads.base import Head
from metanlp.forms.registry import FORMS, OBJECTIVES


class Heads(Head):
    """The head of each batch's form, given its own part of θ: that of classify stands under the plain keys, those of
    the others below their names, `regress/head/scale`."""

    def init(self, views: int, width: int) -> Weights:
        parts = [(form.prefix, form.head.init(views, width)) for form in FORMS.values()]
        return {f"{prefix}{key}": value for prefix, part in parts for key, value in part.items()}

    def residual(self, width: int, batch: Batch) -> Weights:
        return OBJECTIVES[batch.form].head.residual(width, batch)

    def evidence(self, theta: Weights, features: Tensor, batch: Batch) -> Weights:
        return OBJECTIVES[batch.form].head.evidence(own(theta, batch), features, batch)

    def left_out(self, theta: Weights, moved: Weights, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return OBJECTIVES[batch.form].head.left_out(own(theta, batch), moved, features, batch)

    def finish(self, theta: Weights, moved: Weights, features: Tensor, batch: Batch) -> Weights:
        return OBJECTIVES[batch.form].head.finish(own(theta, batch), moved, features, batch)

    def known(self, theta: Weights, features: Tensor, batch: Batch) -> Tensor | float:
        return OBJECTIVES[batch.form].head.known(own(theta, batch), features, batch)

    def scores(self, phi: Weights, features: Tensor, batch: Batch) -> Tensor:
        return OBJECTIVES[batch.form].head.scores(phi, features, batch)


def own(theta: Weights, batch: Batch) -> Weights:
    """The part of θ that is of the head of the batch's form, under plain keys."""
    prefix = OBJECTIVES[batch.form].prefix
    return pick_inside(theta, prefix) if prefix else theta
