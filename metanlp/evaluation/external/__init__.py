"""External baselines, run only when named: plain regressions, SetFit and a prompted language model."""

from metanlp.evaluation.external.answer_cache import AnswerCache
from metanlp.evaluation.external.base import ExternalBaseline, examine
from metanlp.evaluation.external.llm import Llm
from metanlp.evaluation.external.plain import Logistic, Tfidf
from metanlp.evaluation.external.setfit import SetFit

EXTERNAL: dict[str, type[ExternalBaseline]] = {
    "tfidf": Tfidf, "logistic": Logistic, "setfit": SetFit, "llm": Llm,
}  # fmt: skip

__all__ = ["EXTERNAL", "AnswerCache", "ExternalBaseline", "Llm", "Logistic", "SetFit", "Tfidf", "examine"]
