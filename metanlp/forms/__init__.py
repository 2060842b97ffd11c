"""The forms, by name."""

from metanlp.forms.base import Form, Scored
from metanlp.forms.choose import Choose
from metanlp.forms.classify import Classify
from metanlp.forms.multilabel import Multilabel
from metanlp.forms.regress import Regress
from metanlp.forms.tag import Tag

FORMS: dict[str, Form] = {form.name: form for form in (Classify(), Regress(), Choose(), Multilabel(), Tag())}

__all__ = ["FORMS", "Form", "Scored"]
