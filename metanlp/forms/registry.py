"""The forms, by name."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import cast

from metanlp.forms.base import Form, Objective
from metanlp.forms.choose import Choose
from metanlp.forms.classify import Classify
from metanlp.forms.generate import Generated
from metanlp.forms.masked import Masked
from metanlp.forms.multilabel import Multilabel
from metanlp.forms.regress import Regress
from metanlp.forms.span import Span
from metanlp.forms.tag import Tag
from metanlp.forms.trace import Trace

# In the order of their keys in θ, on which the last bit of a norm depends. The first is meant where nothing says which.
EVERY = (Classify(), Tag(), Multilabel(), Choose(), Regress(), Span(), Generated())
FORMS: dict[str, Form] = {form.name: form for form in EVERY}
DEFAULT = next(iter(FORMS.values()))
# With what is learned from plain text, of which nobody writes rows, and from answers in their order.
TRACE = Trace()
BESIDE: dict[str, Objective] = {each.name: each for each in (Masked(), TRACE)}
OBJECTIVES = cast(Mapping[str, Objective], ChainMap(cast(dict[str, Objective], FORMS), BESIDE))


def meant(written: bool) -> Form:
    """The form that is meant where nothing says which, of a model that writes or of an encoder."""
    return next(form for form in FORMS.values() if form.written == written)


def names_of(wanted: Callable[[Form], bool]) -> str:
    """The names of the forms that are `wanted`, for people."""
    return ", ".join(name for name, form in FORMS.items() if wanted(form))
