"""One example is a text and another that is written for it, such as its translation. One unit is a token of the target,
and its answer is that token, given the source and the tokens before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from metanlp.core.errors import InputError
from metanlp.core.types import Meaning, Row
from metanlp.forms.base import Form, Scored, folded
from metanlp.forms.reading import MISSING, SINGLE, Cells, LabelledRow, Numbering, Pools

if TYPE_CHECKING:
    from metanlp.forms.heads.vocabulary import VocabularyHead

SIDES, TAGS = ("source", "target"), ("source_lang", "target_lang")

Judge = Callable[[Sequence[str], Sequence[str]], float]
"""From texts that were written and the right ones to a score of all of them, 0 to 100."""


class Generated(Form):
    """A text that is written, such as a translation: cross-entropy over the vocabulary, a mean over the tokens of the
    targets of each task. What the tokens are, only the model knows: it reads rows as pairs of texts, scores what is
    known of their targets, and writes."""

    name, metric, answer = "generate", "chrf", "target"
    written = True
    asks = "a text, or a row with `source`"
    question_columns, answer_columns, whole_texts = ("source",), ("target", *TAGS), True
    tuples: ClassVar = {2: SIDES, 4: (*SIDES, *TAGS)}
    prefix = "generate/"
    by_class, class_targets = False, False
    hub_task, example = "translation", "A dog sleeps."
    few: ClassVar = (
        ("A dog sleeps.", "Ein Hund schläft.", "en", "de"),
        ("Two men talk.", "Zwei Männer reden.", "en", "de"),
    )

    def make_head(self) -> VocabularyHead:
        from metanlp.forms.heads.vocabulary import VocabularyHead

        return VocabularyHead()

    def read(self, cells: Cells) -> Row:
        return {"source": in_one_line(cells.text("source" if "source" in cells.names else SINGLE[0]))}

    def read_labelled(self, cells: Cells) -> LabelledRow:
        for name, other in (SIDES, SIDES[::-1]):
            require_side(cells.where, cells[name], name, other)
        return super().read_labelled(cells)

    def read_answer(self, cells: Cells, row: Row) -> tuple[str, ...]:
        """The target, and the languages of both sides where they are given."""
        tags = [cells[name] if name in cells.names else MISSING for name in TAGS]
        given = tuple(str(tag).strip() for tag in tags if tag is not MISSING and str(tag or "").strip())
        if len(given) == 1:
            missing = next(
                name for name, tag in zip(TAGS, tags, strict=True) if tag is MISSING or not str(tag or "").strip()
            )
            raise no_tag(cells.where, missing)
        return (in_one_line(cells.text("target")), *given)

    def meaning(self, pools: Pools, name: str) -> Meaning:
        first = pools["train"][0]
        for row in (row for rows in pools.values() for row in rows):
            if row.label[1:] != first.label[1:]:
                one, other = (" to ".join(each.label[1:]) or "of no language" for each in (row, first))
                raise InputError(
                    f"{row.where}: is {one}, but {first.where} is {other}; give each pair of languages a file"
                )
        return Meaning(self.name)

    def numbering(self, rows: Sequence[LabelledRow], meaning: Meaning) -> Numbering:
        return lambda row: dict(zip((SIDES[1], *TAGS), row.label, strict=False))

    def question(self, item: Any) -> Row | None:
        if isinstance(item, Mapping):
            item = item.get("source", item.get("text"))
        return {"source": in_one_line(item)} if isinstance(item, str) and item.strip() else None

    def texts(self, row: Row) -> tuple[tuple[str, ...], ...]:
        """The source and, where it is known, the target."""
        return (tuple(row[name] for name in SIDES if name in row),)

    def title(self, row: Row) -> tuple[str, ...]:
        return (row["source"],)

    def key(self, row: Row) -> tuple[str, ...]:
        return (folded(row["source"]),)

    def gold(self, row: Row, meaning: Meaning) -> Sequence[Any]:
        """None here: the tokenizer of a model says which tokens a target has."""
        return ()

    def answers(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> list[dict[str, Any]]:
        return [{"target": text} for text in scored.texts]

    def metrics(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> dict[str, float]:
        """`nll`, nats a token of the targets; chrF2 and BLEU of the texts that were written. Raises InputError."""
        right = [row["target"] for row in rows]
        found = {name.lower(): judge(scored.texts, right) for name, judge in judges().items()}
        return {"nll": float(scored.values.mean()), **found}

    def wrong_by(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> np.ndarray:
        """What chrF2 of a text lacks."""
        judge = judges()["chrF"]
        return np.array(
            [1 - judge([text], [row["target"]]) / 100 for text, row in zip(scored.texts, rows, strict=True)]
        )


def in_one_line(text: str) -> str:
    """Without line breaks and repeated spaces."""
    return " ".join(text.split())


def languages_of(row: Row) -> tuple[str, ...]:
    """The languages of source and target; () where the row does not say."""
    return tuple(row[name] for name in TAGS if name in row)


def require_side(where: str, text: object, name: str, other: str) -> None:
    """Raises InputError for a row that has one side, `other`, and not the other."""
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where}: has a {other} without a {name}; add it, or remove the row")


def no_tag(where: str, name: str) -> InputError:
    return InputError(
        f'{where}: has no language tag {name!r}; write the language of each side, as "source_lang": "en", '
        '"target_lang": "de"'
    )


def judges() -> dict[str, Judge]:
    """Of whole corpora, by sacrebleu (Post 2018, arXiv 1804.08771): chrF2 (Popović 2015) and BLEU. Raises InputError
    where it is not installed."""
    if find_spec("sacrebleu") is None:
        raise InputError(
            "translations are judged by sacrebleu, which is not installed: pip install 'metanlp[translation]'"
        )
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    def judge(metric: Any, written: Sequence[str], right: Sequence[str]) -> float:
        return float(metric.corpus_score(list(written), [list(right)]).score)

    # `force` leaves out what it says of texts that look tokenised, once for each block.
    return {"chrF": partial(judge, CHRF()), "BLEU": partial(judge, BLEU(force=True))}
