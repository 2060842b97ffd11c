"""From records to checked rows. The first record decides about form and columns; all others must have the same."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, tee
from pathlib import Path
from reprlib import repr as brief

import numpy as np

from metanlp.core.errors import InputError
from metanlp.core.types import Row
from metanlp.forms import DEFAULT, FORMS, Form
from metanlp.forms.reading import (
    INTEGER,
    NO_LABEL,
    NUMBER,
    PAIR,
    SINGLE,
    TEXTS,
    Cells,
    LabelledRow,
    Untyped,
    composed,
    kind,
    listed,
    truth_word,
)
from metanlp.tasks.reading.columns import JOINED, ColumnsError, all_columns, column_names, in_file, nearest
from metanlp.tasks.reading.records import OF_TEXT, Record, read_records, shown
from metanlp.tasks.reading.suggestion import LOOKED_AT, hint, suggested


def read_rows(path: str | Path, columns: Mapping[str, str] | None = None) -> list[LabelledRow]:
    """The labelled rows of a file. `columns` maps our names to the file's: {"text": "sentence"}. Raises InputError."""
    path = Path(path)
    return labelled_rows(read_records(path), columns, shown(path), path.suffix.lower() in OF_TEXT)


def labelled_rows(
    records: Iterable[Record], columns: Mapping[str, str] | None, source: str, of_text: bool = False
) -> list[LabelledRow]:
    """Reads records that have an answer. `source` is the name of the file in errors; `of_text` says that all cells are
    text, also those that spell numbers or lists. Raises InputError."""
    first, records = _first(records, source, "two rows of different classes")
    columns = in_file(columns, first[1], first[0])
    names = column_names(columns)
    first, records = _first(_ours(records, columns, of_text), source, "two rows of different classes")
    form = form_of(first, columns, names)
    fields, (answer, *more) = question_fields(form.question_columns, first, names), form.answer_columns
    answer = next((name for name in (answer, *form.plain) if names[name] in first[1]), answer)
    require(first, (*fields, answer, *(name for name in more if name in columns)), names, records)
    return [form.read_labelled(cells) for cells in _cells(records, fields, form.answer_columns, names)]


def unlabelled_rows(
    records: Iterable[Record],
    columns: Mapping[str, str] | None,
    source: str,
    known: Collection[str] | None = None,
    form: str = "classify",
    of_text: bool = False,
) -> list[tuple[Row, dict[str, object]]]:
    """Reads records without answers, each with its cells that are no part of the row, as the file has them, but for a
    column that has the name of an answer. Labels may stand beside them; where `known` is given, they must be among it.
    Raises InputError."""
    first, records = _first(records, source, "one text")
    columns = in_file(columns, first[1], first[0])
    names, kind, ours = column_names(columns), FORMS[form], respelt(first[1], columns)
    records, written = tee(records)
    first, records = _first(_ours(records, columns, of_text), source, "one text")
    whole = kind.whole_texts and not any(names[name] in first[1] for name in kind.question_columns)
    fields = question_fields(TEXTS if whole else kind.question_columns, first, names)
    rows = list[tuple[Row, dict[str, object]]]()
    read = {names[name] for name in fields} | {name for name in (kind.answer,) if names.get(name) == name}
    require(first, fields, names, records)
    for cells, (_, given) in zip(_cells(records, fields, kind.answer_columns, names), written, strict=False):
        rows.append((kind.read(cells), {name: given[name] for name in given if ours.get(name, name) not in read}))
        if known is not None and kind.single_label:
            _seen(cells, kind.answer_columns, known)
    return rows


def _cells(
    records: Iterable[Record], fields: Sequence[str], answers: Sequence[str], names: Mapping[str, str]
) -> Iterator[Cells]:
    """The cells of each record by our names. Raises InputError for a pair among single texts, or the other way
    round."""
    used = {name: names[name] for name in (*fields, *answers) if name in names}
    others = [name for name in TEXTS if name in names and name not in fields] if {*fields} <= {*TEXTS} else []
    for where, cells in records:
        if other := next((name for name in others if names[name] in cells), None):
            raise InputError(f"{where}: has `{other}`, rows before have {listed(fields)}; use one kind of row")
        yield Cells(where, cells, used)


