"""Writes the cards of the embedded task set: `python docs/tools/task_cards.py [data_cards]`."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from pathlib import Path
from statistics import fmean

from metanlp.core.types import Task
from metanlp.forms import FORMS
from metanlp.tasks.sources.mini import Entry, index, mini_file, read_entry

LICENCE = (
    "Apache-2.0; every row was written for metanlp, one by one, by a language model that had no source at hand; "
    "no templates, nothing taken from elsewhere; the labels were read over once, by their writer"
)


def card(entry: Entry, task: Task, sha256: str) -> str:
    """The page of one task, in Markdown."""
    rows = task.pools["train"]
    counts = Counter(int(row["label"]) for row in rows)
    words = fmean(FORMS[task.form].length(row) for row in rows)
    labels = "\n".join(f"| {label} | {counts[number]} |" for number, label in enumerate(task.labels))
    return f"""# {task.name}

{entry.about}

| | |
|---|---|
| family | {entry.family} |
| role | {entry.role} |
| texts a row | {"2, `text_a` and `text_b`" if entry.pair else "1, `text`"} |
| rows | {len(rows)} |
| words a row, mean | {words:.1f} |
| metric | {task.metric} |
| licence | {LICENCE} |
| file | `metanlp/data/mini/{entry.file}` |
| sha256 | `{sha256}` |

| label | rows |
|---|---|
{labels}
"""


def overview(tasks: list[tuple[Entry, Task]]) -> str:
    """The page of the whole set, in Markdown."""
    lines = "\n".join(
        f"| [{task.name}](mini/{entry.name}.md) | {entry.role} | {entry.family} | {len(task.labels)} "
        f"| {len(task.pools['train'])} |"
        for entry, task in tasks
    )
    total = sum(len(task.pools["train"]) for _, task in tasks)
    return f"""# mini

{len(tasks)} small classification tasks in English, {total} rows, which ship inside the package, so that everything in
metanlp can be tried and tested without a network. No family of the test tasks stands among the training tasks. They
teach and demonstrate; they are no benchmark to compare published methods by.

Licence: {LICENCE}.
Known limits: English only; short rows; classes of equal size, as they hardly are in people's own data.

These pages are written by `python docs/tools/task_cards.py` and held against the files by a test.

| task | role | family | classes | rows |
|---|---|---|---|---|
{lines}
"""


def pages() -> dict[str, str]:
    """Every page by its path below `data_cards/`."""
    tasks = [(entry, read_entry(entry)) for entry in index()]
    made = {f"mini/{entry.name}.md": card(entry, task, _sha256(entry)) for entry, task in tasks}
    return {"mini.md": overview(tasks), **made}


def _sha256(entry: Entry) -> str:
    with mini_file(entry.file) as path:
        return hashlib.sha256(path.read_bytes()).hexdigest()


def write(folder: Path) -> list[Path]:
    """Writes the pages below `folder`, removes pages of tasks that are gone; returns what it wrote."""
    made = pages()
    (folder / "mini").mkdir(parents=True, exist_ok=True)
    for old in (folder / "mini").glob("*.md"):
        if f"mini/{old.name}" not in made:
            old.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in made]


if __name__ == "__main__":
    print(f"wrote {len(write(Path(sys.argv[1] if len(sys.argv) > 1 else 'data_cards')))} cards")
