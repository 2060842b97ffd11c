"""Column names: which column of a file is the text and which the label, as named by the user or guessed."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from itertools import chain

from metanlp.core.errors import InputError
from metanlp.forms import DEFAULT, FORMS
from metanlp.forms.reading import PAIR, SINGLE, TEXTS, listed

# How data sets of the Hub call two texts, one text, and the label.
PAIRS = (
    ("text_a", "text_b"), ("premise", "hypothesis"), ("sentence1", "sentence2"), ("sentence_a", "sentence_b"),
    ("question1", "question2"), ("text1", "text2"), ("question", "sentence"), ("question", "passage"),
    ("query", "passage"),
)  # fmt: skip
SINGLES = ("text", "sentence", "content", "review", "tweet", "utterance", "comment", "query", "document", "headline")
LABELS = ("label", "labels", "intent", "category", "class", "target", "emotion", "topic")
JOINED = "+"  # stands between columns that are one field of ours: question=premise+question
OR = "|"  # stands between what files with other headers each call one field of ours: text=body|message


class ColumnsError(InputError):
    """A file lacks one of our columns. `fact` is that alone; `columns`, ours -> theirs, what its columns are likely to
    be, all of them, and None where that is not clear."""

    fact: str = ""
    columns: Mapping[str, str] | None = None


def all_columns() -> tuple[str, ...]:
    """The column names of all forms, as metanlp calls them."""
    forms = FORMS.values()
    return tuple(dict.fromkeys(name for form in forms for name in (*form.question_columns, *form.answer_columns)))


def tell_columns() -> tuple[str, ...]:
    """The column of the answer of each form; its presence tells the form of a row."""
    return tuple(form.answer_columns[0] for form in FORMS.values())


def parse_columns(option: str) -> dict[str, str] | None:
    """Parses `text=body,label=intent` into our names -> the file's; None for an empty option. Raises InputError."""
    columns = parse_pairs(option, all_columns())
    column_names(columns)
    return columns or None


def parse_pairs(option: str, ours: Collection[str]) -> dict[str, str]:
    """Parses `name=column,…` into names among `ours` -> the file's. Raises InputError."""
    columns: dict[str, str] = {}
    for part in filter(str.strip, option.split(",")):
        # Our names are trimmed, the file's are not: a header `text, label` has a column " label".
        name, equals, theirs = part.partition("=")
        name = name.strip()
        if not (name and equals and all(each.strip() for each in theirs.split(OR))):
            raise InputError(f"--columns {part!r} is not of the form name=column; for example text=body,label=intent")
        if name in columns:
            raise InputError(f"--columns names `{name}` twice, {columns[name]!r} and {theirs!r}; choose one")
        columns[name] = theirs
    check_ours(columns, ours)
    return columns


def check_ours(columns: Iterable[str], ours: Collection[str]) -> None:
    """Raises InputError for a name that is not among `ours`."""
    for name in columns:
        if name not in ours:
            allowed = ", ".join(ours)
            raise InputError(f"columns: {name!r} is no column of ours; allowed: {allowed}{nearest(name, ours)}")


def column_names(columns: Mapping[str, str] | None) -> dict[str, str]:
    """Our names -> the file's, for all columns. Where `columns` names `text`, `text_a` and `text_b` are left out, and
    the other way round. Raises InputError."""
    columns, ours = columns or {}, all_columns()
    check_ours(columns, ours)
    single, pair = (any(name in columns for name in kind) for kind in (SINGLE, PAIR))
    if single and pair:
        raise InputError("columns: name `text` alone, or `text_a` with `text_b`; a task has one kind of row")
    off = PAIR if single else SINGLE if pair else ()
    names = {name: columns.get(name, name) for name in ours if name not in off}
    for name in filter(names.__contains__, TEXTS):
        if both := [other for other in names if other != name and names[other] == names[name]]:
            raise InputError(
                f"columns: {names[name]!r} would be `{name}` and `{both[0]}` at once; give each a column of its own"
            )
    return names


