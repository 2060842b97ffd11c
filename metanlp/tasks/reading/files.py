"""From files and folders to tasks, and from files and streams to rows without answers."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import IO, cast

from metanlp.core.errors import InputError
from metanlp.core.types import Row, Task
from metanlp.forms.reading import TEXTS, LabelledRow
from metanlp.tasks.reading.build import build_task, check_apart, check_name, without_repeats
from metanlp.tasks.reading.columns import ColumnsError, in_file
from metanlp.tasks.reading.layout import ENDINGS, UNREAD, check_whole, task_files, task_paths
from metanlp.tasks.reading.records import BY_LINE, HINT, OF_TEXT, READERS, decoded_lines, mark_of, read_records, shown
from metanlp.tasks.reading.rows import labelled_rows, read_rows, unlabelled_rows
from metanlp.tasks.reading.suggestion import LOOKED_AT, option_of, together

# Our names of the texts, and those of LEOPARD's files: what the first row of a file with support sets has, counts.
SPELLINGS = ({"text_a": "text_a", "text_b": "text_b"}, {"text_a": "sentence1", "text_b": "sentence2"},
             {"text": "text"}, {"text": "sentence"}, {"text": "sentence1"})  # fmt: skip
MOST_FILES = 200  # of a folder that are looked at, so as to name the columns of all


def read_task(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    name: str | None = None,
    published: bool = False,
    drop_repeats: bool = False,
) -> Task:
    """One task from a file (all rows are "train"), or from a folder of splits or of fixed support sets. With support
    sets, "train" is their union without repeats, and columns may have the names that LEOPARD gives them.

    `columns` maps our names to the file's: {"text": "sentence", "label": "class"}. The name is the file's or the
    folder's where none is given. Splits may share rows only where others `published` them so; with `drop_repeats`
    rows of the other splits that stand in "train" are left out, and a note counts them. Raises InputError."""
    path = Path(path)
    name = check_name(name or (path.resolve().name if os.path.isdir(path) else path.stem))
    files = task_files(path)
    fixed = any(isinstance(part, tuple) for part in files)
    if os.path.isdir(path) and not (fixed or published):
        check_whole(path, files)
    if not fixed and "train" not in files:
        allowed = ", ".join(f"train{ending}" for ending in ENDINGS)
        raise InputError(f"{shown(path)}: has no training rows and has no support sets; add one of {allowed}")
    pools, supports = dict[str, Sequence[LabelledRow]](), dict[int, list[list[LabelledRow]]]()
    for part, file in files.items():
        rows = read_rows(file, columns or (_spelling(file) if fixed else None))
        if isinstance(part, str):
            pools[part] = rows
        else:
            supports.setdefault(part[0], []).append(rows)
    if fixed:
        pools = {"train": _union(chain.from_iterable(supports.values())), **pools}
    said, apart = list[str](), not (published or fixed)
    if apart and drop_repeats:
        pools, said = without_repeats(pools)
    # The bare name, as a source is published with the model and a full path would tell of the machine.
    task = build_task(name, pools, source=path.resolve().name, supports=supports)
    if apart:
        check_apart(pools)
    return replace(task, notes=(*said, *task.notes))


def _union(sets: Iterable[list[LabelledRow]]) -> list[LabelledRow]:
    """The rows of all sets; of those with the same identity the first."""
    first = dict[int, LabelledRow]()
    for row in chain.from_iterable(sets):
        first.setdefault(row.key, row)
    return [*first.values()]


def read_tasks(
    folder: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    name: str | None = None,
    drop_repeats: bool = False,
) -> tuple[Task, ...]:
    """The tasks of a file or folder, sorted by path: names are paths below `folder`, after `name/` where it is given.

    Nothing that looks like a task is passed over. Raises InputError."""
    folder = Path(folder)
    if task_files(folder):
        return (read_task(folder, columns=columns, name=name, drop_repeats=drop_repeats),)
    paths = task_paths(folder, name)
    with naming_all(folder, paths.values(), columns):
        return tuple(
            read_task(path, columns=columns, name=full, drop_repeats=drop_repeats) for full, path in paths.items()
        )


@contextmanager
def naming_all(folder: Path, paths: Iterable[Path], columns: Mapping[str, str] | None) -> Generator[None]:
    """Inside, where a file lacks one of our columns, the line ends in one option for the tasks at all `paths`, as far
    as that is clear. Raises InputError."""
    try:
        yield
    except ColumnsError as error:
        files = list(chain.from_iterable(task_files(path).values() for path in paths))
        if not 2 <= len(files) <= MOST_FILES or not (whole := _called(files, columns)):
            raise
        option = f"of all files in {shown(folder)} did you mean --columns {option_of(whole)}?"
        raise InputError(f"{error.fact}; {option}") from error


def _called(files: Iterable[Path], columns: Mapping[str, str] | None) -> dict[str, str] | None:
    """One option for all files, from the first rows of each; None where that is not clear for one of them."""
    found = list[Mapping[str, str]]()
    for file in files:
        records = [*islice(read_records(file), LOOKED_AT)]
        try:
            labelled_rows(records, columns, shown(file), file.suffix.lower() in OF_TEXT)
            found.append(in_file(columns, records[0][1], shown(file)))
        except ColumnsError as error:
            if error.columns is None:
                return None
            found.append(error.columns)
        except InputError:  # of its rows, which is said once the columns are known
            found.append(in_file(columns, records[0][1] if records else (), shown(file)))
    return together(found)


def read_texts(
    source: str | Path | IO[str] | IO[bytes],
    *,
    columns: Mapping[str, str] | None = None,
    ending: str | None = None,
    labels: Collection[str] | None = None,
    form: str = "classify",
) -> list[Row]:
    """Rows without answers, to predict: {"text": …} or {"text_a": …, "text_b": …}, or as the `form` has them; other
    columns are passed over.

    The arguments are those of `read_asked`."""
    return [row for row, _ in read_asked(source, columns=columns, ending=ending, labels=labels, form=form)]


def read_asked(
    source: str | Path | IO[str] | IO[bytes],
    *,
    columns: Mapping[str, str] | None = None,
    ending: str | None = None,
    labels: Collection[str] | None = None,
    form: str = "classify",
) -> list[tuple[Row, dict[str, object]]]:
    """The same with the cells of each row that stand in other columns.

    A path is read by its ending, a key of READERS, anything else as one text a line. A stream is read as `ending` says
    (".jsonl", ".csv"), else as one text a line; lines have no `columns`. Blank lines may stand at the end alone. Where
    the rows have a label, it has to be one of `labels`, those that the model knows. Raises InputError."""
    if isinstance(source, str | Path):
        path = Path(source)
        ending = ending_of(path, ending)
        records, name = read_records(path, ending), shown(path)
    else:
        name, ending = "input", ending or ".txt"
        records = BY_LINE[ending](decoded_lines(_binary(source), name))
    return unlabelled_rows(records, columns if ending != ".txt" else None, name, labels, form, ending in OF_TEXT)


def ending_of(path: Path, ending: str | None = None) -> str:
    """The key of READERS by which a file of texts is read: `ending`, its own, or that of one text a line. Raises
    InputError for files that other programs know and these readers don't."""
    ending = ending or path.suffix.lower()
    if ending in UNREAD:
        raise InputError(f"{shown(path)}: files ending in {ending!r} are not read; use {', '.join(READERS)}")
    return ending if ending in READERS else ".txt"


