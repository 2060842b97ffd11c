"""The forms, by name, and the heads of all of them behind one door."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import cast

from torch import Tensor

from metanlp.core.types import Batch, Weights
from metanlp.core.weights import pick_inside
from metanlp.forms.base import Form, Objective
from metanlp.forms.choose import Choose
from metanlp.forms.classify import Classify
from metanlp.forms.generate import Generated
from metanlp.forms.heads.base import Head
from metanlp.forms.masked import Masked
from metanlp.forms.multilabel import Multilabel
from metanlp.forms.regress import Regress
from metanlp.forms.span import Span
from metanlp.forms.tag import Tag
from metanlp.forms.trace import Trace

# In the order of their keys in θ, on which the last bit of a norm depends. The first is meant where nothing says which.
FORMS: dict[str, Form] = {form.name: form for form in (Classify(), Tag(), Multilabel(), Choose(), Regress(), Span())}
DEFAULT = next(iter(FORMS.values()))
# With what is learned from plain text, of which nobody writes rows, from answers in their order, and texts to write.
TRACE = Trace()
BESIDE: dict[str, Objective] = {each.name: each for each in (Masked(), TRACE, Generated())}
OBJECTIVES = cast(Mapping[str, Objective], ChainMap(cast(dict[str, Objective], FORMS), BESIDE))


def names_of(wanted: Callable[[Form], bool]) -> str:
    """The names of the forms that are `wanted`, for people."""
    return ", ".join(name for name, form in FORMS.items() if wanted(form))


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
