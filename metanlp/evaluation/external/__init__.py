"""External baselines, run only when named: SetFit and a prompted language model."""

from metanlp.evaluation.external.answer_cache import AnswerCache
from metanlp.evaluation.external.base import ExternalBaseline, examine
from metanlp.evaluation.external.llm import Llm
from metanlp.evaluation.external.setfit import SetFit

EXTERNAL: dict[str, type[ExternalBaseline]] = {"setfit": SetFit, "llm": Llm}

__all__ = ["EXTERNAL", "AnswerCache", "ExternalBaseline", "Llm", "SetFit", "examine"]
