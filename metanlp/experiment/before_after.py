"""What adaptation adds: each method of a finished run before it has seen a row of a held-out task, and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from metanlp.core.intervals import Interval
from metanlp.core.outputs import BEFORE
from metanlp.core.progress import Progress
from metanlp.core.torch_modes import own_modes
from metanlp.evaluation.before import before
from metanlp.evaluation.held_out import HeldOutTask
from metanlp.evaluation.results import Report
from metanlp.experiment.options import Experiment
from metanlp.experiment.prepare import protocol_of, roles_of
from metanlp.experiment.run import folder_of, write_json
from metanlp.learner.learner import Learner
from metanlp.report.tables import console, in_words, percent, table

Before = Mapping[str, Mapping[str, Mapping[str, Interval]]]
"""method -> task -> metric -> without adaptation."""


@own_modes()
def before_after(asked: Experiment, found: Report) -> Before:
    """Tests the saved learners of a run without adaptation, on the same query rows; prints a table, and leaves
    `before.json` beside `results.json`. Raises InputError, DamagedError, StorageError."""
    judged: dict[str, dict[str, dict[str, Interval]]] = {}
    main = Learner.load(asked.out, base=asked.model)
    tasks = [HeldOutTask(task, main.encoder, protocol_of(asked)) for task in roles_of(asked, asked.test).test]
    with Progress("before") as progress:
        tick = progress.ticks(len(found.methods) * len(tasks))
        for name in found.methods:
            learner = Learner.load(folder_of(asked, name), net=main.net)
            for held_out in tasks:
                judged.setdefault(name, {})[held_out.task.name] = before(learner, held_out)
                tick()
    plain = {name: {task: {m: asdict(i) for m, i in each.items()} for task, each in by_task.items()}
             for name, by_task in judged.items()}  # fmt: skip
    write_json(asked.out / BEFORE, {"schema": 1, "before": plain})
    show_before_after(judged, found)
    return judged


def show_before_after(judged: Before, found: Report) -> None:
    """A row a task, metric and method."""
    title = "Before and after adaptation, % (± half the 95 % interval; before, over query rows alone)"
    rows = [
        [task, in_words(metric), name, percent(judged[name][task][metric])]
        + [percent(found.score(name, task=task, shots=k, metric=metric)) for k in found.shots]
        for task in found.tasks
        for metric in found.shown(task)
        for name in found.methods
    ]
    console().print(table(title, ("task", "metric", "method", "before", *(f"{k} shots" for k in found.shots)), rows))
