"""Which columns are meant where ours are missing: told from names, and from the values of a file's first rows.

Texts are long and nearly all different; labels are short and few. Nothing is read by it: it is said in an error."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as brief
from statistics import fmean

from metanlp.tasks.reading.columns import JOINED, LABELS, OR, PAIRS, SINGLES
from metanlp.tasks.reading.records import Record

LOOKED_AT = 500  # rows of a file whose values are looked at
LONGEST_LABEL = 60  # characters, mean over rows
CLEARLY = 3  # times longer is the text where another column holds some too
ORDER = {"text": 0, "text_a": 1, "text_b": 2}  # in an option; others follow
CLOSE = 0.7  # likeness of names from which on one may be meant by the other


@dataclass(frozen=True)
class Column:
    """What the values of a column look like."""

    name: str
    rows: int  # with a value
    distinct: int  # values
    length: float  # mean characters
    wordy: bool  # whether most values have letters for the most part, and spaces or letters of a script without
    numeric: bool  # whether all values are numbers

    @property
    def few(self) -> bool:
        """Few and short: what labels are."""
        return 2 <= self.distinct <= self.rows / 2 and self.length <= LONGEST_LABEL

    @property
    def many(self) -> bool:
        """Many and in words: what texts are."""
        return self.wordy and self.distinct > self.rows / 2


def suggested(records: Sequence[Record], wanted: Collection[str], names: Mapping[str, str]) -> dict[str, str] | None:
    """What our columns are called in a file whose first rows lack some of our columns `wanted`, of which `names` are
    ours -> theirs: all that differ; None where that is not clear."""
    first = records[0][1]
    missing = [ours for ours in wanted if names[ours] not in first]
    given = {ours: theirs for ours, theirs in names.items() if ours != theirs and theirs in first}
    found = _found(records, missing, names, {*given.values(), *(names[ours] for ours in wanted)})
    return None if found is None else in_order({**given, **found})


def hint(records: Sequence[Record], missing: str, names: Mapping[str, str], found: Mapping[str, str] | None) -> str:
    """What to say of a file whose columns were `found`: the whole option, or what could be the one that is missing."""
    if found is not None:
        new = [theirs for ours, theirs in found.items() if names.get(ours) != theirs]
        return f"did you mean {' and '.join(map(brief, new))}? then say --columns {option_of(found)}"
    likely = _likely(records, missing, [name for name in records[0][1] if name not in names.values()])
    if len(likely) > 1:
        one, other = (brief(column) for column in likely[:2])
        pair = ", or text_a=…,text_b=…" if missing == "text" else ""
        return f"{one} and {other} could both be the {missing}: say which with --columns {missing}=…{pair}"
    return f"name yours with --columns {missing}=…"


def option_of(columns: Mapping[str, str]) -> str:
    """The value of --columns, as a shell takes it."""
    return shlex.quote(",".join(f"{ours}={theirs}" for ours, theirs in columns.items()))


def in_order(columns: Mapping[str, str]) -> dict[str, str]:
    """Texts first."""
    return dict(sorted(columns.items(), key=lambda pair: ORDER.get(pair[0], len(ORDER))))


def together(each: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """One option for several files, out of what our columns are called in each: `body|message`."""
    every = dict.fromkeys(ours for columns in each for ours in columns)
    names = {ours: [columns.get(ours, ours) for columns in each] for ours in every}
    return in_order(
        {ours: OR.join({name.strip().casefold(): name for name in theirs}.values()) for ours, theirs in names.items()}
    )


def _found(
    records: Sequence[Record], missing: Sequence[str], names: Mapping[str, str], taken: Collection[str]
) -> dict[str, str] | None:
    """The column of each of ours that is missing; None where that is not clear for all of them."""
    free = [name for name in records[0][1] if name not in taken and not {*",=", JOINED, OR} & {*name}]
    found = dict[str, str]()
    for ours in missing:  # a name that was typed and is not there is one misspelt
        if ours != names[ours] and (near := _near(names[ours], free)):
            found[ours] = near[0]
            free.remove(near[0])
    described = [described_column(name, [cells.get(name) for _, cells in records]) for name in free]
    for ours, tell in (("label", _labels), ("text", _texts)):
        if ours in missing and ours not in found:
            told = tell([each for each in described if each.name not in found.values()])
            found |= dict(zip(("text_a", "text_b") if len(told) > 1 else (ours,), told, strict=False))
    for ours in missing:
        if ours not in found and not (ours == "text" and "text_a" in found):
            near = _near(names[ours], [name for name in free if name not in found.values()])
            if len(near) != 1:
                return None
            found[ours] = near[0]
    return in_order(found)


def described_column(name: str, values: Sequence[object]) -> Column:
    """Of the values of one column, those without any left out."""
    said = [str(value).strip() for value in values if isinstance(value, str | int | float)]
    said = [value for value in said if value]
    wordy = [value for value in said if _in_words(value)]
    numeric = bool(said) and all(value.replace(".", "", 1).lstrip("+-").isdecimal() for value in said)
    length = fmean(map(len, said)) if said else 0.0
    return Column(name, len(said), len({*said}), length, 2 * len(wordy) > len(said), numeric)


def _in_words(value: str) -> bool:
    letters = sum(mark.isalpha() for mark in value)
    return 2 * letters > len(value) and (" " in value or not value.isascii())


def _labels(columns: Sequence[Column]) -> tuple[str, ...]:
    """The one column that holds the labels, or none: by its usual name, else by its values, words before numbers."""
    few = [column for column in columns if column.few]
    kinds = (
        [each for each in few if each.name.strip().casefold() in LABELS],
        [each for each in few if not each.numeric],
        few,
    )
    return next(((kind[0].name,) if len(kind) == 1 else () for kind in kinds if kind), ())


def _texts(columns: Sequence[Column]) -> tuple[str, ...]:
    """The column of the text, or those of two; none where several could be meant."""
    theirs = {column.name.strip().casefold(): column for column in columns if column.wordy}
    pair = next((pair for pair in PAIRS if {*pair} <= theirs.keys()), ())
    if pair:
        return tuple(theirs[name].name for name in pair)
    many = sorted((column for column in columns if column.many), key=lambda column: -column.length)
    usual = [column for column in many if column.name.strip().casefold() in SINGLES]
    if len(many) > 1 and len(usual) != 1 and many[0].length < CLEARLY * many[1].length:
        return ()
    return tuple(column.name for column in (usual if len(usual) == 1 else many)[:1])


def _likely(records: Sequence[Record], ours: str, free: Sequence[str]) -> list[str]:
    """Columns that could be the one of ours: with many texts, or where there are none with any; with few values."""
    described = [described_column(name, [cells.get(name) for _, cells in records]) for name in free]
    if ours == "text":
        words = [each.name for each in described if isinstance(records[0][1][each.name], str) and not each.numeric]
        return [each.name for each in described if each.many] or words
    return [each.name for each in described if each.few] if ours == "label" else []


def _near(name: str, names: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(name, names, n=2, cutoff=CLOSE)
