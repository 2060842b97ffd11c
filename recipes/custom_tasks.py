"""Your own folder of CSVs, from start to predictions. A file is a task: columns text (or text_a, text_b) and label.

python recipes/custom_tasks.py --tasks my_tasks/ --new tickets --texts new_tickets.txt --steps 200
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from metanlp.config import parse
from metanlp.launch import guarded


@dataclass(frozen=True)
class Options:
    """Meta-train on all tasks of a folder but one, adapt to that one, label texts with it."""

    tasks: Path  # folder of CSV, JSONL or Parquet files
    new: str  # the task that is adapted to; the others teach
    texts: Path  # lines to label
    model: str = "minilm"  # encoder
    columns: str = ""  # the files' names for our columns: text=body,label=intent
    steps: int = 200  # meta-steps
    out: Path = Path("out/custom")  # folder for the learner, and the adapted model in a folder of its task's name


def run(asked: Options) -> None:
    from metanlp import Backbone, Episodes, Maml, Plan, Sampling, TaskSet, meta_train
    from metanlp.checkpoint import lock
    from metanlp.tasks.columns import parse_columns
    from metanlp.tasks.files import read_texts

    columns = parse_columns(asked.columns)
    tasks = TaskSet.from_files(asked.tasks, columns)
    roles = tasks.split(test=[asked.new])
    (task,) = roles.test
    texts = read_texts(asked.texts, columns=columns, labels=task.labels)
    net = Backbone.load(asked.model)
    episodes = Episodes(roles.train, net.encode, Sampling(), seed=0)
    with lock(asked.out):
        learner = meta_train(Maml(), net, episodes, Plan(steps=asked.steps, meta_batch=2), folder=asked.out)
        learner.save(asked.out)
        rows = [{**row, "label": task.labels[row["label"]]} for row in task.pools["train"]]
        adapted = learner.adapt(rows)
        adapted.save(asked.out / asked.new)
    for row, label in zip(texts, adapted.predict(texts), strict=True):
        print(label, *row.values(), sep="\t")


if __name__ == "__main__":
    guarded(lambda: run(parse(Options, sys.argv[1:])))
