"""Intents that no training has seen, by the class splits of ProtAugment (Dopierre et al. 2021, arXiv 2105.12995):

    python recipes/bench/bench_intents.py --data DATA/intents --out out/bench_intents

Of each split a protonet learns from the training classes and is judged on the test classes, beside the plain encoder;
with `--setfit N` SetFit is too, on the first N 5-way episodes. Splits that --out has are not run again.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import tyro
from remembered import Remembered, accuracy, numbered, with_trunks

from metanlp import Backbone, Episodes, Frozen, Plan, ProtoNet, Sampling, SetFit, meta_train
from metanlp.core.intervals import interval
from metanlp.core.types import Episode, Row, Task
from metanlp.episodes.pool import Pool
from metanlp.experiment.run import write_json
from metanlp.report.tables import percent
from metanlp.tasks.reading.build import task_from_rows

Judge = Callable[[Episode], float]  # accuracy in %
POOLS = ("train", "validation", "test")
SPLITS = tuple(f"{name}/0{fold}" for name in ("clinc150", "hwu64") for fold in range(1, 6))


def main(
    data: Path,  # folders with rows and class_splits.json
    splits: tuple[str, ...] = SPLITS,
    steps: int = 30,  # meta-steps of four 5-way episodes
    episodes: int = 600,  # of 5 ways, a split and number of shots
    full: int = 10,  # of all ways
    setfit: int = 0,
    out: Path = Path("out/bench_intents"),
) -> None:
    found = json.loads(kept.read_text("utf-8")) if (kept := out / "results.json").exists() else {}
    for split in splits:
        taught, asked = intents(data, split, "train"), intents(data, split, "test")
        judges = {} if split in found else judged(taught, asked, steps)
        judges |= {"setfit": partial(by_setfit, asked, Pool.of(asked, numbered).rows)} if setfit else {}
        for (kind, ways), k in product((("5", 5), ("full", len(asked.labels))), (1, 5)):
            drawn = Episodes([asked], numbered, Sampling((k, k), 5, ways), seed=0)
            cells = found.setdefault(split, {}).setdefault(f"{kind}-way {k}-shot", {})
            for method, judge in judges.items():
                count = setfit * (kind == "5") if method == "setfit" else episodes if kind == "5" else full
                cells[method] = [judge(drawn[number]) for number in range(count)]
        write_json(kept, found)
    for name in dict.fromkeys(split.partition("/")[0] for split in found):
        show(name, [cells for split, cells in found.items() if split.startswith(name)])


def intents(data: Path, split: str, part: str) -> Task:
    """The rows, of all files, of the classes that a split has for training, validation or test."""
    name, _, fold = split.partition("/")
    classes = json.loads((data / name / "class_splits.json").read_text("utf-8"))["folds"][fold][part]
    words = {label.replace("/", "_") for label in classes}
    lines = [line for pool in POOLS for line in (data / name / f"{pool}.jsonl").read_bytes().splitlines()]
    rows = [{"text": row["text"], "label": row["label_text"]} for row in map(json.loads, lines)]
    return task_from_rows(f"{name}/{part}", [row for row in rows if row["label"] in words])


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


def by_setfit(task: Task, rows: Sequence[Row], episode: Episode) -> float:
    support, query = ([rows[n] for n in side] for side in (episode.support_rows, episode.query_rows))
    said = SetFit("minilm").answer(task, support, [{"text": row["text"]} for row in query], 0).values.argmax(1)
    return 100 * float(np.mean(said == [row["label"] for row in query]))


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
