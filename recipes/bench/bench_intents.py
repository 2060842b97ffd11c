"""Intents that no training has seen, by the class splits of ProtAugment (Dopierre et al. 2021, arXiv 2105.12995):

    python recipes/bench/bench_intents.py --data DATA/intents --out out/bench_intents

Of each split a protonet is meta-trained on the training classes and judged on the test classes, 5-way and all of them
at once, beside the untrained encoder: prototypes over its views, and logistic regression on its own embedding. With
`--setfit N` SetFit too, on the first N 5-way episodes. Intervals are over splits; those in --out are not run again.
"""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import tyro
from remembered import Remembered, accuracy, numbered, with_trunks

from metanlp import Backbone, Episodes, Frozen, Plan, ProtoNet, Sampling, SetFit, meta_train
from metanlp.core.intervals import interval
from metanlp.core.types import Episode, Task
from metanlp.episodes.pool import Pool
from metanlp.experiment.run import write_json
from metanlp.report.tables import percent
from metanlp.tasks.reading.build import task_from_rows

Judge = Callable[[Episode], float]  # accuracy in %
DATA = Path(os.environ.get("METANLP_DATA", ""), "intents")
SPLITS = tuple(f"{name}/0{fold}" for name in ("clinc150", "hwu64") for fold in range(1, 6))


def main(
    splits: tuple[str, ...] = SPLITS,
    data: Path = DATA,  # folders with rows and class_splits.json
    steps: int = 40,  # meta-steps of four 5-way episodes
    episodes: int = 600,  # of 5 ways, a split and number of shots
    full: int = 10,  # of all ways
    setfit: int = 0,
    out: Path = Path("out/bench_intents"),
) -> None:
    kept = out / "results.json"
    found = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    for split in splits:
        taught, asked = intents(data, split, "train"), intents(data, split, "test")
        judges = {} if split in found else judged(taught, asked, steps)
        judges |= {"setfit": by_setfit(asked)} if setfit else {}
        for kind, ways in (("5", 5), ("full", len(asked.labels))):
            for k in (1, 5):
                drawn = Episodes([asked], numbered, Sampling((k, k), 5, ways), seed=0)
                cells = found.setdefault(split, {}).setdefault(f"{kind}-way {k}-shot", {})
                for method, judge in judges.items():
                    count = setfit * (ways == 5) if method == "setfit" else episodes if kind == "5" else full
                    cells[method] = [judge(drawn[number]) for number in range(count)]
        write_json(kept, found)
    for name in dict.fromkeys(split.partition("/")[0] for split in found):
        show(name, [cells for split, cells in found.items() if split.startswith(name)])


def intents(data: Path, split: str, part: str) -> Task:
    """The rows, of all files, of the classes that a split has for training, validation or test."""
    name, _, fold = split.partition("/")
    classes = json.loads((data / name / "class_splits.json").read_text("utf-8"))["folds"][fold][part]
    words = {label.replace("/", "_") for label in classes}
    files = (data / name / f"{pool}.jsonl" for pool in ("train", "validation", "test"))
    rows = [json.loads(line) for file in files for line in file.read_bytes().splitlines()]
    kept = [{"text": row["text"], "label": row["label_text"]} for row in rows if row["label_text"] in words]
    return task_from_rows(f"{name}/{part}", kept)


def judged(taught: Task, asked: Task, steps: int) -> dict[str, Judge]:
    """By method. None of them moves an adapter on a new task, so that rows are read once for all episodes."""
    net = Backbone.load("minilm", precision="fp32", store_gb=0.5)
    drawn = Episodes([taught], net.encode, Sampling((1, 5), 5, 5), seed=0)
    learned = meta_train(ProtoNet(), net, drawn, Plan(steps=steps, meta_batch=4))
    rows = Remembered.of(net, learned.theta, with_trunks(net, Pool.of(asked, net.encode)))
    own = rows.view_names.index("frozen.6.all")  # the encoder's own embedding
    alone = replace(rows, table=rows.table[:, [own]], view_names=("frozen.6.all",))
    start, plain = (Frozen.head.init(len(each.view_names), net.width) for each in (rows, alone))
    return {
        "frozen": partial(accuracy, Frozen(), rows, start),
        "logistic": partial(accuracy, Frozen(classifier="logistic", c=1.0), alone, plain),
        "protonet": partial(accuracy, learned.algorithm, rows, learned.theta),
    }


def by_setfit(task: Task) -> Judge:
    rows, baseline = Pool.of(task, numbered).rows, SetFit("minilm")

    def judge(episode: Episode) -> float:
        support, query = ([rows[n] for n in side] for side in (episode.support_rows, episode.query_rows))
        said = baseline.answer(task, support, [{"text": row["text"]} for row in query], 0).values.argmax(1)
        return 100 * float(np.mean(said == [row["label"] for row in query]))

    return judge


def show(name: str, splits: list[dict[str, dict[str, list[float]]]]) -> None:
    """Means over splits, and protonet less each of the others on the episodes that both have."""
    for cell, method in [(cell, method) for cell, methods in splits[0].items() for method in methods]:
        pairs = [(cells[cell]["protonet"], cells[cell][method]) for cells in splits if cells[cell].get(method)]
        if pairs:
            score = interval(np.array([np.mean(theirs) / 100 for _, theirs in pairs]))
            gain = interval(np.array([np.mean(np.subtract(ours[: len(b)], b)) / 100 for ours, b in pairs]))
            print(name, cell, method, percent(score), percent(gain), f"{len(pairs[0][1])} a split", sep=" | ")


if __name__ == "__main__":
    tyro.cli(main)
