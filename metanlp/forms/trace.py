"""One unit is an answer of a student to a question on a named skill: was it right?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from metanlp.core.errors import InputError
from metanlp.forms.base import Objective
from metanlp.forms.reading import MISSING, Cells, came

if TYPE_CHECKING:
    from metanlp.forms.heads.prior import PriorHead

WRONG_OR_RIGHT: dict[int | float | str, bool] = {0: False, "0": False, "0.0": False, 1: True, "1": True, "1.0": True}
# In Python false is 0, as 0.0 is.


class Trace(Objective):
    """Knowledge tracing: cross-entropy of wrong and right, a mean over the answers of each student.

    No `Form`: a student's answers have an order, so that the support is always the first ones and never a draw, and
    what a model reads of an answer (the skill, and how the answers before it went) is no text. A record is an answer
    (`student`, `skill`, `correct`) or a whole student (`student`, `skills`, `correct`, lists of one length); `time`
    tells the order where it is given."""

    name = "trace"
    prefix = "trace/"
    by_class = False
    columns = ("student", "skill", "skills", "correct", "time")

    def make_head(self) -> PriorHead:
        from metanlp.forms.heads.prior import PriorHead

        return PriorHead()

    def key(self, student: str, position: int) -> tuple[str, int]:
        """The identity of an answer for the leakage check."""
        return student, position

    def read(self, cells: Cells) -> tuple[str, list[tuple[str, bool, Any]]]:
        """The student of a record, and skill, right or wrong and time (None where there is none) of each of its
        answers. Raises InputError."""
        where = cells.where
        student = word(cells["student"], f"{where}: 'student'")
        many = cells["skills"] is not MISSING
        skills, answers, times = (cells[name] for name in ("skills" if many else "skill", "correct", "time"))
        if not many:
            skills, answers, times = [skills], [answers], [times]
        elif not isinstance(skills, list) or not isinstance(answers, list):
            raise InputError(f"{where}: 'skills' and 'correct' are {came(skills)} and {came(answers)}; write two lists")
        if times is MISSING:
            times = [MISSING] * len(skills)
        if not isinstance(times, list) or not len(skills) == len(answers) == len(times):
            counts = f"{len(skills)} skills and {len(answers)} answers"
            raise InputError(
                f"{where}: student {student!r} has {counts}; each answer needs its skill, and its time or none"
            )
        return student, [
            (word(skill, f"{where}: the skill"), right(answer, where), None if time is MISSING else moment(time, where))
            for skill, answer, time in zip(skills, answers, times, strict=True)
        ]


def word(value: object, what: str) -> str:
    """A name, or a number that is one. Raises InputError."""
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise InputError(f"{what} is {came(value)}; write a name or an integer")
    return str(value).strip()


def right(value: object, where: str) -> bool:
    """Raises InputError for anything but right or wrong."""
    if not isinstance(value, int | float | str) or value not in WRONG_OR_RIGHT:
        raise InputError(f"{where}: 'correct' is {came(value)}; write 1 for right and 0 for wrong")
    return WRONG_OR_RIGHT[value]


def moment(value: object, where: str) -> float | str:
    """A time that can be compared: a number, or a text such as 2026-11-29T08:30. Raises InputError."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or value == "":
        raise InputError(f"{where}: 'time' is {came(value)}; write a number, or a date as 2026-11-29T08:30")
    try:
        return float(value)
    except ValueError:
        return str(value)
