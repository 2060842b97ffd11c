"""What one example is: the forms, by name."""

from metanlp.forms.base import Form, Objective, Scored
from metanlp.forms.registry import DEFAULT, FORMS, OBJECTIVES, TRACE, Heads, names_of, own

__all__ = ["DEFAULT", "FORMS", "OBJECTIVES", "TRACE", "Form", "Heads", "Objective", "Scored", "names_of", "own"]
