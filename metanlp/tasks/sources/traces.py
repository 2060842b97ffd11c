"""Students and their answers in order, from files as people have them: a row a student, or a row an answer.

A folder with `train` and, if there is one, `test`; or one file, of whose students a share judges. `skills.json` beside
them may name the skills. Every error names file and line.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from metanlp.core.errors import InputError
from metanlp.forms import TRACE
from metanlp.forms.reading import Cells
from metanlp.tasks.reading.columns import parse_pairs
from metanlp.tasks.reading.layout import task_files
from metanlp.tasks.reading.records import check_regular, decoded, parse_json, read_records, shown

NAMES = "skills.json"
OFTEN = 20  # one skill after another, before it is said that they are of one question


@dataclass(frozen=True)
class Student:
    """Answers in the order in which they were given."""

    name: str
    skills: np.ndarray  # (n,) number of the skill of each
    right: np.ndarray  # (n,) bool

    def __len__(self) -> int:
        return len(self.right)

    def first(self, most: int) -> Student:
        """The first answers alone."""
        return Student(self.name, self.skills[:most], self.right[:most])


@dataclass(frozen=True)
class Traces:
    """Students who teach and students who judge, and the names of the skills by number."""

    skills: tuple[str, ...]
    teach: tuple[Student, ...]
    judge: tuple[Student, ...]

    @property
    def new_skills(self) -> tuple[str, ...]:
        """Skills that judging students were asked and no teaching student was."""
        known, asked = (
            {int(skill) for student in side for skill in student.skills} for side in (self.teach, self.judge)
        )
        return tuple(self.skills[number] for number in sorted(asked - known))


def doubled(students: Sequence[Student]) -> set[tuple[int, int]]:
    """Skills that look like two of one question, which then stands twice: the second follows the first at least `OFTEN`
    times, and with the same answer, right or wrong, but for one time in fifty."""
    pairs: dict[tuple[int, int], list[int]] = {}
    for student in students:
        same = student.right[1:] == student.right[:-1]
        for before, skill, agrees in zip(student.skills.tolist(), student.skills[1:].tolist(), same, strict=False):
            if before != skill:
                found = pairs.setdefault((before, skill), [0, 0])
                found[0], found[1] = found[0] + 1, found[1] + bool(agrees)
    return {pair for pair, (count, agreed) in pairs.items() if count >= OFTEN and agreed >= 0.98 * count}


def once(student: Student, pairs: Container[tuple[int, int]]) -> Student:
    """Without answers on the second skill of such a pair right after the first."""
    follows = zip(student.skills.tolist(), student.skills[1:].tolist(), strict=False)
    kept = np.array([True, *(pair not in pairs for pair in follows)])[: len(student)]
    return Student(student.name, student.skills[kept], student.right[kept])


def read_traces(source: str | Path, columns: str = "", judged: str | Path | None = None, share: float = 0.25) -> Traces:
    """The students of a file or folder. Those who judge are in `judged`, or in the folder's `test` file; without either
    they are a `share` of all, by their names. `columns` maps our names to the file's: student=user_id,correct=score.
    Raises InputError."""
    source, renamed = Path(source), parse_pairs(columns, TRACE.columns)
    files = task_files(source)
    if "train" not in files:
        raise InputError(
            f"{shown(source)}: has no file of students who teach; give a file, or a folder with train.jsonl"
        )
    home = source if os.path.isdir(source) else source.parent
    named = skill_names(home / NAMES)
    numbers = {key: number for number, key in enumerate(named or ())}
    sides = [_students([files["train"]], renamed, numbers, named)]
    others = Path(judged) if judged else files.get("test")
    if others:
        sides.append(_students([others], renamed, numbers, named))
        check_apart(*sides, where=shown(others))
    else:
        sides = _dealt(sides[0], share, shown(source))
    words = tuple((named or {}).get(key, key) for key in numbers)
    return Traces(words, *map(tuple, sides))


def skill_names(path: Path) -> dict[str, str] | None:
    """The names of skills by their key, where there is such a file. Raises InputError."""
    if not path.is_file():
        return None
    check_regular(path)
    found = parse_json(decoded(path.read_bytes(), shown(path)), shown(path), whole=True)
    if not isinstance(found, dict) or not all(isinstance(name, str) and name.strip() for name in found.values()):
        raise InputError(f'{shown(path)}: is no object of names, {{"17": "Scatter Plot"}}; write each skill\'s name')
    return {key: " ".join(name.strip('" ').split()) for key, name in found.items()}


def check_apart(teach: Sequence[Student], judge: Sequence[Student], where: str) -> None:
    """Raises InputError where an answer of a student who judges, known by student and position, also teaches."""
    taught = {TRACE.key(student.name, at) for student in teach for at in range(len(student))}
    for student in judge:
        if any(TRACE.key(student.name, at) in taught for at in range(len(student))):
            raise InputError(
                f"{where}: student {student.name!r} also teaches, and would be judged by answers that are known; "
                "keep each student on one side"
            )


def _students(
    files: Iterable[Path], renamed: Mapping[str, str], numbers: dict[str, int], named: Mapping[str, str] | None
) -> list[Student]:
    """The students of files, in the order in which they come; `numbers` grows by skills that are new. Raises
    InputError."""
    answers: dict[str, list[tuple[int, bool]]] = {}
    last, whole, free = dict[str, Any](), set[str](), count(len(numbers))
    columns = {name: renamed.get(name, name) for name in TRACE.columns}
    for path in files:
        for where, values in read_records(path):
            _check_columns(where, values, columns)
            student, found = TRACE.read(Cells(where, values, columns))
            if student in whole or (len(found) != 1 and student in answers):
                raise InputError(
                    f"{where}: student {student!r} stands in two rows of answers; join them in their order"
                )
            if columns["skills"] in values:
                whole.add(student)
            for skill, right, time in found:
                if named is not None and skill not in named:
                    raise InputError(f"{where}: skill {skill!r} has no name in {NAMES}; add it there")
                if skill not in numbers:
                    numbers[skill] = next(free)
                _check_order(where, student, last.get(student), time)
                last[student] = time
                answers.setdefault(student, []).append((numbers[skill], right))
    if not answers:
        raise InputError(f"{', '.join(map(shown, files))}: holds no answers; give rows of student, skill and correct")
    return [
        Student(name, np.array([skill for skill, _ in each]), np.array([right for _, right in each]))
        for name, each in answers.items()
    ]


def _check_columns(where: str, values: Mapping[str, object], columns: Mapping[str, str]) -> None:
    """Raises InputError where a column is missing."""
    wanted = [columns["student"], columns["correct"]]
    wanted += [] if {columns["skill"], columns["skills"]} & values.keys() else [columns["skill"]]
    for name in wanted:
        if name not in values:
            raise InputError(
                f"{where}: has no column {name!r} but {', '.join(values)}; name yours: "
                "--columns student=user_id,skill=topic,correct=score"
            )


def _check_order(where: str, student: str, before: Any, now: Any) -> None:
    """Raises InputError where an answer is older than the one before it."""
    if now is None or before is None:
        return
    if type(before) is not type(now):
        raise InputError(f"{where}: 'time' is {now!r} after {before!r}; write all times alike")
    if now < before:
        raise InputError(
            f"{where}: student {student!r} answered at {now} after {before}: the answers are not in their order; sort "
            "each student's rows by time"
        )


def _dealt(students: Sequence[Student], share: float, where: str) -> list[list[Student]]:
    """Students who teach, and a share who judge: which, their names alone decide. Raises InputError."""
    if not 0 < share < 1:
        raise InputError(f"--held-out {share:g} is a share of the students, above 0 and below 1")
    marks = {s.name: int.from_bytes(hashlib.blake2b(s.name.encode(), digest_size=4).digest(), "big") for s in students}
    order = sorted(students, key=lambda student: marks[student.name])
    judges = {student.name for student in order[: round(share * len(students))]}
    sides = [[s for s in students if (s.name in judges) is side] for side in (False, True)]
    if not all(sides):
        raise InputError(f"{where}: {len(students)} students can't both teach and judge; give more, or a test file")
    return sides