def _ours(records: Iterable[Record], columns: Mapping[str, str] | None, of_text: bool) -> Iterator[Record]:
    """The records with cells as our columns want them: under their names, typed, joined. Raises InputError."""
    names, found = column_names(columns), spelled(iter(records), columns or {})
    return with_joined(as_typed(found, names) if of_text else found, names)


def spelled(records: Iterator[Record], columns: Mapping[str, str]) -> Iterator[Record]:
    """With our name, or that of `columns`, for a column that the first record has in other letters, ` Text`."""
    first = next(records, None)
    if first is None:
        return
    ours = respelt(first[1], columns)
    for where, cells in chain([first], records):
        yield where, {ours.get(name, name): value for name, value in cells.items()} if ours else cells


def under_our_names(records: Iterable[Record], columns: Mapping[str, str]) -> Iterator[Record]:
    """The records with our names for what `columns` says of them, too. Raises InputError."""
    names = column_names(columns)
    for where, cells in with_joined(records, names):
        yield where, {**cells, **{ours: cells[theirs] for ours, theirs in names.items() if theirs in cells}}


def respelt(found: Collection[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Of columns that are `found`, those that stand for ours, or for those of `columns`, in other letters: theirs ->
    the name that is meant."""
    free = {name: str(name).strip().casefold() for name in found if name not in columns.values()}
    theirs = {key: name for name, key in free.items() if [*free.values()].count(key) == 1}
    given = [part for name in columns.values() if name not in found for part in name.split(JOINED)]
    renamed = {ours for ours, name in columns.items() if name != ours}
    wanted = (name for name in (*given, *all_columns()) if name not in found and name not in renamed)
    return {theirs[key]: name for name in wanted if (key := name.strip().casefold()) in theirs}


def _first(records: Iterable[Record], source: str, wanted: str) -> tuple[Record, Iterator[Record]]:
    records = iter(records)
    first = next(records, None)
    if first is None:
        raise InputError(f"{source}: has no rows; give at least {wanted}")
    return first, chain([first], records)


def _seen(cells: Cells, answers: Sequence[str], known: Collection[str]) -> None:
    """Raises InputError for a label that the model does not know: these are then the texts of another task."""
    written = [cells.values.get(cells.names[name]) for name in reversed(answers) if name in cells.names]
    words = (
        truth_word(value, known) if isinstance(value, bool) else str(value) for value in written if value is not None
    )
    given = [composed(word) for word in words]
    # -1 is how published test sets say that the label is kept secret.
    given = [word for word in given if word not in ("", "-1", *NO_LABEL)]
    if given and not any(word in known for word in given):
        raise InputError(
            f"{cells.where}: the label {brief(given[0])} was never seen by this model, which knows {listed(known)}; "
            f"mend it, or remove the column{nearest(given[0], known)}"
        )


def as_typed(records: Iterator[Record], names: Mapping[str, str]) -> Iterator[Record]:
    """CSV has only text: labels and answers become `Untyped`, scores numbers, lists are read as JSON, as the forms
    declare them. Text that spells something else stays, and is refused when the row is read."""
    untyped, numbers, lists = (
        [names[ours] for form in FORMS.values() for ours in getattr(form, kind) if ours in names]
        for kind in ("untyped", "numbers", "lists")
    )
    for where, cells in records:
        typed: dict[str, object] = {name: Untyped(cells[name]) for name in untyped if name in cells}
        typed |= {name: _number(cells[name]) for name in numbers if name in cells}
        typed |= {name: _list(cells[name]) for name in lists if name in cells}
        yield where, cells | typed


def _number(cell: object) -> object:
    text = str(cell).strip()
    return int(text) if INTEGER.fullmatch(text) else float(text) if NUMBER.fullmatch(text) else cell


def _list(cell: object) -> object:
    text = str(cell).strip()
    try:
        return json.loads(text) if text.startswith("[") else cell
    except (ValueError, RecursionError):
        return cell


def with_joined(records: Iterable[Record], names: Mapping[str, str]) -> Iterator[Record]:
    """Adds a cell for every field that is joined from several columns, `text=title+body`: a list of their cells where
    the form wants a list, else their texts with spaces between, without blank ones. Raises InputError."""
    lists = {name for form in FORMS.values() for name in form.lists}
    several = {field: theirs.split(JOINED) for field, theirs in names.items() if JOINED in theirs}
    for where, cells in records:
        for field, parts in several.items():
            if names[field] not in cells and all(part in cells for part in parts):
                values = [as_text(cells[part], f"{where}: {part!r}") for part in parts]
                joined = values if field in lists else " ".join(value for value in values if value.strip())
                cells = {**cells, names[field]: joined}
        yield where, cells


def as_text(value: object, what: str) -> str:
    """A cell as text. Floats without a fraction become integers, as a column of integers with a gap is read as floats;
    values of single precision get no more digits than they have. Raises InputError for null, NaN, lists, objects and
    bytes."""
    if isinstance(value, float) and abs(value) < 2**53:
        single = np.float32(value)
        return str(int(value) if value.is_integer() else single if float(single) == value else value)
    if value is None or value != value or isinstance(value, list | dict | bytes):
        came = kind(value) if value == value else "NaN"
        raise InputError(f"{what} is {came}; every row needs a text there, to be joined with the other columns")
    return str(value)


def form_of(record: Record, columns: Mapping[str, str] | None, names: Mapping[str, str]) -> Form:
    """The form of rows like `record`: that of the answer column which `columns` names, else of the one that is present;
    of several forms that whose question is there too. Raises InputError where that does not decide."""
    where, cells = record
    named = [form for form in FORMS.values() if form.answer_columns[0] in (columns or {})]
    found = named or [form for form in FORMS.values() if names[form.answer_columns[0]] in cells]
    if not named and DEFAULT in found:
        return DEFAULT
    if not named:
        found = _of_question(found, cells, names) or found or [DEFAULT]
    if len(found) > 1:
        both = listed(names[form.answer_columns[0]] for form in found)
        hint = f"say which with --columns {found[0].answer_columns[0]}=…"
        raise InputError(f"{where}: has {both}, each an answer of its own; {hint}")
    return found[0]


def _of_question(found: Sequence[Form], cells: Mapping[str, object], names: Mapping[str, str]) -> list[Form]:
    """Those of the forms `found` by their answer whose question the record has. Where it has that of none, those with a
    question of their own that it has, and with an answer in another column than the first, or none at all."""
    own = [form for form in FORMS.values() if form.question_columns != TEXTS]
    own = [form for form in own if all(names[name] in cells for name in form.question_columns)]
    plain = [form for form in own if not found or any(names[name] in cells for name in form.plain)]
    return [form for form in found if form in own or form.question_columns == TEXTS] or plain


def question_fields(question: Sequence[str], record: Record, names: Mapping[str, str]) -> tuple[str, ...]:
    """Our columns of the `question` that rows like `record` have: all of them, or where it is made of texts, `text` or
    `text_a` and `text_b`. Raises InputError."""
    where, cells = record
    if question != TEXTS:
        return tuple(question)
    present = [name for name in TEXTS if names.get(name) in cells]
    if "text" in present and len(present) > 1:
        raise InputError(f"{where}: has {listed(present)}; keep `text` alone, or `text_a` with `text_b`")
    return PAIR if "text_a" in present or "text_b" in present or "text" not in names else SINGLE


def require(record: Record, wanted: Collection[str], names: Mapping[str, str], more: Iterable[Record] = ()) -> None:
    """Raises ColumnsError for the first column of `wanted` that the record does not have, with a suggestion, which is
    told from the values of the records from this one on where there are `more`."""
    where, cells = record
    for name in wanted:
        if names[name] not in cells:
            looked_at = [record, *islice(more, 1, LOOKED_AT)]
            fact, found = f"{where}: no column {names[name]!r} for our `{name}`", suggested(looked_at, wanted, names)
            error = ColumnsError(f"{fact}; found {listed(cells)}; {hint(looked_at, name, names, found)}")
            error.fact, error.columns = fact, found
            raise error
