"""Methods of others that every comparison may hold ours against, by name; no run has them unless they are asked for."""

from metanlp.rivals.base import Rival, examine
from metanlp.rivals.kept import Kept
from metanlp.rivals.llm import Llm
from metanlp.rivals.setfit import SetFit

RIVALS: dict[str, type[Rival]] = {"setfit": SetFit, "llm": Llm}

__all__ = ["RIVALS", "Kept", "Llm", "Rival", "SetFit", "examine"]
