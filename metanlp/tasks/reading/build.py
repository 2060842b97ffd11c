"""From checked rows to a Task: labels become numbers, pools are compared, and notes say what looks like a mistake."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from metanlp.core.errors import InputError
from metanlp.core.types import Meaning, Row, Task
from metanlp.forms import FORMS
from metanlp.forms.base import folded
from metanlp.forms.reading import LabelledRow, Pools, is_plain, listed, require_pairs
from metanlp.tasks.reading.columns import ColumnsError, nearest
from metanlp.tasks.reading.containers import labelled_rows_of
from metanlp.tasks.reading.rows import labelled_rows
from metanlp.tasks.reading.suggestion import option_of
from metanlp.tasks.rowset import KEY, KeyedRows, changed

NAME_LIMIT = 200  # characters: names become parts of file names and table cells

Rows = Sequence[LabelledRow]


def task_from_rows(name: str, rows: Any, *, columns: Mapping[str, str] | None = None, source: str = "python") -> Task:
    """A task from labelled rows in memory: {"text": …, "label": word or integer}, in any container that
    `labelled_rows_of` takes. `columns` maps our names to those of the rows: {"text": "body"}. Raises InputError with
    the number of the row."""
    return build_task(check_name(name), {"train": rows_from(name, rows, columns)}, source=source)


def rows_from(name: str, rows: Any, columns: Mapping[str, str] | None) -> Rows:
    """Labelled rows in memory as if they stood in a file. Raises InputError with the number of the row."""
    records = ((f"{name}: row {number}", dict(row)) for number, row in enumerate(labelled_rows_of(rows), start=1))
    try:
        return labelled_rows(records, columns, name)
    except ColumnsError as error:
        said, found = str(error), error.columns or {}
        raise InputError(said.replace(f"--columns {option_of(found)}", f"columns={found}")) from None


def build_task(name: str, pools: Pools, *, source: str, supports: Mapping[int, Sequence[Rows]] | None = None) -> Task:
    """One task from checked rows. The rows of "train" say which labels there are. Raises InputError where rows of the
    task do not go together."""
    supports = supports or {}
    everything = [*chain.from_iterable(pools.values()), *chain(*chain.from_iterable(supports.values()))]
    _check_alike(everything)
    form = FORMS[everything[0].form]
    typed = form.typed(everything)
    meaning = form.meaning({pool: [*map(typed, rows)] for pool, rows in pools.items()}, name)
    answer = form.numbering([*map(typed, everything)], meaning)

    def row_of(row: LabelledRow) -> Row:
        return {**row.texts, **answer(typed(row))}

    def rows_of(rows: Rows) -> KeyedRows:
        return KeyedRows(map(row_of, rows), np.array([row.key for row in rows], dtype=KEY))

    return Task(
        name=name,
        pools={pool: rows_of(rows) for pool, rows in pools.items()},
        labels=meaning.labels,
        source=source,
        form=form.name,
        scale=meaning.scale,
        metric=form.metric,
        supports={shots: tuple(map(rows_of, each)) for shots, each in supports.items()},
        notes=tuple(notes_on(everything, lambda row: form.truth(row_of(row), meaning), meaning.labels)),
    )


def rows_for(rows: Rows, meaning: Meaning, pairs: bool) -> list[Row]:
    """Rows of a task that is known: their answers numbered as in `meaning`. Raises InputError for rows of another form,
    that do not go together, or with an answer that it does not have, and for pairs of texts where it has none."""
    _check_alike(rows)
    first = rows[0]
    if first.form != meaning.form:
        raise InputError(f"{first.where}: is of the form {first.form!r}, the model of {meaning.form!r}; give such rows")
    require_pairs(first.texts, pairs, f"{first.where}:")
    form = FORMS[meaning.form]
    typed = [*map(form.typed(rows, meaning.labels), rows)]
    answer = form.numbering(typed, meaning)
    return [{**row.texts, **answer(row)} for row in typed]


def _check_alike(rows: Rows) -> None:
    """Raises InputError for a row whose answer or texts are of another kind than those of the first."""
    first = rows[0]
    for row in rows:
        if row.form != first.form:
            has, had = (FORMS[each.form].answer_columns[0] for each in (row, first))
            raise InputError(f"{row.where}: has {has!r}, but {first.where} has {had!r}; a task has one kind of answer")
        if row.texts.keys() != first.texts.keys():
            had, has = " and ".join(first.texts), " and ".join(row.texts)
            raise InputError(f"{row.where}: has {has}, but {first.where} has {had}; a task has one kind of row")


def notes_on(rows: Sequence[LabelledRow], truth: Callable[[LabelledRow], Any], labels: Sequence[str]) -> Iterator[str]:
    """What the owner of the rows should look at, a sentence each with its first example: labels with invisible
    characters, labels that look alike, texts with two answers. `truth` gives the answer of a row in words."""
    respelt = [row for row in rows if row.respelt]
    if respelt:
        yield (
            f"{respelt[0].where}: the label {str(respelt[0].label)!r} has invisible characters, or letters in parts; "
            f"it is read without, as in {len(respelt)} rows"
        )
    alike = dict[str, str]()
    for label in labels:
        seen = "".join(mark for mark in folded(label) if unicodedata.category(mark) != "Cf")
        other = alike.setdefault(seen, label)
        if other != label:
            yield f"the labels {other!r} and {label!r} look alike; if they are one class, write it one way"
    first, found = dict[int, LabelledRow](), dict[int, tuple[LabelledRow, LabelledRow]]()
    for row in rows:
        other = first.setdefault(row.key, row)
        if other is not row and other.key not in found and truth(other) != truth(row):
            found[row.key] = other, row
    if found:
        one, other = next(iter(found.values()))
        texts = f"{len(found)} texts have" if len(found) > 1 else "one text has"
        yield (
            f"{other.where}: the answer here is {truth(other)!r}, and to the same text at {one.where} {truth(one)!r}; "
            f"{texts} several answers, and every row is kept"
        )


def without_repeats(pools: Pools) -> tuple[dict[str, Rows], list[str]]:
    """The pools without those rows of others that are also in "train", and a sentence for each pool that had some.
    Raises InputError for a pool of which none is left."""
    taught, kept, said = {row.key for row in pools["train"]}, dict[str, Rows](), list[str]()
    for pool, rows in pools.items():
        kept[pool] = rows if pool == "train" else [row for row in rows if row.key not in taught]
        if lost := len(rows) - len(kept[pool]):
            said.append(f"{lost} of the {len(rows)} rows of {pool!r} stand also in 'train', and are left out")
        if not kept[pool]:
            raise InputError(f"{rows[0].where}: every row of {pool!r} stands also in 'train'; give it others")
    return kept, said


def check_apart(pools: Pools) -> None:
    """Raises InputError, with both places, for a row of another pool that is also in "train"."""
    taught = {row.key: row.where for row in pools["train"]}
    for pool in (pool for pool in pools if pool != "train"):
        if shared := [row for row in pools[pool] if row.key in taught]:
            other, more = taught[shared[0].key], f", as {len(shared) - 1} more do" if len(shared) > 1 else ""
            raise InputError(
                f"{shared[0].where}: this row of {pool!r} stands also in 'train', {other}{more}; "
                "remove one of the two, or leave out such rows with --drop-repeats"
            )


def with_labels(task: Task, labels: Sequence[str]) -> Task:
    """The same rows with their labels numbered in the order of `labels`. `_` may stand for a space; where the labels
    are numbers, they are places in `labels`. Raises InputError for a label of the task that is not in `labels`."""
    places = {_spelling(label): number for number, label in enumerate(labels)}
    if all(word.isdecimal() for word in task.labels):
        places = {str(number): number for number in range(len(labels))}
    for word in task.labels:
        if _spelling(word) not in places:
            raise InputError(
                f"task {task.name!r} has the label {word!r}; it may have: {listed(labels)}{nearest(word, labels)}"
            )
    return relabelled(task, labels, {place: places[_spelling(word)] for place, word in enumerate(task.labels)})


def relabelled(task: Task, labels: Sequence[str], numbers: Mapping[int, int]) -> Task:
    """The same rows under other labels; the label with number n gets the number `numbers[n]`."""

    def renumbered(rows: Sequence[Row]) -> Sequence[Row]:
        return changed(rows, lambda row: {**row, "label": numbers[row["label"]]}, FORMS[task.form])

    return replace(
        task,
        labels=tuple(labels),
        pools={pool: renumbered(rows) for pool, rows in task.pools.items()},
        supports={shots: tuple(map(renumbered, sets)) for shots, sets in task.supports.items()},
    )


def _spelling(label: str) -> str:
    return label.replace("_", " ").casefold()


def check_name(name: str) -> str:
    """Returns `name`. Raises InputError unless it can be the name of a task: one line, and a relative path without
    `..`."""
    if not name.strip() or not is_plain(name) or len(name) > NAME_LIMIT:
        raise InputError(f"task name {ascii(name)[:80]} is not usable; use 1 to {NAME_LIMIT} characters on one line")
    if any(part.strip() in ("", ".", "..") for part in name.split("/")):
        raise InputError(f"task name {name!r}: the parts between slashes have to be names, not empty, '.' or '..'")
    return name
