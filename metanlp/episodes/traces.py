"""Students as tasks: the first k answers of one are the support, the following ones the query.

Letters: N answers, F numbers about what came before each, T students.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import torch

from metanlp.core.errors import InputError
from metanlp.core.settings import to_json
from metanlp.core.types import Batch, Episode, Pass, Trunk
from metanlp.episodes.sampling import episode_rng
from metanlp.episodes.stream import Stream
from metanlp.forms import TRACE
from metanlp.tasks.sources.traces import Student

SCALE = np.log(200)  # so that the logarithms of counts are at most about 1
DECAY = 0.7  # how much of an answer's weight is left with each one after it
BEFORE = 8  # F


@dataclass(frozen=True)
class History:
    """What came before each answer of a student."""

    student: Student
    counts: np.ndarray  # (n, 4) right and wrong answers before this one: on its skill, on all skills
    recent: np.ndarray  # (n, 4) right or wrong (±1, 0 for none) of the last answer on the skill and on any; the same
    # with all earlier ones, each weighing `DECAY` times the one after it

    @cached_property
    def inputs(self) -> np.ndarray:
        """(n, F), about from −1 to 1."""
        return np.concatenate([np.log1p(self.counts) / SCALE, self.recent], 1).astype(np.float32)

    @staticmethod
    def of(student: Student) -> History:
        counts, recent = np.zeros((len(student), 4)), np.zeros((len(student), 4))
        by_skill: dict[int, np.ndarray] = {}
        total = np.zeros(4)  # right, wrong, last, decayed
        for at, (skill, right) in enumerate(zip(student.skills.tolist(), student.right.tolist(), strict=True)):
            own = by_skill.setdefault(skill, np.zeros(4))
            counts[at], recent[at] = [*own[:2], *total[:2]], [own[2], total[2], own[3], total[3]]
            for each in (own, total):
                sign = 1.0 if right else -1.0
                each[:] = each[0] + right, each[1] + (not right), sign, DECAY * each[3] + (1 - DECAY) * sign
        return History(student, counts, recent)


def packed(parts: Sequence[tuple[History, slice]]) -> Batch:
    """Answers of several students in one pass. A unit is an answer: its id is its skill, and what came before it takes
    the place of the outputs of a frozen model, as no weight changes them."""
    sizes = [len(history.student.right[part]) for history, part in parts]
    total = sum(sizes)
    numbers, one = torch.arange(total), torch.ones(total, dtype=torch.long)
    skills, right, places = (
        np.concatenate([pick(history)[part] for history, part in parts])
        for pick in (lambda h: h.student.skills, lambda h: h.student.right, lambda h: np.arange(len(h.student)))
    )
    inputs = torch.from_numpy(np.concatenate([history.inputs[part] for history, part in parts]))
    return Batch(
        ids=torch.from_numpy(skills.astype(np.int64)),
        positions=torch.from_numpy(places),
        types=0 * one,
        segments=one,
        example_of=numbers,
        lengths=one,
        task_of=torch.from_numpy(np.repeat(np.arange(len(parts)), sizes)),
        targets=torch.from_numpy(right.astype(np.int64)),
        group=numbers,
        ways=torch.full((len(parts),), 2),
        ends=torch.from_numpy(np.cumsum(sizes).astype(np.int32)),
        runs=((total, 1),),
        max_ways=2,
        form=TRACE.name,
        max_units=max(sizes),
        trunk=Trunk(inputs, inputs[:, None]),
    )


@dataclass(frozen=True)
class Cuts:
    """How an episode is cut out of a student's answers."""

    shots: tuple[int, int] = (2, 20)  # fewest and most support answers; drawn evenly between them
    queries: int = 30  # most query answers, those that follow

    def __post_init__(self) -> None:
        low, high = self.shots
        if not 1 <= low <= high or self.queries < 1:
            raise InputError(f"{self} is not possible: shots and queries from 1 up")


class FirstAnswers(Stream):
    """An endless sequence of episodes over students, each drawn equally often, and cut anew each time."""

    def __init__(self, histories: Sequence[History], cuts: Cuts, seed: int) -> None:
        """Raises InputError where no student has more answers than the fewest shots."""
        self._histories = [history for history in histories if len(history.student) > cuts.shots[0]]
        self.cuts, self.seed = cuts, seed
        if not self._histories:
            raise InputError(
                f"none of {len(histories)} students has more than {cuts.shots[0]} answers: the first ones predict the "
                "next; give longer traces"
            )

    def __getitem__(self, number: int) -> Episode:
        ((history, cut, end),) = self._cut([number])
        sides = slice(0, cut), slice(cut, end)
        support, query = (packed([(history, part)]) for part in sides)
        first, rest = (tuple(range(part.start, part.stop)) for part in sides)
        return Episode(history.student.name, number, (0, 1), first, rest, support, query)

    def identity(self) -> Mapping[str, Any]:
        """All that decides what is drawn."""
        digest = sha256()
        for history in self._histories:
            digest.update(history.student.skills.astype(np.int64).tobytes() + history.student.right.tobytes())
        return {"seed": self.seed, "cuts": to_json(self.cuts), "students": digest.hexdigest()}

    def _cut(self, numbers: Sequence[int]) -> list[tuple[History, int, int]]:
        found = list[tuple[History, int, int]]()
        for number in numbers:
            rng, (low, high) = episode_rng(self.seed, number), self.cuts.shots
            history = self._histories[int(rng.integers(len(self._histories)))]
            length = len(history.student)
            cut = int(rng.integers(low, min(high, length - 1) + 1))
            found.append((history, cut, min(length, cut + self.cuts.queries)))
        return found

    def group(self, numbers: Sequence[int]) -> Pass:
        cuts = self._cut(numbers)
        support = packed([(history, slice(0, cut)) for history, cut, _ in cuts])
        query = packed([(history, slice(cut, end)) for history, cut, end in cuts])
        return Pass((), support, query)