def in_file(columns: Mapping[str, str] | None, header: Collection[str], where: str) -> dict[str, str]:
    """`columns` as in the file with this header: of several names, `body|message`, the one that stands there, in
    whatever letters, or the first where none does. Raises InputError where two do."""
    known = {str(name).strip().casefold() for name in header}

    def stands(theirs: str) -> bool:
        parts = theirs.split(JOINED)
        return theirs.strip().casefold() in known or all(part.strip().casefold() in known for part in parts)

    found = dict[str, str]()
    for ours, theirs in (columns or {}).items():
        several = [theirs] if theirs in header else theirs.split(OR)
        there = [*{each.strip().casefold(): each for each in reversed(several) if stands(each)}.values()]
        if len(there) > 1:
            raise InputError(f"{where}: {listed(there)} could each be the `{ours}` of --columns; name one of them")
        found[ours] = (there or several)[0]
    return found


def guess_columns(
    cells: Mapping[str, object],
    given: Mapping[str, str],
    *,
    classes: Collection[str],
    not_label: Collection[str],
    source: str,
) -> dict[str, str]:
    """Our column names -> theirs: the answer, and the texts or whatever else its form reads.

    `cells` is the first row, `given` the names that are known, `classes` the columns of type ClassLabel, `not_label`
    columns that are certainly no answer. Raises InputError where several columns, or none, could be meant."""
    free = [name for name in cells if name not in not_label]
    found = dict(given)
    if not found.keys() & {*tell_columns()}:
        found = _answer(cells, free, classes, source) | found
    if not found.keys() & {*TEXTS, *(name for form in FORMS.values() for name in form.usual)}:
        found |= _texts([n for n in free if isinstance(cells[n], str) and n not in found.values()], source)
    return found


def _answer(
    cells: Mapping[str, object], free: Collection[str], classes: Collection[str], source: str
) -> dict[str, str]:
    """The column of the answer, and those of the question where the form has usual names for them."""
    for form in FORMS.values():
        usual = {ours: [name for name in theirs if name in free] for ours, theirs in form.usual.items()}
        if usual and all(usual.values()):
            return {ours: names[0] for ours, names in usual.items()}
    likely = [name for name in free if name.casefold() in LABELS] or [name for name in free if name in classes]
    if "label" in likely:
        likely = ["label"]
    if len(likely) != 1:
        raise _unclear("label", likely, free, source)
    form = next((form for form in FORMS.values() if form.answer_type is type(cells[likely[0]])), DEFAULT)
    return {form.answer_columns[0]: likely[0]}


def _texts(names: Collection[str], source: str) -> dict[str, str]:
    """The column of the text, or those of two. `names` are the columns that hold text."""
    theirs = {name.casefold(): name for name in names}
    usual = [each for each in (*PAIRS, *zip(SINGLES, strict=True)) if theirs.keys() >= {*each}]
    usual = [each for each in usual if not any({*each} < {*other} for other in usual)]
    if len(usual) == 1:
        return {ours: theirs[name] for ours, name in zip(PAIR if usual[0][1:] else SINGLE, usual[0], strict=True)}
    likely = [theirs[name] for name in dict.fromkeys(chain.from_iterable(usual))]
    likely = likely or [name for name in names if name.casefold() != "label_text"]
    if len(likely) == 1:
        return {"text": likely[0]}
    raise _unclear("text", likely, names, source)


def _unclear(what: str, likely: Collection[str], names: Iterable[str], source: str) -> InputError:
    several = f"{listed(likely)} could each be the {what}"
    none = f"no column is known to be the {what}; found {listed(names)}"
    return InputError(f"{source}: {several if likely else none}; say which: columns={{'{what}': …}}")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint to append to an error: the other known name that looks most like `name`, or nothing."""
    close = difflib.get_close_matches(name, [each for each in known if each != name], n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
