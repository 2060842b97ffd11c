"""What one example is: the forms, by name."""

from metanlp.forms.base import Form, Objective, Scored
from metanlp.forms.registry import DEFAULT, FORMS, OBJECTIVES, TRACE, names_of

__all__ = ["DEFAULT", "FORMS", "OBJECTIVES", "TRACE", "Form", "Objective", "Scored", "names_of"]
