"""The commands on sets of tasks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metanlp.cli.options import Columns, Json, Printed, Repeats


@dataclass(frozen=True, kw_only=True)
class Tasks(Columns, Repeats, Json):
    """Validate and describe tasks: a file, a folder, a data set of the Hub; one alone with its labels and some rows."""

    # A file, a task's folder, a folder of tasks, or owner/name of the Hub. An index that `tasks build` made is used,
    # and its files held against it.
    source: Annotated[str, tyro.conf.Positional]
    clean: bool = False  # say what --clean of a run would change, and describe the tasks after it

    def run(self) -> Printed:
        from metanlp.report import tables
        from metanlp.report.cleaning import cleaning_rows, show_cleaning
        from metanlp.tasks.details import details
        from metanlp.tasks.index.index import check_unchanged
        from metanlp.tasks.reading.cleaning import clean_task
        from metanlp.tasks.reading.columns import parse_columns
        from metanlp.tasks.taskset import describe, notes, read

        columns = parse_columns(self.columns)
        tasks = read(self.source, data_root=None, columns=columns, drop_repeats=self.drop_repeats)
        check_unchanged(tasks)
        tasks = tuple(map(clean_task, tasks)) if self.clean else tasks
        show_cleaning(tasks)
        rows = describe(tasks)
        tables.console().print(tables.task_table(rows))
        found = details(tasks[0]) if len(tasks) == 1 else {}
        if found:
            tables.show_details(found)
        print(*notes(tasks), sep="\n", end="\n" if notes(tasks) else "")
        cleaned = {"cleaned": cleaning_rows(tasks)} if self.clean else {}
        return {"tasks": rows, "notes": notes(tasks), **({"details": found} if found else {}), **cleaned}


@dataclass(frozen=True, kw_only=True)
class BuildTasks(Columns, Repeats, Json):
    """Write an index into a folder of tasks, so that 100,000 of them open in seconds; give the same --columns later."""

    folder: Annotated[Path, tyro.conf.Positional]  # a folder of tasks; its index is .metanlp-index in it

    def run(self) -> Printed:
        from metanlp.core.progress import Progress
        from metanlp.tasks.index.build import build_index
        from metanlp.tasks.reading.columns import parse_columns

        with Progress("index") as progress:
            columns = parse_columns(self.columns)
            built = build_index(self.folder, columns, progress.show, drop_repeats=self.drop_repeats)
        print(f"{self.folder}: indexed {built.tasks} tasks, {built.rows} rows, in {built.seconds:.1f} s")
        return {"folder": str(self.folder), **asdict(built)}
