"""Any data set of the Hugging Face Hub whose rows have an answer that a form knows, at a commit that is written
down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from metanlp.core.errors import InputError
from metanlp.core.hub import HubName
from metanlp.core.types import Task
from metanlp.forms import FORMS
from metanlp.forms.reading import listed
from metanlp.tasks.reading.build import build_task, check_name
from metanlp.tasks.reading.columns import guess_columns, in_file, nearest, tell_columns
from metanlp.tasks.reading.records import Record
from metanlp.tasks.reading.rows import as_text, labelled_rows
from metanlp.tasks.sources.hub_rows import fetch

LIMIT = 20_000  # rows of a split: more than few-shot learning draws from one task in a run
NO_CLASS = -1  # what a column whose type names its classes holds where there is none: kept back, or not agreed upon

Groups = dict[str | None, dict[str, list[Record]]]
"""Rows by group and pool; without groups there is one, None."""

Hidden = Counter[tuple[str | None, str]]
"""How many rows hide their label, by group and pool."""

GroupBy = str | Mapping[str, str] | None
"""A column, or a mapping from label words to groups."""


def read_hub(
    name: str | HubName,
    *,
    columns: Mapping[str, str] | None = None,
    group_by: GroupBy = None,
    groups: tuple[str, ...] = (),
    limit: int | None = LIMIT,
    hidden: float | None = None,
) -> tuple[Task, ...]:
    """The data set `owner/name:config@revision` as one task, called `owner/name` or `owner/name/config`, or as one a
    group, `…/group`; the `source` of a task names the commit that was read.

    `columns` maps our names to theirs, {"text": "body", "label": "intent"}; usual names are found without. `group_by`
    is a column, or a mapping from label words to groups, which leaves out what it does not name; `groups` chooses among
    the groups, () takes all. At most `limit` rows of each split are read, spread over its files; None reads all. Rows
    without an answer are left out and counted in `left_out`: those of no class, where the type of the column names its
    classes, and those whose answer is the number `hidden`. Raises InputError, within 40 s where the Hub is silent;
    StorageError."""
    found = HubName.parse(str(name))
    if found is None:
        raise InputError(f"{str(name)!r} is no data set of the Hub; write owner/name, or owner/name:config@revision")
    table = Table.of(*fetch(found, limit), columns or {}, group_by, hidden)
    by_group, left_out = table.divided()
    for group in groups:
        if group not in by_group:
            known = [*map(str, by_group)]
            raise InputError(f"{found.short}: has no group {group!r}; there are {listed(known)}{nearest(group, known)}")
    return tuple(table.task(group, left_out, rows) for group, rows in by_group.items() if not groups or group in groups)


@dataclass(frozen=True)
class Table:
    """A data set, and what its columns mean."""

    name: HubName  # its revision is a commit
    pools: Mapping[str, Any]  # `datasets.Dataset` by pool
    columns: Mapping[str, str]  # ours -> theirs
    words: Mapping[str, tuple[str, ...]]  # columns whose type names their classes -> the words, by number
    answer: str  # the column of the answer
    hidden: float | None  # what stands for an answer that is kept back
    group_by: GroupBy

    @staticmethod
    def of(
        name: HubName, pools: Mapping[str, Any], given: Mapping[str, str], group_by: GroupBy, hidden: float | None
    ) -> Table:
        """Judged by the first training row. Raises InputError."""
        first: dict[str, object] = pools["train"][0] if len(pools["train"]) else {}
        if not first:
            raise InputError(f"{name.short}: its training split has no rows; choose another data set")
        away = [group_by] if isinstance(group_by, str) else []
        for column in away:
            if column not in first:
                raise InputError(
                    f"{name.short}: no column {column!r} to group by; found {', '.join(first)}{nearest(column, first)}"
                )
        kinds = {column: getattr(kind, "feature", kind) for column, kind in pools["train"].features.items()}
        words = {column: tuple(kind.names) for column, kind in kinds.items() if type(kind).__name__ == "ClassLabel"}
        given = in_file(given, first, name.short)
        columns = guess_columns(first, given, classes=words, not_label=away, source=name.short)
        answer = next(columns[ours] for ours in tell_columns() if ours in columns)
        hidden = NO_CLASS if hidden is None and answer in words else hidden
        return Table(name, pools, columns, words, answer, hidden, group_by)

    def divided(self) -> tuple[Groups, Hidden]:
        """The rows that a task may have, and the number of those that none may. Raises InputError."""
        found, left_out = Groups(), Hidden()
        for pool, rows in self.pools.items():
            listed: list[dict[str, Any]] = rows.to_list()
            for number, cells in enumerate(listed, start=1):
                record = f"{self.name.short}: {pool} row {number}", self._in_words(cells)
                group = self._group(record)
                if self.hidden is not None and cells.get(self.answer) == self.hidden:
                    left_out[group, pool] += 1
                elif group is not None or self.group_by is None:
                    found.setdefault(group, {}).setdefault(pool, []).append(record)
        if not found:
            named = " that `group_by` names" if isinstance(self.group_by, Mapping) else ""
            raise InputError(f"{self.name.short}: no row has a label{named}; choose another column, or other groups")
        return found, left_out

    def _in_words(self, cells: dict[str, Any]) -> dict[str, Any]:
        """The row with the words for its labels, where the type of the column tells them."""
        words, value = dict(enumerate(self.words.get(self.answer, ()))), cells.get(self.answer)
        if words and isinstance(value, list):
            return {**cells, self.answer: [words.get(label, label) for label in value]}
        if "label" in self.columns and isinstance(value, int) and value in words:
            return {**cells, "label_text": words[value]}
        return cells

    def _group(self, record: Record) -> str | None:
        """The group of a row; None where it has none. Raises InputError where its cell is empty."""
        (where, cells), by = record, self.group_by
        if by is None:
            return None
        if not isinstance(by, str):
            return by.get(str(cells.get("label_text") or cells.get(self.answer)))
        value: Any = cells.get(by)
        if by in self.words:
            value = self.words[by][value] if value not in (None, NO_CLASS) else None
        if value is None or value == "":
            raise InputError(f"{where}: the group, {by!r}, is empty; group by another column")
        return as_text(value, f"{where}: {by!r}")

    def task(self, group: str | None, left_out: Hidden, found: Mapping[str, list[Record]]) -> Task:
        """The rows of one group, checked like a user's own. Raises InputError."""
        parts = [self.name.repo_id, self.name.config or "", (group or "").replace("/", "-")]
        name = check_name("/".join(part for part in parts if part))
        if "train" not in found:
            raise InputError(f"{self.name.short}: task {name!r} has no training rows; leave it out, by groups=…")
        sampled = {pool: rows.info.description for pool, rows in self.pools.items() if rows.info.description}
        notes = [
            f"only {len(found[pool]):,} rows of {pool!r} were read, {how}; `limit=None` of read_hub reads all"
            for pool, how in sampled.items()
            if pool in found
        ]
        rows = {pool: labelled_rows(records, self.columns, name) for pool, records in found.items()}
        try:
            task = build_task(name, rows, source=str(self.name))
        except InputError as error:
            raise InputError(" ".join([str(error), *(f"({note})" for note in notes)])) from error
        absent = [] if group else [word for word in self.words.get(self.answer, ()) if word not in task.labels]
        if sampled and absent and FORMS[task.form].single_label:
            notes.append(f"no row that was read is of the classes {listed(absent)}")
        # Where groups follow from labels, a hidden label has no group: each task then tells those of the whole set.
        counts = {pool: sum(left_out[each, pool] for each in {group, None}) for pool in self.pools}
        kept_back = {pool: count for pool, count in counts.items() if count}
        return replace(task, left_out=kept_back, notes=(*notes, *task.notes))
