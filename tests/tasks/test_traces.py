"""Students' answers as people have them, and what is said of what can't be used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted_students import SKILLS, planted, write_traces

from metanlp.core.errors import InputError
from metanlp.tasks.sources.traces import doubled, once, read_traces

HEADER = "student,skill,correct,time\n"


def file(tmp_path: Path, text: str, name: str = "class.csv") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_both_layouts_say_the_same(tmp_path: Path) -> None:
    """A row a student, and a row an answer, of students whose rows stand among each other."""
    teach, judge = planted(3, 5, 0), planted(2, 4, 1, "t")
    whole = read_traces(write_traces(tmp_path / "whole", teach, judge))
    for side, students in (("train", teach), ("test", judge)):
        lines = [
            {"student": s.name, "skill": int(s.skills[n]), "correct": bool(s.right[n])}
            for n in range(5)
            for s in students
            if n < len(s)
        ]
        file(tmp_path, "".join(json.dumps(line) + "\n" for line in lines), f"{side}.jsonl")
    (tmp_path / "skills.json").write_text(json.dumps(dict(enumerate(SKILLS))))
    single = read_traces(tmp_path)
    assert whole.skills == single.skills == SKILLS
    for one, other in zip((*whole.teach, *whole.judge), (*single.teach, *single.judge), strict=True):
        assert one.name == other.name
        assert one.skills.tolist() == other.skills.tolist()
        assert one.right.tolist() == other.right.tolist()


def test_a_csv_of_ones_own(tmp_path: Path) -> None:
    """Other names of columns, words for skills, 1.0 for right; a share of the students judges, the same each time."""
    text = "who,topic,score\n" + "".join(f"p{n % 8},topic {n % 3},{n % 2}.0\n" for n in range(40))
    path = file(tmp_path, text)
    first, again = (read_traces(path, "student=who,skill=topic,correct=score") for _ in range(2))
    assert first.skills == ("topic 0", "topic 1", "topic 2")
    assert (len(first.teach), len(first.judge)) == (6, 2)
    assert [s.name for s in first.judge] == [s.name for s in again.judge]
    assert not {s.name for s in first.judge} & {s.name for s in first.teach}


def test_a_class_beside_the_students_who_teach(tmp_path: Path) -> None:
    source = write_traces(tmp_path / "all", planted(3, 5, 0), planted(2, 5, 1, "t"))
    mine = file(tmp_path, "student,skill,correct\nAda,0,1\nAda,2,0\nBo,1,1\n")
    found = read_traces(source, judged=mine)
    assert [s.name for s in found.judge] == ["Ada", "Bo"]
    assert len(found.judge[1]) == 1


def test_a_skill_that_nobody_was_taught(tmp_path: Path) -> None:
    teach = planted(4, 6, 0)
    source = write_traces(tmp_path, teach, planted(1, 5, 1, "t"))
    (source / "skills.json").write_text(json.dumps(dict(enumerate((*SKILLS, "new", "never asked")))))
    with (source / "test.jsonl").open("a") as more:
        more.write('{"student": "x", "skills": [4, 0], "correct": [1, 0]}\n')
    assert read_traces(source).new_skills == ("new",)


def test_a_question_of_two_skills_that_stands_twice() -> None:
    """Each answer on skill 0 again, under skill 1; skill 2 follows as often, with answers of its own."""
    students = [
        replace(s, skills=np.tile([0, 1, 2], 10), right=np.stack([s.right, s.right, s.right[::-1]], 1).ravel())
        for s in planted(6, 10, 0)
    ]
    pairs = doubled(students)
    assert pairs == {(0, 1)}
    left = once(students[0], pairs)
    assert left.skills.tolist() == [0, 2] * 10
    assert left.right.tolist() == students[0].right[np.tile([True, False, True], 10)].tolist()
    assert doubled(planted(6, 30, 0)) == set()
    assert len(once(students[0].first(0), pairs)) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{HEADER}a,x,1,1\na,x,0,3\nb,x,1,1\na,y,1,2\n",
         r"class.csv:5: student 'a' answered at 2.0 after 3.0: the answers are not in their order; sort"),
        (f"{HEADER}a,x,1,2026-01-02\na,x,0,2026-01-01\n", "answered at 2026-01-01 after 2026-01-02"),
        (f"{HEADER}a,x,1,3\na,x,0,later\n", "'time' is 'later' after 3.0; write all times alike"),
        (f"{HEADER}a,x,2,1\n", r"class.csv:2: 'correct' is '2'; write 1 for right and 0 for wrong"),
        (f"{HEADER}a,x,,1\n", "'correct' is ''; write 1"),
        (f"{HEADER},x,1,1\n", "'student' is ''; write a name or an integer"),
        (f"{HEADER}a, ,1,1\n", "the skill is ' '; write a name"),
        ("pupil,skill,correct\na,x,1\n", "has no column 'student' but pupil, skill, correct; name yours: --columns"),
        ("student,correct\na,1\n", "has no column 'skill' but student, correct"),
        (f"{HEADER}a,x,1,1\n", "1 students can't both teach and judge"),
        ("student,skill,correct\n", "holds no answers; give rows of student, skill and correct"),
    ],
)  # fmt: skip
def test_bad_rows(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_traces(file(tmp_path, text))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"student": "s0", "skills": [1], "correct": [1]}, "student 's0' also teaches, and would be judged by answers"),
        (
            {"student": "t", "skills": [1, 2], "correct": [1]},
            "student 't' has 2 skills and 1 answers; each answer needs",
        ),
        ({"student": "t", "skills": "1", "correct": [1]}, "'skills' and 'correct' are '1' and a list; write two lists"),
        ({"student": "t", "skills": [99], "correct": [1]}, "skill '99' has no name in skills.json; add it there"),
        ({"student": "t", "skills": [1], "correct": [0.5]}, "'correct' is a decimal; write 1 for right"),
        ({"student": "t", "skills": [1], "correct": [1], "time": [None]}, "'time' is null; write a number, or a date"),
    ],
)
def test_bad_students(tmp_path: Path, row: dict[str, object], said: str) -> None:
    source = write_traces(tmp_path, planted(3, 5, 0), [])
    (source / "test.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=said):
        read_traces(source)


def test_a_student_twice_and_names_that_are_none(tmp_path: Path) -> None:
    source = write_traces(tmp_path, planted(3, 5, 0), planted(1, 5, 1, "t") * 2)
    with pytest.raises(InputError, match=r"test.jsonl:2: student 't0' stands in two rows of answers; join them"):
        read_traces(source)
    (source / "skills.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="is no object of names"):
        read_traces(source)
    (source / "skills.json").unlink()
    with pytest.raises(InputError, match="--held-out 1 is a share of the students"):
        read_traces(file(tmp_path, "student,skill,correct\na,x,1\n"), share=1)
    with pytest.raises(InputError, match="'pupil' is no column of ours"):
        read_traces(source, "pupil=x")
