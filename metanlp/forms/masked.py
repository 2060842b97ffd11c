"""One unit is a hidden token of a passage, and its answer is in the passage: nobody writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metanlp.forms.base import Objective

if TYPE_CHECKING:
    from metanlp.forms.heads.vocabulary import VocabularyHead


class Masked(Objective):
    """Masked language modelling: cross-entropy over the vocabulary, a mean over the hidden tokens of each task.

    No `Form`: there are no rows to read, no answers to give and no classes of a task's own. A passage becomes tokens,
    and what is hidden of it is drawn, where the tokenizer is known."""

    name = "masked"
    prefix = "masked/"
    by_class, class_targets = False, False

    def make_head(self) -> VocabularyHead:
        from metanlp.forms.heads.vocabulary import VocabularyHead

        return VocabularyHead()
