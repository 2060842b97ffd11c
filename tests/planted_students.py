"""Students with a planted ability, and one half of the skills that some of them master and others do not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from metanlp.tasks.sources.traces import Student

SKILLS = ("adding whole numbers", "taking away whole numbers", "area of a circle", "area of a triangle")


def planted(students: int, answers: int, seed: int, name: str = "s") -> list[Student]:
    """Ability ±1.5; the areas are easy for every other student and hard for the rest."""
    rng, found = np.random.default_rng(seed), list[Student]()
    for number in range(students):
        skills = rng.integers(len(SKILLS), size=answers)
        able = 1.5 * (1 if number % 2 else -1) + np.where(skills >= 2, 2.0 * (1 if number % 4 < 2 else -1), 0.0)
        found.append(Student(f"{name}{number}", skills, rng.random(answers) < 1 / (1 + np.exp(-able))))
    return found


def write_traces(folder: Path, teach: Sequence[Student], judge: Sequence[Student]) -> Path:
    """A folder as people have it: a row a student, and the names of the skills."""
    folder.mkdir(parents=True, exist_ok=True)
    for side, students in (("train", teach), ("test", judge)):
        rows = [
            {"student": each.name, "skills": each.skills.tolist(), "correct": each.right.astype(int).tolist()}
            for each in students
        ]
        (folder / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "skills.json").write_text(json.dumps(dict(enumerate(SKILLS))))
    return folder
