"""Which column of a file is the text, which the label: our names, and the file's where they are others."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from reprlib import repr as brief

from metanlp.errors import InputError
from metanlp.tasks.records import Record

SINGLE, PAIR = ("text",), ("text_a", "text_b")
TEXTS = (*SINGLE, *PAIR)
ANSWERS = {"classify": "label", "regress": "score", "multilabel": "labels", "choose": "answer", "tag": "tags"}
"""The column that says of which form a task is."""
OF_FORM = {
    "classify": (*TEXTS, "label", "label_text"),
    "regress": (*TEXTS, "score"),
    "multilabel": (*TEXTS, "labels"),
    "choose": ("question", "choices", "answer"),
    "tag": ("tokens", "tags"),
}
FIELDS = tuple(dict.fromkeys(name for names in OF_FORM.values() for name in names))
JOINED = "+"  # stands between columns that are one field of ours: question=premise+question


def parse_columns(option: str) -> dict[str, str] | None:
    """`text=body,label=intent` as our names -> the file's; None for nothing. Raises InputError."""
    columns: dict[str, str] = {}
    for part in filter(str.strip, option.split(",")):
        # Our names are trimmed, the file's are not: a header `text, label` has a column " label".
        name, equals, theirs = part.partition("=")
        name = name.strip()
        if not (name and equals and theirs.strip()):
            raise InputError(f"--columns {part!r} is not of the form name=column; for example text=body,label=intent")
        if name in columns:
            raise InputError(f"--columns names `{name}` twice, {columns[name]!r} and {theirs!r}; choose one")
        columns[name] = theirs
    column_names(columns)
    return columns or None


def column_names(columns: Mapping[str, str] | None) -> dict[str, str]:
    """Our names -> the file's. Naming a single text switches pairs off, and the other way round. Raises InputError."""
    columns = columns or {}
    for name in columns:
        if name not in FIELDS:
            allowed = ", ".join(FIELDS)
            raise InputError(f"columns: {name!r} is no column of ours; allowed: {allowed}{nearest(name, FIELDS)}")
    single, pair = (any(name in columns for name in kind) for kind in (SINGLE, PAIR))
    if single and pair:
        raise InputError("columns: name `text` alone, or `text_a` with `text_b`; a task has one kind of row")
    off = PAIR if single else SINGLE if pair else ()
    names = {name: columns.get(name, name) for name in FIELDS if name not in off}
    for name in filter(names.__contains__, TEXTS):
        if both := [other for other in names if other != name and names[other] == names[name]]:
            raise InputError(
                f"columns: {names[name]!r} would be `{name}` and `{both[0]}` at once; give each a column of its own"
            )
    return names


def form_of(record: Record, columns: Mapping[str, str] | None, names: Mapping[str, str]) -> str:
    """The form of rows like `record`, by the answers that they have: by those that `columns` names, else by ours.
    Raises InputError where there are several."""
    where, cells = record
    named = [form for form, answer in ANSWERS.items() if answer in (columns or {})]
    found = named or [form for form, answer in ANSWERS.items() if names[answer] in cells]
    if not found or (not named and "classify" in found):
        return "classify"
    if len(found) > 1:
        both = listed(names[ANSWERS[form]] for form in found)
        raise InputError(
            f"{where}: has {both}, each an answer of its own; say which with --columns {ANSWERS[found[0]]}=…"
        )
    return found[0]


def names_of(form: str, names: Mapping[str, str]) -> dict[str, str]:
    """The names that rows of a form use."""
    return {name: names[name] for name in OF_FORM[form] if name in names}


def with_joined(record: Record, names: Mapping[str, str]) -> Record:
    """The record with a cell for every field that is made of several columns: choices as a list, texts in a line."""
    where, cells = record
    for field, theirs in names.items():
        parts = theirs.split(JOINED)
        if len(parts) > 1 and theirs not in cells and all(part in cells for part in parts):
            values = [cells[part] for part in parts]
            cells = {**cells, theirs: values if field == "choices" else " ".join(map(str, values))}
    return where, cells


def text_fields(record: Record, names: Mapping[str, str]) -> tuple[str, ...]:
    """Whether rows like `record` are single texts or pairs: ("text",) or ("text_a", "text_b"). Raises InputError."""
    where, cells = record
    present = [name for name in TEXTS if names.get(name) in cells]
    if "text" in present and len(present) > 1:
        raise InputError(f"{where}: has {listed(present)}; keep `text` alone, or `text_a` with `text_b`")
    wanted = PAIR if "text_a" in present or "text_b" in present or "text" not in names else SINGLE
    require(record, wanted, names)
    return wanted


def require(record: Record, wanted: Collection[str], names: Mapping[str, str]) -> None:
    """Raises InputError for the first column of `wanted` that is not there, with what may have been meant."""
    where, cells = record
    for name in wanted:
        if names[name] in cells:
            continue
        hint = _meant(name, record, names)
        raise InputError(f"{where}: no column {names[name]!r} for our `{name}`; found {listed(cells)}; {hint}")


def _meant(name: str, record: Record, names: Mapping[str, str]) -> str:
    """What to do about a column that is missing: there may be one like it, or several that it could be."""
    taken = {theirs for ours, theirs in names.items() if ours != name}
    free = [column for column in record[1] if column not in taken]
    likely = difflib.get_close_matches(names[name], free, n=2, cutoff=0.5)
    if name == "text" and not likely:
        likely = [column for column in free if isinstance(record[1][column], str)]
    if len(likely) > 1 and name == "text":
        first, second = (brief(column) for column in likely[:2])
        return f"{first} and {second} could both be the text: say which with --columns text=…, or text_a=…,text_b=…"
    if likely:
        return f"did you mean {brief(likely[0])}? then say --columns {name}={likely[0][:40]}"
    return f"name yours with --columns {name}=…"


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint to append to an error: the known name that looks most like `name`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def listed(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(brief(name) for name in found[:12]) + (", …" if len(found) > 12 else "") or "none"
