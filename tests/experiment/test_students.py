"""From answers of students to tables and the page of a class."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Here
from planted_students import planted, write_traces

from metanlp.core.errors import InputError
from metanlp.experiment.options import Students
from metanlp.experiment.students import students

RECIPE = Path(__file__).parents[2] / "recipes" / "student.py"
NAME = '<b>Bobby</b> & "Tables"'


def asked(traces: Path, out: Path, **others: Any) -> Students:
    small: dict[str, Any] = {"model": "none", "methods": ("multitask", "mapping", "maml"), "steps": 6, "meta_batch": 4,
             "inner_steps": 1, "queries": 10, "draws": 60, "choose": 0.2, "threads": 1, "shown": 5}  # fmt: skip
    return Students(traces=str(traces), out=out, **{**small, **others})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Students:
    home = tmp_path_factory.mktemp("students")
    judge = planted(12, 30, 1, "j")
    judge[0] = replace(judge[0], name=NAME)
    judge.append(replace(judge[1].first(1), name="newcomer"))
    given = asked(write_traces(home / "traces", planted(20, 30, 0), judge), home / "out")
    students(given)
    return given


def test_what_it_leaves(made: Students) -> None:
    found = json.loads((made.out / "results.json").read_text())
    methods = {"mean", "elo", "irt", "mastery", "pfa", "best_lr", "best_lr_recent", "dkt", "unadapted", *made.methods}
    cells = {(cell["method"], cell["window"], cell["metric"]): cell for cell in found["cells"]}
    windows = ("3–10", "11–20", "21–50")
    assert cells.keys() == {(m, w, metric) for m in methods for w in windows for metric in ("auc", "accuracy")}
    assert all(0 <= cell["low"] <= cell["mean"] <= cell["high"] <= 1 for cell in cells.values())
    assert cells["best_lr", "3–10", "auc"]["less best_lr"] == {"mean": 0, "low": 0, "high": 0}
    assert found["asked"]["traces"] == "traces"
    assert "out" not in found["asked"]
    answers = {name: found["costs"][name]["answers"] for name in made.methods}
    assert all(answers["maml"] <= count < 2 * answers["maml"] for count in answers.values())
    assert {path.suffix for path in (made.out / "plots").iterdir()} == {".csv", ".png", ".svg"}


def test_the_page_names_and_escapes(made: Students) -> None:
    page = (made.out / "report.html").read_text()
    assert NAME not in page
    assert "&lt;b&gt;Bobby&lt;/b&gt; &amp; &#34;Tables&#34;" in page
    for words in ("Early warning", "Learning curve", "The class by skill", "Practise next", "How far to trust this"):
        assert words in page
    assert "The first 5 of 13" in page
    assert "area of a circle" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_the_same_again(made: Students, tmp_path: Path) -> None:
    students(replace(made, out=tmp_path))
    first, again = (json.loads((out / "results.json").read_text())["cells"] for out in (made.out, tmp_path))
    assert first == again


def test_the_command_line_a_csv_and_notes(tmp_path: Path, here: Here) -> None:
    """Baselines alone, on a class of one's own beside others; one student has one answer, one skill is new."""
    source = write_traces(tmp_path / "all", planted(12, 20, 0), planted(2, 20, 1, "t"))
    (source / "skills.json").unlink()
    rows = [f"{s.name},{s.skills[n]},{int(s.right[n])}" for s in planted(8, 24, 2, "mine") for n in range(24)]
    mine = tmp_path / "class.csv"
    mine.write_text("pupil,topic,score\n" + "\n".join([*rows, "late,9,1"]) + "\n")
    for side in ("train", "test"):
        file = source / f"{side}.jsonl"
        file.write_text(file.read_text().replace('"student"', '"pupil"').replace('"correct"', '"score"'))
    words = ["python", RECIPE, "--traces", source, "--judged", mine, "--model", "none", "--methods", "--choose", "0.2",
             "--columns", "student=pupil,skill=topic,correct=score", "--draws", "20",
             "--out", tmp_path / "out"]  # fmt: skip
    code, out, said = here(*words)
    assert code == 0, said
    assert "1 students, 'late' first, have 2 answers or fewer" in out
    assert "1 that no teaching student was asked (9)" in out
    assert "best_lr" in out
    code, _, said = here(*words)
    assert code == 2
    assert "give another --out, or --replace what is there" in said


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (
            {"methods": ("matching",)},
            "--methods names 'matching'; answers in their order are learned by multitask, maml",
        ),
        ({"choose": 0.0}, "--choose 0 of 8 teaching students is 0; some have to teach and some to choose"),
        ({"shots": (25, 30)}, "none of 6 students has more than 25 answers"),
    ],
)
def test_bad_options(tmp_path: Path, others: dict[str, Any], said: str) -> None:
    source = write_traces(tmp_path / "traces", planted(8, 22, 0), planted(3, 22, 1, "t"))
    with pytest.raises(InputError, match=said):
        students(asked(source, tmp_path / "out", **others))
    assert not (tmp_path / "out" / "results.json").exists()


def test_students_of_one_answer_alone(tmp_path: Path) -> None:
    source = write_traces(tmp_path / "traces", planted(8, 20, 0), [s.first(1) for s in planted(3, 5, 1, "t")])
    with pytest.raises(
        InputError, match="no student who judges has a right answer among those after the first 2; give"
    ):
        students(asked(source, tmp_path / "out"))


def test_short_traces_leave_out_late_windows(tmp_path: Path) -> None:
    source = write_traces(tmp_path / "traces", planted(16, 20, 0), planted(12, 12, 1, "t"))
    found = students(asked(source, tmp_path / "out", methods=(), draws=20))
    assert found.windows == ("3–10", "11–20")
    assert np.isfinite([each["auc"].value for each in found.scores.values()]).all()
