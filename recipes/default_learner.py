"""The learner that comes with the package: meta-trained on sets whose licences let weights be shared.

    METANLP_DATA=DATA python recipes/default_learner.py --out out/default
    python recipes/default_learner.py --out out/default --resume

The second line goes on where the first was stopped. The folder's last files are those of `metanlp/data/default`; what
they are made from, and what they are good for, says `data_cards/default.md`.
"""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from metanlp.cli.launch import guarded
from metanlp.core.settings import parse

SETS = (
    "open", "glue/mnli", "glue/snli", "glue/qnli", "glue/stsb", "intents/clinc150", "intents/hwu64", "topics/dbpedia14",
    "shopping/product_category", "shopping/drug_reviews", "education/arc_easy", "mini",
)  # fmt: skip
VIEWS = ("adapted.6.all", "adapted.6.second", "frozen.6.all", "frozen.4.all", "frozen.3.second")  # without a phrase's
# As their makers or the copies of them state it; those of published sets stand in metanlp's own table.
LICENCES = {
    "open/movie_reviews": "CC BY 4.0", "open/subjectivity": "CC BY 4.0", "open/customer_reviews": "CC BY 4.0 in a copy",
    "open/uci_amazon": "CC BY 4.0", "open/uci_imdb": "CC BY 4.0", "open/uci_yelp": "CC BY 4.0",
    "open/hate_offensive": "MIT", "open/emotions_28": "CC BY 4.0", "open/emotions_ekman": "CC BY 4.0",
    "open/emotions_sets": "CC BY 4.0", "open/sms_spam": "CC BY 4.0", "open/entities_wnut17": "CC BY 4.0",
    "education/beetle": "CC BY-SA 3.0", "education/arc_easy": "CC BY-SA 4.0",
}  # fmt: skip
GRADED = {"text_a": "reference", "text_b": "text", "label": "label_text"}  # short answers, in a file of its own


@dataclass(frozen=True)
class Options:
    """Meta-train the default learner, or a smaller one to see how it goes."""

    out: Path = Path("out/default")  # folder of the learner, and of its checkpoints while it learns
    steps: int = 2000  # meta-steps of four episodes
    unlabelled: float = 0.0  # share of the episodes from masked words and neighbouring sentences of `mlm`
    views: tuple[str, ...] = VIEWS  # what is read off the encoder
    start: str | None = None  # a learner to go on from, instead of from nothing: default, or a folder
    seed: int = 0  # of the episodes
    decorrelate: float = 0.0  # weight of a regulariser of the features in the outer loss
    resume: bool = False  # go on from the newest checkpoint in --out


def run(asked: Options) -> None:
    from metanlp import Backbone, Episodes, Learner, Lora, Plan, ProtoNet, Sampling, TaskSet, meta_train
    from metanlp.core.errors import InputError
    from metanlp.tasks.reading.files import read_task
    from metanlp.tasks.roles import read_role

    if not (named := os.environ.get("METANLP_DATA")):
        raise InputError("METANLP_DATA has to name the folder of the training sets")
    root = Path(named)
    graded = read_task(root / "education/beetle/train.jsonl", name="education/beetle", columns=GRADED)
    graded = replace(graded, source="education")
    texts = [f"{kind}:{root / 'mlm'}" for kind in ("masked", "adjacent") if asked.unlabelled]
    found = [task for name in (*SETS, *texts) for task in read_role(name, "train", root, None)] + [graded]
    tasks = TaskSet(tuple(replace(task, pools={"train": task.pools["train"]}) for task in found)).tasks
    adapters = Lora(rank=16, alpha=32, layers="top half", targets="all linear")
    net = Backbone.load("minilm", adapters, views=asked.views, precision="bf16")
    episodes = Episodes(tasks, net.encode, Sampling(shots=(2, 8), queries=4, ways=8, mix=asked.unlabelled),
                        asked.seed)  # fmt: skip
    plan = Plan(steps=asked.steps, meta_batch=4, lr=1e-3, checkpoints=40)
    start = Learner.load(asked.start, net=net) if asked.start else None
    method = ProtoNet(decorrelate=asked.decorrelate)
    learned = meta_train(method, net, episodes, plan, folder=asked.out, resume=asked.resume, start=start)
    # fp32, so that it answers alike on all processors, and with the head that validation chose: see the card.
    adapts = replace(learned.algorithm, classifier="mixture")
    names = [task.name for task in tasks]
    record = {"tasks": {"train": names}, "sources": {task.name: task.source for task in tasks},
              "licences": {name: LICENCES[name] for name in names if name in LICENCES},
              "seed": asked.seed} | dict(learned.record)  # fmt: skip
    exact = Backbone.load("minilm", adapters, views=asked.views, precision="fp32")
    replace(learned, algorithm=adapts, net=exact, record=record).save(asked.out)


if __name__ == "__main__":
    guarded(lambda: run(parse(Options, sys.argv[1:])), "--resume")
