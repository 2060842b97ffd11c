"""The commands that train and test on many tasks."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metanlp.cli.launch import carry_out
from metanlp.cli.models import judge
from metanlp.cli.options import Json, Printed
from metanlp.core.errors import InputError
from metanlp.core.outputs import OutputFolder
from metanlp.experiment.options import AUTO, LEAVE_ONE_OUT, NOTHING, Experiment, Testing


@dataclass(frozen=True, kw_only=True)
class Compare(Experiment, Json):
    """Ask whether meta-learning helps on your tasks: train, test, compare with baselines."""

    max_minutes: float | None = None  # of meta-training; 5 where neither it nor --steps is given

    def run(self) -> dict[str, Any] | None:
        from metanlp.evaluation.answers import to_json

        asked = {field.name: getattr(self, field.name) for field in fields(Experiment)}
        asked["max_minutes"] = 5.0 if self.steps is self.max_minutes is None else self.max_minutes
        found = carry_out(Experiment(**asked))
        return to_json(found) if found else None


PRESETS = {"quick": 2.0, "standard": 10.0, "thorough": 60.0}  # minutes of meta-training


@dataclass(frozen=True, kw_only=True)
class Train(Experiment, Json):
    """Train a learner on all of your tasks; `compare` says before whether it helps."""

    preset: Literal["quick", "standard", "thorough"] = "standard"  # 2, 10 or 60 minutes of training
    method: str = "maml"  # the method; `compare` says which to take
    baselines: tuple[str, ...] = ()  # others, as in `compare`, where tasks are there to --test

    def run(self) -> Printed:
        if self.steps is not None and self.steps < 1:
            raise InputError(f"--steps is {self.steps}; give 1 or more, or leave it out: --preset then says how long")
        asked = {field.name: getattr(self, field.name) for field in fields(Experiment)}
        if self.steps is self.max_minutes is None:
            asked["max_minutes"] = PRESETS[self.preset]
        carry_out(Experiment(**asked))
        return {"out": str(self.out), "method": self.method}


TRAIN = Train(model="minilm", data=tyro.MISSING, test=NOTHING, start=AUTO, out=tyro.MISSING)
COMPARE = Compare(model="minilm", data=tyro.MISSING, test=LEAVE_ONE_OUT, start=AUTO, out=Path("out/compare"))


DRAWN = ("shots", "episodes", "test_rows", "drop_repeats", "seed")  # options on the support sets of held-out tasks


@dataclass(frozen=True, kw_only=True)
class Evaluate(Json, Testing):
    """Score saved learners, and the frozen encoder beside them, on held-out tasks; adapted models on labelled files."""

    # Folders of learners, or owner/name on the Hub; by default the learner that comes with the package. Or of adapted
    # models, which have their examples: of these what `score` says.
    source: Annotated[tuple[Path, ...], tyro.conf.arg(name="from")] = (Path("default"),)
    # Tasks: mini, leopard, folders, Hub's owner/name; a task's own support sets are used. For adapted models labelled
    # files.
    test: tuple[str, ...]
    base: str | None = None  # where the pretrained model is, if not at its public id
    out: Path = Path("out/evaluate")  # folder for results.json and report.html

    def run(self) -> Printed:
        from metanlp.evaluation.answers import to_json
        from metanlp.evaluation.held_out import Protocol
        from metanlp.experiment.evaluate import evaluate
        from metanlp.learner.artefact import located, read_config
        from metanlp.tasks.reading.columns import parse_columns
        from metanlp.tasks.roles import read_role

        if {read_config(located(source), None)["kind"] for source in self.source} == {"adapted"}:
            return self._judged()
        OutputFolder(self.out, (*self.source, *self.test), self.replace).check()
        root = os.environ.get("METANLP_DATA")
        columns, place = parse_columns(self.columns), Path(root) if root else None
        tasks = read_role(",".join(self.test), "test", place, columns, self.drop_repeats)
        protocol = Protocol(self.shots, self.episodes, self.test_rows, self.drop_repeats, self.seed)
        return to_json(evaluate(self.source, tasks, protocol, self.out, base=self.base, page=self.page))

    def _judged(self) -> Printed:
        """Each adapted model on each file, by the code of `score`; nothing is written. Raises InputError."""
        from metanlp.learner.learner import Adapted
        from metanlp.tasks.reading.columns import parse_columns
        from metanlp.tasks.reading.rows import read_rows

        if changed := [name for name in DRAWN if getattr(self, name) != getattr(Testing, name)]:
            option = "--" + changed[0].replace("_", "-")
            raise InputError(
                f"{option} is for learners, which adapt here; an adapted model has its examples: leave it out"
            )
        for test in self.test:
            if not Path(test).is_file():
                raise InputError(f"--test {test} is no file; an adapted model is judged by the rows of a labelled file")
        rows = {test: read_rows(Path(test), parse_columns(self.columns)) for test in self.test}
        scores = list[dict[str, Any]]()
        for source in self.source:
            adapted = Adapted.load(source, base=self.base)
            for test, judging in rows.items():
                print(f"{source} on {test}")
                scores.append({"from": str(source), "test": test, **judge(adapted, judging)})
        return {"scores": scores}


@dataclass(frozen=True, kw_only=True)
class Page(Json):
    """Make report.html and plots/ anew from what a run left in its folder."""

    folder: Annotated[Path, tyro.conf.Positional]  # with results.json, and metrics.jsonl where it trained

    def run(self) -> Printed:
        from metanlp.report.page import write_page

        page = write_page(self.folder)
        print(page)
        return {"report": str(page)}
