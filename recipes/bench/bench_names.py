"""What names of labels add to a few examples, with the learner that comes with the package, on tasks it never saw:

    METANLP_DATA=DATA python recipes/bench/bench_names.py --out out/bench_names

Accuracy without and with names, or with those of the next class, which have to do no harm; a line a task, and the mean
over tasks with its interval over tasks. Query rows are the task's own, or where it has none the rows not drawn.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import tyro
from remembered import Remembered, numbered, with_trunks

from metanlp import Learner
from metanlp.core.intervals import interval
from metanlp.core.types import Row, Task
from metanlp.episodes.pool import Pool
from metanlp.experiment.run import write_json
from metanlp.learner.label_names import NamedNet, words_of
from metanlp.tasks.taskset import read

MINI = ("politeness", "complaint_aspects", "stance_proposals", "product_match", "commit_types", "emotions", "urgency",
        "answer_match", "student_answers", "clause_types")  # fmt: skip
GLUE = ("rte", "mrpc", "qqp", "cola", "sst2", "wnli")
TASKS = (*(f"mini/{name}" for name in MINI), *(f"glue/{name}" for name in GLUE))


def main(
    learner: str = "default",
    tasks: tuple[str, ...] = TASKS,
    shots: tuple[int, ...] = (1, 4, 8, 16),
    draws: int = 10,  # support sets of each task and number of shots
    rows: int = 60,  # of each class, from which they are drawn
    queries: int = 300,  # query rows of a task at the most
    out: Path = Path("out/bench_names"),
) -> None:
    judged, root = Learner.load(learner), os.environ.get("METANLP_DATA")
    given = [task for name in tasks for task in read(name, data_root=Path(root) if root else None)]
    found = {task.name: scores(judged, task, shots, draws, rows, queries) for task in given}
    write_json(out / "results.json", found)
    for name, cells in found.items():
        print(name, *(f"{cell} {value:.1f}" for cell, value in cells.items()), sep=" | ")
    for k in shots:
        able = [cells for cells in found.values() if f"{k} none" in cells]
        for kind in ("names", "wrong") if able else ():
            gain = interval(np.array([cells[f"{k} {kind}"] - cells[f"{k} none"] for cells in able]))
            bounds = "" if gain.low is None else f" [{gain.low:+.1f}, {gain.high:+.1f}]"
            base = np.mean([cells[f"{k} none"] for cells in able])
            print(f"{k} shots, {len(able)} tasks: without {base:.1f}, {kind} {gain.mean:+.1f}{bounds}")


def scores(
    judged: Learner, task: Task, shots: tuple[int, ...], draws: int, rows: int, queries: int
) -> dict[str, float]:
    """Mean accuracy over draws, in %, by shots and kind of names; without shots that leave too few rows."""
    taught, rng = Pool.of(task, judged.encoder.encode), np.random.default_rng(0)
    of_class = [rng.permutation(mine)[:rows] for mine in taught.by_class]
    asked = task.pools.get("test", task.pools.get("validation", ()))
    asked = [asked[n] for n in rng.permutation(len(asked))[:queries]]
    names: list[Row] = [{"text": text, "label": label} for label, text in enumerate(words_of(task.labels))]
    every = [*(taught.rows[n] for mine in of_class for n in mine), *asked]
    pool = Pool(task.meaning, [*every, *names], numbered)
    # A name is one text, also where rows are pairs.
    each = [Pool(task.meaning, rows, judged.encoder.encode) for rows in (every, names) if rows]
    read = [Remembered.of(judged.encoder, judged.theta, with_trunks(judged.encoder, rows)) for rows in each]
    net = replace(read[0], table=torch.cat([part.table for part in read]))
    first, called = sum(map(len, of_class)), len(every) + np.arange(len(names))
    nets = {
        "none": net,
        "names": NamedNet(net, pool.pack(called)),
        "wrong": NamedNet(net, pool.pack(np.roll(called, 1))),
    }
    blocks, cells = np.split(np.arange(first), np.cumsum([len(mine) for mine in of_class])[:-1]), dict[str, float]()
    for k in shots:
        if min(map(len, blocks)) < k + (0 if asked else 4):
            continue
        for kind in nets:
            cells[f"{k} {kind}"] = 0.0
        for number in range(draws):
            each = np.random.default_rng([k, number])
            support = np.concatenate([each.permutation(block)[:k] for block in blocks])
            query = first + np.arange(len(asked)) if asked else np.setdiff1d(np.arange(first), support)
            batch = pool.pack(query)
            for kind, seen in nets.items():
                phi = judged.algorithm.adapt(seen, judged.theta, pool.pack(support))
                with torch.no_grad():
                    right = judged.algorithm.scores(net, phi, batch).argmax(1) == batch.targets
                cells[f"{k} {kind}"] += 100 * float(right.float().mean()) / draws
    return cells


if __name__ == "__main__":
    tyro.cli(main)
