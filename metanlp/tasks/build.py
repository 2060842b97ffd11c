"""From checked rows to a Task: the order of the labels, and one task's pools held against each other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from metanlp.errors import InputError
from metanlp.forms import FORMS
from metanlp.tasks.columns import ANSWERS, nearest
from metanlp.tasks.records import is_plain
from metanlp.tasks.rows import LabelledRow, labelled_rows
from metanlp.types import Row, Task

NAME_LIMIT = 200  # characters: names become parts of file names and table cells

Rows = Sequence[LabelledRow]


def task_from_rows(
    name: str, rows: Iterable[Row], *, columns: Mapping[str, str] | None = None, source: str = "python"
) -> Task:
    """A task from rows in memory, {"text": …, "label": word or integer}, checked like a file; errors number the row.
    `columns` maps our names to the rows': {"text": "body"}."""
    records = ((f"{name}: row {number}", dict(row)) for number, row in enumerate(rows, start=1))
    return build_task(check_name(name), {"train": labelled_rows(records, columns, name)}, source=source)


def build_task(
    name: str, pools: Mapping[str, Rows], *, source: str, supports: Mapping[int, Sequence[Rows]] | None = None
) -> Task:
    """One task from checked rows; "train" says which labels there are. Raises InputError where pools disagree."""
    everything = [row for rows in pools.values() for row in rows]
    _same_texts(everything)
    form = everything[0].form
    labels, scale, answer = MEANINGS[form](pools, name)

    def finished(rows: Rows) -> tuple[Row, ...]:
        return tuple({**row.texts, **answer(row)} for row in rows)

    return Task(
        name=name,
        pools={pool: finished(rows) for pool, rows in pools.items()},
        labels=labels,
        source=source,
        form=form,
        scale=scale,
        metric=FORMS[form].metric,
        supports={shots: tuple(map(finished, sets)) for shots, sets in (supports or {}).items()},
    )


Meaning = tuple[tuple[str, ...], tuple[float, float], Callable[[LabelledRow], Row]]
"""The labels of a task, its scale, and how the answer of a row stands in it."""


def _classes(pools: Mapping[str, Rows], name: str) -> Meaning:
    words = label_words([row for rows in pools.values() for row in rows])
    _known_labels(pools, name)
    index = {label: number for number, label in enumerate(words)}
    return tuple(words.values()), (0.0, 1.0), lambda row: {"label": index[row.label]}


def _scores(pools: Mapping[str, Rows], name: str) -> Meaning:
    taught = [row.label for row in pools["train"]]
    low, high = min(taught), max(taught)
    if low == high:
        where = pools["train"][0].where
        raise InputError(
            f"{where}: task {name!r} has only the score {low:g} to train on; give rows of different scores"
        )
    return (), (low, high), lambda row: {"score": row.label}


def _choices(pools: Mapping[str, Rows], name: str) -> Meaning:
    return (), (0.0, 1.0), lambda row: {"answer": row.label}


def _label_sets(pools: Mapping[str, Rows], name: str) -> Meaning:
    index = _numbered({row.where: row.label for row in pools["train"]}, [], name)
    _known_words(pools, lambda row: row.label, index)
    return tuple(index), (0.0, 1.0), lambda row: {"labels": tuple(sorted(index[word] for word in row.label))}


def _spans(pools: Mapping[str, Rows], name: str) -> Meaning:
    words = {row.where: [word for *_, word in row.label] for row in pools["train"]}
    index = _numbered(words, ["O"], name)
    _known_words(pools, lambda row: [word for *_, word in row.label], index)
    return tuple(index), (0.0, 1.0), lambda row: {"spans": tuple((a, b, index[word]) for a, b, word in row.label)}


MEANINGS = {"classify": _classes, "regress": _scores, "choose": _choices, "multilabel": _label_sets, "tag": _spans}


def _numbered(words: Mapping[str, Iterable[str]], first: Sequence[str], name: str) -> dict[str, int]:
    """Words in their order, after those that come first. Raises InputError where no row has any."""
    found = sorted({word for each in words.values() for word in each})
    if not found:
        raise InputError(f"{next(iter(words))}: no row of task {name!r} has a label to train on; give rows with some")
    return {word: number for number, word in enumerate([*first, *found])}


def _known_words(
    pools: Mapping[str, Rows], words: Callable[[LabelledRow], Iterable[str]], known: Collection[str]
) -> None:
    for pool, rows in pools.items():
        for row in rows:
            for word in words(row):
                if word not in known:
                    raise InputError(
                        f"{row.where}: label {word!r} of {pool!r} is not among the training rows; add or drop it"
                    )


