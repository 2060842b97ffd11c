"""Any data set of the Hugging Face Hub whose rows have an answer that a form knows, at a commit that is written
down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from metanlp.errors import InputError
from metanlp.tasks.build import build_task, check_name
from metanlp.tasks.columns import ANSWERS, nearest
from metanlp.tasks.guess import guess_columns
from metanlp.tasks.hub_client import HubName, fetch
from metanlp.tasks.records import Record
from metanlp.tasks.rows import labelled_rows
from metanlp.types import Task

LIMIT = 20_000  # rows of a split: more than few-shot learning draws from one task in a run
HIDDEN = -1  # what the Hub writes where a label is kept back (tests of GLUE) or was not agreed upon (SNLI)

Groups = dict[str | None, dict[str, list[Record]]]
"""Rows by group and pool; without groups there is one, None."""

Hidden = Counter[tuple[str | None, str]]
"""How many rows hide their label, by group and pool."""


def read_hub(
    repo_id: str,
    config: str | None = None,
    *,
    revision: str | None = None,
    columns: Mapping[str, str] | None = None,
    group_by: str | Mapping[str, str] | None = None,
    groups: tuple[str, ...] = (),
    limit: int | None = LIMIT,
) -> tuple[Task, ...]:
    """One task, `owner/name` or `owner/name/config`, or one a group, `…/group`; `source` says the commit that was read.

    `columns` maps our names to theirs, {"text": "body", "label": "intent"}; usual names are found without. `group_by`
    is a column, or a mapping from label words to groups, which leaves out what it does not name; `groups` chooses among
    them, () takes all. Of each split the first `limit` rows are read, None reads all. Rows whose label is -1 are left
    out and counted in `left_out`. Raises InputError, within 40 s where the Hub is silent; StorageError."""
    name, pools = fetch(HubName(repo_id, config, revision), limit)
    table = Table.of(name, pools, columns or {}, group_by)
    by_group, left_out = table.divided(pools, group_by)
    unknown = [group for group in groups if group not in by_group]
    if unknown:
        raise InputError(
            f"{name.short}: has no group {unknown[0]!r}; there are {', '.join(map(str, by_group))}"
            f"{nearest(unknown[0], map(str, by_group))}"
        )
    chosen = {group: found for group, found in by_group.items() if not groups or group in groups}
    return tuple(table.task(group, found, left_out, limit) for group, found in chosen.items())


@dataclass(frozen=True)
class Table:
    """What the columns of a data set mean."""

    name: HubName  # its revision is a commit
    columns: Mapping[str, str]  # ours -> theirs
    words: Mapping[str, tuple[str, ...]]  # columns whose type names their classes -> the words, by number

    @property
    def answer(self) -> str:
        """The column of the answer."""
        return next(self.columns[name] for name in ANSWERS.values() if name in self.columns)

    @staticmethod
    def of(name: HubName, pools: Mapping[str, Any], given: Mapping[str, str], group_by: object) -> Table:
        """Judged by the first training row."""
        first: dict[str, object] = pools["train"][0] if len(pools["train"]) else {}
        if not first:
            raise InputError(f"{name.short}: its training split has no rows; choose another data set")
        if isinstance(group_by, str) and group_by not in first:
            raise InputError(
                f"{name.short}: no column {group_by!r} to group by; found {', '.join(first)}{nearest(group_by, first)}"
            )
        kinds = {column: getattr(kind, "feature", kind) for column, kind in pools["train"].features.items()}
        words = {column: tuple(kind.names) for column, kind in kinds.items() if type(kind).__name__ == "ClassLabel"}
        away = [group_by] if isinstance(group_by, str) else []
        return Table(name, guess_columns(first, given, classes=words, not_label=away, source=name.short), words)

    def divided(self, pools: Mapping[str, Any], group_by: str | Mapping[str, str] | None) -> tuple[Groups, Hidden]:
        """The rows that a task may have, and the number of those that none may."""
        found, left_out = Groups(), Hidden()
        for pool in pools:
            for where, cells in self.records(pool, pools[pool]):
                hidden = cells.get(self.answer) == HIDDEN
                group = self._group(cells, group_by, where)
                if hidden:
                    left_out[group, pool] += 1
                elif group is not None or group_by is None:
                    found.setdefault(group, {}).setdefault(pool, []).append((where, cells))
        if not found:
            named = "" if group_by is None or isinstance(group_by, str) else " that `group_by` names"
            raise InputError(f"{self.name.short}: no row has a label{named}; choose another column, or other groups")
        return found, left_out

    def records(self, pool: str, rows: Any) -> Iterator[Record]:
        """Each row with its place, and with the words for its labels where the type of the column tells them."""
        column = self.answer
        words = self.words.get(column)
        listed: list[dict[str, object]] = rows.to_list()
        for number, cells in enumerate(listed, start=1):
            value = cells.get(column)
            if words and "label" in self.columns and isinstance(value, int) and 0 <= value < len(words):
                cells["label_text"] = words[value]
            if words and isinstance(value, list):
                cells[column] = [words[n] if isinstance(n, int) and 0 <= n < len(words) else n for n in value]
            yield f"{self.name.short}: {pool} row {number}", cells

    def _group(self, cells: Mapping[str, Any], group_by: str | Mapping[str, str] | None, where: str) -> str | None:
        if group_by is None:
            return None
        if not isinstance(group_by, str):
            return group_by.get(str(cells.get("label_text") or cells.get(self.answer)))
        value = cells.get(group_by)
        if isinstance(value, int) and group_by in self.words:
            value = self.words[group_by][value]
        if value is None or value == "":
            raise InputError(f"{where}: the group, {group_by!r}, is empty; group by another column")
        return str(value)

    def task(self, group: str | None, found: Mapping[str, list[Record]], left_out: Hidden, limit: int | None) -> Task:
        """The rows of one group, checked like a user's own."""
        parts = [self.name.repo_id, self.name.config or "", (group or "").replace("/", "-")]
        name = check_name("/".join(part for part in parts if part))
        if "train" not in found:
            raise InputError(f"{self.name.short}: task {name!r} has no training rows; leave it out, by groups=…")
        rows = {pool: labelled_rows(records, self.columns, name) for pool, records in found.items()}
        try:
            task = build_task(name, rows, source=str(self.name))
        except InputError as error:
            hint = f" (the first {limit:,} rows of a split were read; limit=None reads all)" if limit else ""
            raise InputError(f"{error}{hint}") from error
        # Where groups follow from labels, a hidden label has no group: each task then tells those of the whole set.
        counts = {pool: sum(left_out[each, pool] for each in {group, None}) for pool in ("train", "validation", "test")}
        return replace(task, left_out={pool: count for pool, count in counts.items() if count})
