"""Pairs of languages: a folder of folders, in each sentences and their translations that teach, and others that judge.

A pair has `train` and `test`, and perhaps `validation`, which teaches too: rows with `source`, `target`, `source_lang`
and `target_lang` (JSON lines, CSV or Parquet); or lines, the same number on either side, in files that end in the
language, as `train.en` and `train.de`, in a folder whose name ends in the two, source first, as `news_en_de`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from metanlp.core.errors import InputError
from metanlp.forms.base import folded
from metanlp.forms.generate import SIDES, TAGS, in_one_line, no_tag, require_side
from metanlp.tasks.reading.layout import ENDINGS, POOLS, Part, entries, task_files
from metanlp.tasks.reading.records import Record, check_regular, decoded_lines, read_records, shown


class Sentence(NamedTuple):
    """A sentence with its translation."""

    source: str
    target: str


@dataclass(frozen=True)
class LanguagePair:
    """Sentences of one language with their translations into another."""

    name: str
    source_lang: str
    target_lang: str
    taught: tuple[Sentence, ...]  # of train and validation
    judged: tuple[Sentence, ...]  # of test


def language_pairs(folder: str) -> dict[str, LanguagePair]:
    """The pairs of a folder, by the name of theirs. Raises InputError, naming file and line."""
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: is no folder; give one in which each folder is a pair of languages")
    inside = (path for path in entries(Path(folder)) if os.path.isdir(path) and path.name[0] != ".")
    found = {path.name: language_pair(path) for path in inside}
    if not found:
        raise InputError(f"{folder}: holds no folder; give each pair of languages one, such as en_de/train.jsonl")
    return found


def language_pair(folder: Path) -> LanguagePair:
    """The pair of one folder. Raises InputError."""
    files = parallel_files(folder)
    read = _lines(folder, files) if files else _rows(task_files(folder))
    tags, taught, judged = dict[tuple[str, str], str](), list[Sentence](), list[Sentence]()
    for pool, (where, cells) in read:
        row, tag = checked(where, cells)
        tags.setdefault(tag, where)
        (judged if pool == "test" else taught).append(row)
    if len(tags) > 1:
        (first, _), (other, where) = list(tags.items())[:2]
        raise InputError(
            f"{where}: is {' to '.join(other)} where the rows before are {' to '.join(first)}; give each pair a folder"
        )
    for pool, rows in (("train", taught), ("test", judged)):
        if not rows:
            raise InputError(f"{shown(folder)}: has no sentence in {pool}; a pair needs train and test")
    return LanguagePair(folder.name, *next(iter(tags)), tuple(taught), tuple(judged))


def unseen(judged: Sequence[Sentence], pairs: Iterable[LanguagePair]) -> tuple[Sentence, ...]:
    """Those of the sentences that none of the pairs teaches, on neither side."""
    seen = {folded(text) for pair in pairs for row in pair.taught for text in row}
    return tuple(row for row in judged if not {folded(row.source), folded(row.target)} & seen)


def checked(where: str, cells: Mapping[str, object]) -> tuple[Sentence, tuple[str, str]]:
    """A row and its languages. Raises InputError."""
    for name in TAGS:
        if not str(cells.get(name) or "").strip():
            raise no_tag(where, name)
    for name, other in (SIDES, SIDES[::-1]):
        require_side(where, cells.get(name), name, other)
    source, target = (in_one_line(str(cells[name])) for name in SIDES)
    return Sentence(source, target), (str(cells["source_lang"]).strip(), str(cells["target_lang"]).strip())


def parallel_files(folder: Path) -> dict[str, dict[str, Path]]:
    """The files of lines, by pool and language; {} where there are none."""
    found = dict[str, dict[str, Path]]()
    for path in entries(folder):
        tag = path.suffix.removeprefix(".")
        if path.stem in POOLS and path.suffix.lower() not in ENDINGS and re.fullmatch(r"[A-Za-z]{2,3}([_-]\w+)?", tag):
            found.setdefault(path.stem, {})[tag] = path
    return found


def _rows(files: Mapping[Part, Path]) -> Iterator[tuple[str, Record]]:
    for pool, path in files.items():
        yield from ((str(pool), record) for record in read_records(path))


def _lines(folder: Path, files: Mapping[str, Mapping[str, Path]]) -> Iterator[tuple[str, Record]]:
    """The lines of two files as rows. Raises InputError where they are not as many, or one is blank."""
    for pool, sides in files.items():
        ends = [(a, b) for a in sides for b in sides if a != b and re.search(rf"(^|[_.-]){a}[_-]{b}$", folder.name)]
        if not ends:
            raise InputError(
                f"{shown(folder)}: holds {', '.join(path.name for path in sides.values())}, but its name has no "
                "language tags of two of them; let it end in both, source first, as en_de"
            )
        source, target = ends[0]
        for number, (one, other) in enumerate(zip_longest(*map(_texts, (sides[source], sides[target]))), start=1):
            if one is None or other is None:
                counts = (f"{sides[tag].name} {sum(1 for _ in _texts(sides[tag])):,}" for tag in ends[0])
                raise InputError(f"{shown(folder)}: has lines {' and '.join(counts)}; a sentence and its translation "
                                 "need the same line in both")  # fmt: skip
            for tag, text in ((source, one), (target, other)):
                if not text.strip():
                    raise InputError(f"{shown(sides[tag])}:{number}: the line is blank; translate it, or remove it "
                                     "from both files")  # fmt: skip
            where = f"{shown(sides[source])}:{number}"
            yield pool, (where, {"source": one, "target": other, "source_lang": source, "target_lang": target})


def _texts(path: Path) -> Iterator[str]:
    check_regular(path)
    with path.open("rb") as file:
        yield from (line for _, line in decoded_lines(file, shown(path)))