def check_lines(stream: IO[bytes], columns: Mapping[str, str] | None) -> str:
    """The ending of one text a line, where a stream that may be looked into does not begin like something else. Raises
    InputError."""
    head = getattr(stream, "peek", bytes)(1).decode("utf-8", errors="replace").lstrip("\ufeff")
    line = (head.splitlines() or [""])[0]
    cells = {cell.strip().strip('"').casefold() for cell in line.split(mark_of(line))}
    known = {name.casefold() for name in (*TEXTS, *(columns or {}).values())}
    table = HINT.fullmatch(line) or (len(cells) > 1 and cells & known)
    looks = "jsonl" if re.match(r'\s*\{\s*"', line) else "csv" if table else ""
    if looks:
        said = {"jsonl": "JSON lines", "csv": "a table with a header"}[looks]
        raise InputError(f"standard input begins like {said}; say --stdin {looks}, or --stdin txt for lines of text")
    return ".txt"


def _spelling(file: Path) -> Mapping[str, str] | None:
    """The first of `SPELLINGS` whose columns the first row has."""
    _, cells = next(read_records(file), ("", dict[str, object]()))
    return next((spelling for spelling in SPELLINGS if {*spelling.values()} <= cells.keys()), None)


def _binary(stream: IO[str] | IO[bytes]) -> IO[bytes]:
    """The bytes beneath a text stream, so that its own idea of encoding does not come between."""
    if not isinstance(stream, io.TextIOBase):
        return cast("IO[bytes]", stream)
    beneath: IO[bytes] | None = getattr(stream, "buffer", None)
    return beneath or io.BytesIO(cast("IO[str]", stream).read().encode("utf-8", "surrogatepass"))
