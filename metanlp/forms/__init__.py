"""What one example is: the forms, by name."""

from metanlp.forms.base import Form, Objective, Scored
from metanlp.forms.registry import DEFAULT, FORMS, OBJECTIVES, TRACE, meant, names_of

__all__ = ["DEFAULT", "FORMS", "OBJECTIVES", "TRACE", "Form", "Objective", "Scored", "meant", "names_of"]
