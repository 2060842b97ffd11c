"""What one example is: the forms, by name."""

from metanlp.forms.base import Form, Scored
from metanlp.forms.registry import DEFAULT, FORMS, Heads, names_of, own

__all__ = ["DEFAULT", "FORMS", "Form", "Heads", "Scored", "names_of", "own"]
