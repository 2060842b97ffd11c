"""Your own folder of CSVs, from start to predictions. A file is a task: columns text (or text_a, text_b) and label.

python recipes/custom_tasks.py --tasks my_tasks/ --new tickets --texts new_tickets.txt --steps 200
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from metanlp.cli.launch import guarded
from metanlp.core.settings import parse


@dataclass(frozen=True)
class Options:
    """Meta-train on all tasks of a folder but one, adapt to that one, label texts with it."""

    tasks: Path  # folder of CSV, JSONL or Parquet files
    new: str  # the task that is adapted to; the others teach
    texts: Path  # lines to label
    model: str = "minilm"  # encoder
    start: str | None = None  # a learner to begin from, as default, with its encoder in place of --model
    columns: str = ""  # the files' names for our columns: text=body,label=intent
    steps: int = 200  # meta-steps
    out: Path = Path("out/custom")  # folder for the learner, and the adapted model in a folder of its task's name
    replace: bool = False  # replace what is in --out already


def run(asked: Options) -> None:
    from metanlp import Backbone, Episodes, Learner, Maml, Plan, Sampling, TaskSet, meta_train
    from metanlp.core.outputs import OutputFolder
    from metanlp.tasks.reading.columns import parse_columns
    from metanlp.tasks.reading.files import read_texts

    out = OutputFolder(asked.out, (asked.tasks, asked.texts, asked.start or asked.model), asked.replace)
    out.check()
    columns = parse_columns(asked.columns)
    tasks = TaskSet.from_files(asked.tasks, columns)
    roles = tasks.split(test=[asked.new])
    (task,) = roles.test
    texts = read_texts(asked.texts, columns=columns, labels=task.labels)
    start = Learner.load(asked.start) if asked.start else None
    net = start.encoder if start else Backbone.load(asked.model)
    episodes = Episodes(roles.train, net.encode, Sampling(), seed=0)
    with out.claimed():
        plan = Plan(steps=asked.steps, meta_batch=2)
        learner = meta_train(Maml(), net, episodes, plan, folder=asked.out, start=start)
        learner.save(asked.out)
        adapted = learner.adapt_to(task)
        adapted.save(asked.out / asked.new)
    for row, label in zip(texts, adapted.predict(texts), strict=True):
        print(label, *row.values(), sep="\t")


if __name__ == "__main__":
    guarded(lambda: run(parse(Options, sys.argv[1:])))