def label_words(rows: Rows) -> dict[str | int, str]:
    """Label as written -> its word, in index order: integers ascending, strings sorted. Raises InputError."""
    first, written = rows[0], dict[str | int, LabelledRow]()
    for row in rows:
        if type(row.label) is not type(first.label):
            raise InputError(
                f"{row.where}: the label is {row.label!r}, but {first.where} has {first.label!r}; "
                "write all labels of a task as words, or all as integers"
            )
        known = written.get(row.label)
        if known is None or known.word is None:
            written[row.label] = row
        elif row.word is not None and row.word != known.word:
            raise InputError(
                f"{row.where}: label {row.label!r} is called {row.word!r}, but {known.where} calls it {known.word!r}; "
                "give each label one label_text"
            )
    return _distinct({label: written[label].word or str(label) for label in sorted(written)}, written)  # pyright: ignore[reportArgumentType]


def _distinct(words: dict[str | int, str], written: Mapping[str | int, LabelledRow]) -> dict[str | int, str]:
    owners: dict[str, str | int] = {}
    for label, word in words.items():
        other = owners.setdefault(word, label)
        if other != label:
            raise InputError(
                f"{written[label].where}: labels {other!r} and {label!r} are both called {word!r}; rename one"
            )
    return words


def _same_texts(rows: Rows) -> None:
    first = rows[0]
    for row in rows:
        if row.form != first.form:
            raise InputError(f"{row.where}: has {ANSWERS[row.form]!r}, but {first.where} has {ANSWERS[first.form]!r}; "
                             "a task has one kind of answer")  # fmt: skip
        if row.texts.keys() != first.texts.keys():
            had, has = " and ".join(first.texts), " and ".join(row.texts)
            raise InputError(f"{row.where}: has {has}, but {first.where} has {had}; a task has one kind of row")


def _known_labels(pools: Mapping[str, Rows], name: str) -> None:
    taught = {row.label for row in pools["train"]}
    if len(taught) < 2:
        where = pools["train"][0].where
        only = next(iter(taught))
        raise InputError(
            f"{where}: task {name!r} has only the class {only!r} to train on; give rows of two classes or more"
        )
    for pool, rows in pools.items():
        for row in rows:
            if row.label not in taught:
                raise InputError(
                    f"{row.where}: label {row.label!r} of {pool!r} is not among the training rows; add or drop it"
                )


def check_apart(pools: Mapping[str, Rows]) -> None:
    """Raises InputError for a row that is judged by and also taught from, naming both places."""
    others, key = [pool for pool in pools if pool != "train"], FORMS[pools["train"][0].form].key
    taught = {key(row.texts): row.where for row in pools["train"]} if others else {}
    for pool in others:
        if shared := [row for row in pools[pool] if key(row.texts) in taught]:
            other, more = taught[key(shared[0].texts)], f", as {len(shared) - 1} more do" if len(shared) > 1 else ""
            raise InputError(
                f"{shared[0].where}: this row of {pool!r} stands also in 'train', {other}{more}; remove one of the two"
            )


def with_labels(task: Task, labels: Sequence[str]) -> Task:
    """The same rows with `labels` as the order; words match with `_` for a space, digits by position.

    Raises InputError for a label of the task that is not in `labels`."""
    places = {_spelling(label): number for number, label in enumerate(labels)}
    if all(word.isdecimal() for word in task.labels):
        places = {str(number): number for number in range(len(labels))}
    for word in task.labels:
        if _spelling(word) not in places:
            raise InputError(
                f"task {task.name!r} has the label {word!r}; it may have: {', '.join(labels)}{nearest(word, labels)}"
            )
    moved = [places[_spelling(word)] for word in task.labels]

    def renumbered(rows: Sequence[Row]) -> tuple[Row, ...]:
        return tuple({**row, "label": moved[row["label"]]} for row in rows)

    return replace(
        task,
        labels=tuple(labels),
        pools={pool: renumbered(rows) for pool, rows in task.pools.items()},
        supports={shots: tuple(map(renumbered, sets)) for shots, sets in task.supports.items()},
    )


def _spelling(label: str) -> str:
    return label.replace("_", " ").casefold()


def check_name(name: str) -> str:
    """`name`, fit for a task: on one line, no part between slashes that leads out of a folder. Raises InputError."""
    if not name.strip() or not is_plain(name) or len(name) > NAME_LIMIT:
        raise InputError(f"task name {ascii(name)[:80]} is not usable; use 1 to {NAME_LIMIT} characters on one line")
    if any(part.strip() in ("", ".", "..") for part in name.split("/")):
        raise InputError(f"task name {name!r}: the parts between slashes have to be names, not empty, '.' or '..'")
    return name
