"""What --help says where a command has many options: those that most people need, and with --all every one, in groups.

tyro writes the page, an entry an option; here its entries are chosen, and put below titles.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout, suppress

OTHERS = "options"  # the group of those that stand in no other; tyro's title of all
USUAL = ("help", "json", "data", "columns", "drop-repeats", "test", "shots", "preset", "max-minutes", "method",
         "baselines", "model", "start", "out", "replace", "resume")  # fmt: skip
GROUPS: Mapping[str, Sequence[str]] = {
    "files and tasks": ("data", "validation", "test", "columns", "drop-repeats", "clean", "mix"),
    "what is trained": (
        "method",
        "baselines",
        "start",
        "model",
        "prompt",
        "max-length",
        "views",
        "rank",
        "targets",
        "layers",
    ),
    "how long": ("preset", "steps", "max-minutes", "meta-batch", "validations", "seed"),
    "rates and steps": ("lr", "decorrelate", "inner-steps", "inner-lr", "head-lr", "second-order"),
    "how it is judged": (
        "shots",
        "episodes",
        "test-rows",
        "validation-trials",
        "search-trials",
        "llm-url",
        "llm-model",
    ),
    "the machine": ("threads", "exact", "precision", "quantize", "gradient-checkpoint", "store-gb", "tasks-per-pass"),
    "what is left": ("out", "replace", "resume", "page", "overview", "log-with", "publish"),
}
WHOLE = "--all"  # beside --help


def asks_for_help(words: Sequence[str]) -> bool:
    return bool({"-h", "--help"} & {*words})


def help_page(ask: Callable[[], object], more: str = "") -> str:
    """What `ask` prints, in groups; where `more` is a command that says all, the entries that most people need."""
    with redirect_stdout(io.StringIO()) as page, suppress(SystemExit):
        ask()
    head, entries = entries_of(page.getvalue().splitlines())
    if more:
        shown = [name for name in USUAL if name in entries]
        return "\n".join([*head, *group(OTHERS, shown, entries), f"{len(entries) - len(shown)} more: {more}"])
    grouped = {name for names in GROUPS.values() for name in names}
    groups = {OTHERS: [name for name in entries if name not in grouped], **GROUPS}
    return "\n".join([*head, *(line for title, names in groups.items() for line in group(title, names, entries))])


def entries_of(page: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The lines of a page before its options, and those of each option by its name."""
    entries, begins = dict[str, list[str]](), next(n for n, line in enumerate(page) if line.strip("╭─╮ ") == OTHERS)
    for line in (line.strip("│").rstrip() for line in page[begins:]):
        if option := re.match(r" {1,2}(?:-\w, )?--(\w[\w-]*)", line):
            entries[option[1]] = [line]
        elif entries and line.strip("╰─╯- "):
            entries[[*entries][-1]].append(line)
    return list(page[:begins]), entries


def group(title: str, names: Iterable[str], entries: Mapping[str, Sequence[str]]) -> list[str]:
    """Under its title; nothing where none of its options is there."""
    lines = [line for name in names if name in entries for line in entries[name]]
    return [f"{title}:", *lines, ""] if lines else []
