"""One unit is a token of a target, and its answer is that token, given the source and the tokens before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metanlp.forms.base import Objective

if TYPE_CHECKING:
    from metanlp.forms.heads.vocabulary import VocabularyHead


class Generated(Objective):
    """A text that is written, such as a translation: cross-entropy over the vocabulary, a mean over the tokens of the
    targets of each task.

    No `Form`: answers are written by decoding and judged against texts, not read off the scores of units."""

    name = "generate"
    prefix = "generate/"
    by_class, class_targets = False, False

    def make_head(self) -> VocabularyHead:
        from metanlp.forms.heads.vocabulary import VocabularyHead

        return VocabularyHead()
