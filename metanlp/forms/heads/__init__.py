"""From features to scores. Which head a form has stands in the form."""

from metanlp.forms.heads.base import Head, beyond, linear_scores, normalized
from metanlp.forms.heads.prototypes import PrototypeHead, class_means, left_out_scores
from metanlp.forms.heads.ridge import RidgeHead
from metanlp.forms.heads.vocabulary import VocabularyHead

__all__ = [
    "Head", "PrototypeHead", "RidgeHead", "VocabularyHead", "beyond", "class_means", "left_out_scores", "linear_scores",
    "normalized",
]  # fmt: skip
