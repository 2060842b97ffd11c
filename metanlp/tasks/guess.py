"""Which columns of a published table are the question and the answer, by the names that data sets use."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from reprlib import repr as brief

from metanlp.errors import InputError
from metanlp.tasks.columns import ANSWERS, PAIR, SINGLE

PAIRS = (
    ("text_a", "text_b"),
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
)
SINGLES = ("text", "sentence", "content", "review", "tweet", "utterance", "comment", "query", "document", "headline")
TAGS = ("tags", "ner_tags")
CHOSEN = ("answer", "answerKey", "label")
LABELS = ("label", "labels", "intent", "category", "class", "target", "emotion", "topic")


def guess_columns(
    cells: Mapping[str, object],
    given: Mapping[str, str],
    *,
    classes: Collection[str],
    not_label: Collection[str],
    source: str,
) -> dict[str, str]:
    """Our column names -> theirs: an answer, and `text` or `text_a` with `text_b`, or what else its form reads.

    `cells` is a first row, `given` what the caller has named, `classes` the columns whose type is a list of classes,
    `not_label` columns that say something else. Raises InputError where several columns, or none, could be meant."""
    free = [name for name in cells if name not in not_label]
    found = dict(given)
    if not found.keys() & {*ANSWERS.values()}:
        found = _answer(cells, free, classes, source) | found
    if not found.keys() & {*SINGLE, *PAIR, "choices", "tags"}:
        found |= _texts([n for n in free if isinstance(cells[n], str) and n not in found.values()], source)
    return found


def _answer(
    cells: Mapping[str, object], free: Collection[str], classes: Collection[str], source: str
) -> dict[str, str]:
    """The answer's column; with it the others where its form has names of its own."""
    if "tokens" in free and (tags := [name for name in TAGS if name in free]):
        return {"tokens": "tokens", "tags": tags[0]}
    if {"question", "choices"} <= {*free} and (chosen := [name for name in CHOSEN if name in free]):
        return {"question": "question", "choices": "choices", "answer": chosen[0]}
    label = _label(free, classes, source)
    kinds = {"float": "score", "list": "labels"}
    return {kinds.get(type(cells[label]).__name__, "label"): label}


def _label(names: Collection[str], classes: Collection[str], source: str) -> str:
    usual = [name for name in names if name.casefold() in LABELS] or [name for name in names if name in classes]
    if len(usual) == 1 or "label" in usual:
        return "label" if "label" in usual else usual[0]
    raise _unclear("label", usual, names, source)


def _texts(names: Collection[str], source: str) -> dict[str, str]:
    """`names` are the columns that hold text."""
    theirs = {name.casefold(): name for name in names}
    pairs = [pair for pair in PAIRS if theirs.keys() >= {*pair}]
    singles = [name for name in SINGLES if name in theirs and not any(name in pair for pair in pairs)]
    if len(pairs) == 1 and not singles:
        return {ours: theirs[name] for ours, name in zip(PAIR, pairs[0], strict=True)}
    usual = [theirs[name] for name in (*dict.fromkeys(name for pair in pairs for name in pair), *singles)]
    likely = usual or [name for name in names if name.casefold() != "label_text"]
    if len(likely) == 1:
        return {"text": likely[0]}
    raise _unclear("text", likely, names, source)


def _unclear(what: str, likely: Collection[str], names: Iterable[str], source: str) -> InputError:
    several = f"{_listed(likely)} could each be the {what}"
    none = f"no column is known to be the {what}; found {_listed(names) or 'none'}"
    return InputError(f"{source}: {several if likely else none}; say which: columns={{'{what}': …}}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(brief(name) for name in list(names)[:12])
