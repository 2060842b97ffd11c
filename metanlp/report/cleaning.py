"""What cleaning changed, by task: a table on standard output, and rows for the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metanlp.core.types import Cleaning, Task
from metanlp.report.tables import console, table
from metanlp.tasks.reading.cleaning import together

TITLE = "Cleaned, in rows by what was changed; empty ones and repeats were left out"


def cleaning_rows(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """A row a task in which something was changed: the rows that were read, and how many of each kind that occurs in
    any; the sum over all that were read last."""
    every = {task.name: task.cleaning for task in tasks if task.cleaning}
    whole = together(list(every.values()))
    kinds = [kind for kind, count in whole.counts.items() if count]
    shown = {name: each for name, each in every.items() if any(each.counts.values())}
    rows = {**shown, f"all {len(every)}": whole} if every else {}
    return [
        {"task": name, "rows": each.rows, **{kind: each.counts[kind] for kind in kinds}} for name, each in rows.items()
    ]


def cleaning_examples(tasks: Sequence[Task]) -> list[dict[str, str]]:
    """The first row of each kind of change, over all tasks. They hold texts."""
    found = dict[str, dict[str, str]]()
    for task in tasks:
        for kind, (before, after) in (task.cleaning.examples if task.cleaning else {}).items():
            found.setdefault(kind, {"change": kind, "task": task.name, "before": before, "after": after})
    return list(found.values())


def show_cleaning(tasks: Sequence[Task]) -> None:
    """The rows as a table, and the examples; nothing where nothing was to be cleaned."""
    if rows := cleaning_rows(tasks):
        console().print(table(TITLE, rows[0], [[str(value) for value in row.values()] for row in rows]))
        for each in cleaning_examples(tasks):
            became = f"became {each['after']!r}" if each["after"] else "was left out"
            console().print(f"{each['change']}, in {each['task']}: {each['before']!r} {became}")


def summary(cleaning: Cleaning | None) -> str:
    """What was done to some rows, in a line; nothing where nothing was."""
    done = [f"{kind} {count}" for kind, count in (cleaning.counts if cleaning else {}).items() if count]
    return f"cleaned, in rows of {cleaning.rows}: {', '.join(done)}" if cleaning and done else ""
