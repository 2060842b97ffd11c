"""The default learner on tasks of families that it never saw, beside what one could take in its place:

    METANLP_DATA=DATA python recipes/bench/bench_default.py --out out/bench_default
    METANLP_DATA=DATA python recipes/bench/bench_default.py --shots 8 --episodes 3 --setfit --out out/bench_setfit

frozen: prototypes over the untrained views. logistic: scikit-learn's logistic regression on the encoder's own
embedding, as MTEB has it (C = 1, balanced draws). prototypes, regression: the learner with one of the two that its
mixture is of. finetune: plain LoRA. setfit: SetFit on the same encoder, which takes hours. Reviews are near to what it
learned from, reviews of films and of products; all others are not.
"""

import os
from dataclasses import replace
from pathlib import Path

import torch
import tyro

from metanlp import Backbone, Finetune, Frozen, Learner, SetFit
from metanlp.core.types import Task
from metanlp.evaluation.external import AnswerCache, ExternalBaseline
from metanlp.evaluation.external.answer_cache import KEPT
from metanlp.evaluation.held_out import Protocol
from metanlp.evaluation.meta_test import meta_test
from metanlp.experiment.evaluate import joined
from metanlp.experiment.run import write_json
from metanlp.report.tables import show
from metanlp.tasks.leaks import without_seen
from metanlp.tasks.roles import read_role

STANCES = ("abortion", "atheism", "climate", "feminist", "hillary")
MATCHES = ("abt_buy", "amazon_google", "beer", "wdc_computers", "wdc_shoes")
REVIEWS = ("apparel", "baby", "books", "camera_photo", "electronics", "health_personal_care", "kitchen_housewares",
           "magazines", "toys_games")  # fmt: skip
FAR = ("leopard", "topics/agnews", "topics/trec", "science/scicite", "superglue/wic", "superglue/cb",
       *(f"tweets/stance_{name}" for name in STANCES), *(f"shopping/match_{name}" for name in MATCHES))  # fmt: skip
NEAR = tuple(f"shopping/reviews_{name}" for name in REVIEWS)


def main(
    learner: str = "default",  # the learner that is judged
    shots: tuple[int, ...] = (4, 8, 16),
    episodes: int = 10,
    rows: int = 1000,  # query rows a task at the most
    tasks: tuple[str, ...] = FAR,
    near: bool = False,  # the reviews too
    finetune: bool = False,  # plain LoRA too, which takes most of the time
    setfit: bool = False,  # SetFit too, which takes far more
    out: Path = Path("out/bench_default"),
) -> None:
    root = os.environ.get("METANLP_DATA")
    names = tasks + NEAR if near else tasks
    given = [task for name in names for task in read_role(name, "test", Path(root) if root else None, None)]
    judged = Learner.load(learner)
    judging, left_out = without_seen([with_test(task) for task in given], judged.seen)
    protocol = Protocol(shots, episodes, rows)
    generator = torch.Generator().manual_seed(0)
    nothing, untrained = judged.net.init(generator), Frozen().init(judged.net, generator)
    ours: dict[str, Learner | ExternalBaseline] = {
        "frozen": Learner(Frozen(), judged.net, untrained),
        **({"finetune": Learner(Finetune(), judged.net, judged.theta | nothing)} if finetune else {}),
        **({"setfit": SetFit("minilm", answer_cache=AnswerCache(out / KEPT))} if setfit else {}),
        "prototypes": replace(judged, algorithm=replace(judged.algorithm, classifier="prototypes")),
        "regression": replace(judged, algorithm=replace(judged.algorithm, classifier="logistic", c=30.0)),
        "default": judged,
    }
    alone = Backbone.load("minilm", views=("frozen.6.all",))
    plain = Frozen(classifier="logistic", c=1.0)
    logistic = Learner(plain, alone, plain.init(alone, torch.Generator().manual_seed(0)))
    parts = [meta_test(ours, judging, protocol, main="default"), meta_test({"logistic": logistic}, judging, protocol)]
    found = joined(parts, "default")
    write_json(out / "results.json", found.to_json() | {"seen_rows_left_out": left_out})
    show(found)


def with_test(task: Task) -> Task:
    """The task judged by its validation rows where it has no test rows."""
    pools = task.pools
    return (
        task
        if "test" in pools or "validation" not in pools
        else replace(task, pools=dict(pools, test=pools["validation"]))
    )


if __name__ == "__main__":
    tyro.cli(main)
