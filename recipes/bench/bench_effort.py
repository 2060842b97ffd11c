"""`effort="best"` beside the learner's recipe, on support sets and query rows of tasks that taught it nothing:

    METANLP_DATA=DATA python recipes/bench/bench_effort.py --out out/bench_effort

A line a task and number of shots: accuracy, or what its form is judged by, in %, of both; what best adds, with its
interval over support sets; the steps that it chose; median seconds of both. The last line has the mean over tasks.
"""

import os
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import tyro

from metanlp import Learner
from metanlp.core.effort import Effort
from metanlp.core.intervals import Sample, over_tasks
from metanlp.core.types import Task
from metanlp.evaluation.held_out import HeldOutTask, Protocol, Support
from metanlp.experiment.run import write_json
from metanlp.report.tables import percent
from metanlp.tasks.roles import read_role

TASKS = ("topics/trec", "leopard/airline", "topics/agnews")
EFFORTS: tuple[Effort, ...] = ("recipe", "best")


def main(
    learner: str = "default",
    tasks: tuple[str, ...] = TASKS,
    shots: tuple[int, ...] = (8,),
    episodes: int = 3,  # support sets a task
    rows: int = 300,  # query rows a task at the most
    out: Path = Path("out/bench_effort"),
) -> None:
    judged, root = Learner.load(learner), os.environ.get("METANLP_DATA")
    given = [task for name in tasks for task in read_role(name, "test", Path(root) if root else None, None)]
    found, gains = dict[str, list[dict[str, float]]](), list[Sample]()
    for task in given:
        held_out = HeldOutTask(task, judged.encoder, Protocol(shots, episodes, rows))
        for k in dict.fromkeys(support.shots for support in held_out.supports):
            each = [measured(judged, held_out, support) for support in held_out.supports if support.shots == k]
            found[f"{task.name}, {k} shots"] = each
            gains.append(Sample(np.array([one["best"] - one["recipe"] for one in each]), np.zeros(0)))
            scores = (f"{100 * np.mean([one[effort] for one in each]):.1f}" for effort in EFFORTS)
            seconds = (f"{median(one[f'{effort}_s'] for one in each):.2f}" for effort in EFFORTS)
            steps, gain = [int(one["steps"]) for one in each], percent(over_tasks(gains[-1:]))
            print(f"{task.name}, {k} shots", *scores, gain, steps, *seconds, sep=" | ", flush=True)
    write_json(out / "results.json", found)
    print("mean", percent(over_tasks(gains)), sep=" | ")


def measured(learner: Learner, held_out: HeldOutTask, support: Support) -> dict[str, float]:
    """Of one support set: score and seconds to adapt, by effort; the steps that best chose."""
    rows, found = {"train": support.rows}, dict[str, float]()
    task: Task = replace(held_out.task, pools=rows, supports={})
    for effort in EFFORTS:
        begun = time.perf_counter()
        adapted = learner.adapt_to(task, effort=effort, label_names=False)
        found[f"{effort}_s"] = time.perf_counter() - begun
        found[effort] = held_out.score(adapted.algorithm, adapted.phi, support)
        found["steps"] = adapted.record.get("best_effort", {}).get("steps", 0)
    return found


if __name__ == "__main__":
    tyro.cli(main)
