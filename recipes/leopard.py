"""Adapt a saved learner to LEOPARD's few-shot tasks, all published support sets, and score it.

python recipes/leopard.py --from out/maml_glue --data DATA/leopard --test-rows 500
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metanlp.cli import guarded
from metanlp.config import parse


@dataclass(frozen=True)
class Options:
    """Adapt and score a saved learner; the frozen encoder beside it shows what the learning gave."""

    source: Annotated[Path, tyro.conf.arg(name="from")]  # folder of a learner
    data: str = "leopard"  # a folder of tasks with fixed support sets, or a name below METANLP_DATA
    columns: str = ""  # your files' names for our columns: text=body,label=intent; published sets have their own
    shots: tuple[int, ...] = (4, 8, 16)  # support rows a class
    episodes: int = 10  # support sets a task and shots
    test_rows: int | None = None  # query rows a task at the most; all where it is not given
    drop_repeats: bool = False  # leave out query rows that stand in the support set too
    base: str | None = None  # where the pretrained model is, if not at its public id
    out: Path = Path("out/leopard")  # folder for results.json and report.html


def run(asked: Options) -> None:
    from metanlp import Frozen, Learner, Protocol, meta_test, report
    from metanlp.checkpoint import atomic_write
    from metanlp.meta_test import count_trials
    from metanlp.progress import Progress
    from metanlp.report.page import write_page
    from metanlp.tasks.columns import parse_columns
    from metanlp.tasks.taskset import read

    root = os.environ.get("METANLP_DATA")
    tasks = read(asked.data, data_root=Path(root) if root else None, columns=parse_columns(asked.columns))
    learner = Learner.load(asked.source, base=asked.base)
    learners = {"frozen": Learner(Frozen(), learner.net, learner.theta), "learner": learner}
    protocol = Protocol(asked.shots, asked.episodes, asked.test_rows, asked.drop_repeats)
    with Progress("test") as progress:
        found = meta_test(learners, tasks, protocol, tick=progress.ticks(2 * count_trials(tasks, protocol)))
    asked.out.mkdir(parents=True, exist_ok=True)
    atomic_write(asked.out / "results.json", json.dumps(asdict(found), indent=1).encode())
    report.show(found, learner.record)
    report.say({"report": str(write_page(asked.out))})


if __name__ == "__main__":
    guarded(lambda: run(parse(Options, sys.argv[1:])))
