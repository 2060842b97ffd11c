"""From records to rows: whether text and label are fit to learn from."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from reprlib import repr as brief
from typing import Any

from metanlp.errors import InputError
from metanlp.tasks import answers
from metanlp.tasks.answers import MISSING, NO_LABEL, encodable, label_word
from metanlp.tasks.columns import (
    PAIR,
    SINGLE,
    column_names,
    form_of,
    listed,
    names_of,
    nearest,
    require,
    text_fields,
    with_joined,
)  # fmt: skip
from metanlp.tasks.records import Record, kind, read_records, shown


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One example as it stands in a file, checked."""

    where: str  # file:line, for errors that show up later
    form: str
    texts: dict[str, Any]  # `text`, or `text_a` and `text_b`; `question` and `choices`; `tokens`
    # As written: a word or integer; the score; the number of the right choice; labels; spans with their class in words
    label: Any
    word: str | None = None  # the label in words, where the file has a column for it


def read_rows(path: str | Path, columns: Mapping[str, str] | None = None) -> list[LabelledRow]:
    """The labelled rows of a file. `columns` maps our names to the file's: {"text": "sentence"}. Raises InputError."""
    path = Path(path)
    records = read_records(path)
    if path.suffix.lower() == ".csv":
        records = answers.as_typed(records, column_names(columns))
    return labelled_rows(records, columns, shown(path))


def labelled_rows(records: Iterable[Record], columns: Mapping[str, str] | None, source: str) -> list[LabelledRow]:
    """Records with an answer, checked: the columns by the first, the rest against it. Raises InputError."""
    names = column_names(columns)
    first, records = _first((with_joined(record, names) for record in records), source)
    form = form_of(first, columns, names)
    names = names_of(form, names)
    if form in READERS:
        require(first, names, names)
        return [READERS[form](record, names) for record in records]
    fields = text_fields(first, names)
    named = columns is not None and "label_text" in columns  # else that column may be missing
    require(first, [name for name in names if name not in (*SINGLE, *PAIR) and (named or name != "label_text")], names)
    return [_labelled_row(record, form, fields, names) for record in records]


def unlabelled_rows(
    records: Iterable[Record],
    columns: Mapping[str, str] | None,
    source: str,
    known: Collection[str] | None = None,
    form: str = "classify",
) -> list[dict[str, Any]]:
    """Records of which only the texts count, checked. A label that stands beside them has to be one of `known`, where
    that is given. Raises InputError."""
    names = column_names(columns)
    first, records = _first((with_joined(record, names) for record in records), source)
    if form == "choose":
        require(first, ("question", "choices"), names)
        return [_question(record, names)[0] for record in records]
    if form == "tag" and names["tokens"] in first[1]:
        return [{"tokens": answers.read_tokens(cells.get(names["tokens"], MISSING), where)} for where, cells in records]
    names = names_of("classify", names)
    fields = text_fields(first, names)
    rows: list[dict[str, Any]] = []
    for record in records:
        rows.append(_texts(record, fields, names))
        if known is not None and form == "classify":
            _seen(record, names, known)
    return rows


def _first(records: Iterable[Record], source: str) -> tuple[Record, Iterator[Record]]:
    records = iter(records)
    first = next(records, None)
    if first is None:
        raise InputError(f"{source}: has no rows; give at least two rows of different classes")
    return first, chain([first], records)


def _seen(record: Record, names: Mapping[str, str], known: Collection[str]) -> None:
    """Raises InputError for a label that the model cannot give: the texts are then another task's."""
    where, cells = record
    written = [cells.get(names[name]) for name in ("label_text", "label")]
    given = [str(value).strip() for value in written if value is not None]
    # -1 is how published test sets say that the label is kept secret.
    given = [word for word in given if word not in ("", "-1", *NO_LABEL)]
    if given and not any(word in known for word in given):
        raise InputError(
            f"{where}: the label {brief(given[0])} was never seen by this model, which knows {listed(known)}; "
            f"mend it, or remove the column{nearest(given[0], known)}"
        )


def _labelled_row(record: Record, form: str, fields: tuple[str, ...], names: Mapping[str, str]) -> LabelledRow:
    where, cells = record
    texts = _texts(record, fields, names)
    if form == "regress":
        return LabelledRow(where, form, texts, answers.read_score(cells.get(names["score"], MISSING), where))
    if form == "multilabel":
        return LabelledRow(where, form, texts, answers.read_labels(cells.get(names["labels"], MISSING), where))
    label = _label(cells.get(names["label"], MISSING), where)
    return LabelledRow(where, form, texts, label, _word(cells.get(names["label_text"]), where))


def _chosen_row(record: Record, names: Mapping[str, str]) -> LabelledRow:
    where, cells = record
    texts, letters = _question(record, names)
    answer = answers.read_answer(cells.get(names["answer"], MISSING), texts["choices"], letters, where)
    return LabelledRow(where, "choose", texts, answer)


def _question(record: Record, names: Mapping[str, str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    where, cells = record
    question = _text(cells.get(names["question"], MISSING), f"{where}: {names['question']!r}")
    choices, letters = answers.read_choices(cells.get(names["choices"], MISSING), where)
    return {"question": question, "choices": choices}, letters


def _tagged_row(record: Record, names: Mapping[str, str]) -> LabelledRow:
    where, cells = record
    tokens = answers.read_tokens(cells.get(names["tokens"], MISSING), where)
    spans = answers.read_spans(cells.get(names["tags"], MISSING), len(tokens), where)
    return LabelledRow(where, "tag", {"tokens": tokens}, spans)


READERS = {"choose": _chosen_row, "tag": _tagged_row}


def _texts(record: Record, fields: tuple[str, ...], names: Mapping[str, str]) -> dict[str, Any]:
    where, cells = record
    for other in SINGLE if fields == PAIR else PAIR:
        if other in names and names[other] in cells:
            raise InputError(f"{where}: has `{other}`, rows before have {listed(fields)}; use one kind of row")
    return {name: _text(cells.get(names[name], MISSING), f"{where}: {names[name]!r}") for name in fields}


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        came = "missing" if value is MISSING else kind(value)
        raise InputError(f"{what} is {came}; every row needs a text there")
    if not value.strip():
        raise InputError(f"{what} is {'blank' if value else 'empty'}; every row needs a text there")
    if "\0" in value:
        raise InputError(f"{what} holds a NUL character; remove it")
    if not encodable(value):
        raise InputError(f"{what} holds half of a surrogate pair; write the character whole or remove it")
    return value


def _label(value: object, where: str) -> str | int:
    what = f"{where}: the label is"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        came = "missing" if value is MISSING else kind(value)
        raise InputError(f"{what} {came}; write a word or an integer")
    if isinstance(value, float):
        came = "NaN" if math.isnan(value) else f"the decimal {value}"
        raise InputError(f"{what} {came}; write a word or an integer")
    if isinstance(value, int):
        if abs(value) >= 10**18:
            raise InputError(f"{what} an integer of more than 18 digits; write a word or a smaller one")
        return value
    return label_word(value, what.removesuffix(" is"))


def _word(value: object, where: str) -> str | None:
    if value is None or value == "":
        return None
    what = f"{where}: label_text is"
    if not isinstance(value, str):
        raise InputError(f"{what} {kind(value)}; write the label in words or leave the cell out")
    return label_word(value, what.removesuffix(" is")) if value.strip() else None
