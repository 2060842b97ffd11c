"""What the settings that a learner has learned give over the same ones set by hand:

    METANLP_DATA=DATA python recipes/bench/learned_settings.py --out out/learned_settings

The learner is judged on held-out tasks as it is, and beside it with one kind of setting at a time put back to where its
training began: the weights of views, the trust in a support set's evidence about them, the scale of scores (their
temperature), the penalty of regressions, the inner rates; and the recipe (inner steps and what
reads the features); at last all of them. Adapters stay.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch
import tyro

from metanlp import Learner
from metanlp.algorithms import Algorithm
from metanlp.core.progress import Progress
from metanlp.evaluation.held_out import Protocol
from metanlp.evaluation.meta_test import count_trials, meta_test
from metanlp.experiment.run import write_json
from metanlp.report.tables import show
from metanlp.tasks.roles import read_role

SETTINGS = {
    "views": "views/prior",
    "trust": "views/trust",
    "scale": "head/scale",
    "penalty": "head/penalty",
    "rates": "rates/",
}
"""By their names, a part of the keys of θ that hold them."""


def main(
    learner: str = "default",
    base: str | None = None,  # another place for its pretrained model
    test: tuple[str, ...] = ("leopard",),
    shots: tuple[int, ...] = (4, 8, 16),
    episodes: int = 10,  # support sets a task
    rows: int = 500,  # query rows a task at the most
    out: Path = Path("out/learned_settings"),
) -> None:
    learned, root = Learner.load(learner, base=base), os.environ.get("METANLP_DATA")
    tasks = [task for name in test for task in read_role(name, "test", Path(root) if root else None, None)]
    judged, protocol = {"learned": learned, **by_hand(learned)}, Protocol(shots, episodes, rows)
    with Progress("test") as progress:
        tick = progress.ticks(len(judged) * count_trials(tasks, protocol))
        found = meta_test(judged, tasks, protocol, main="learned", tick=tick)
    show(found)
    write_json(out / "results.json", found.to_json())


def by_hand(learned: Learner) -> dict[str, Learner]:
    """The learner with each kind of setting put back, by its name, and with all."""
    start = learned.algorithm.init(learned.net, torch.Generator().manual_seed(0))
    held = {name: {key: start[key] for key in learned.theta if part in key and key in start}
            for name, part in SETTINGS.items()}  # fmt: skip
    theta = {name: learned.theta | back for name, back in held.items() if back}
    found = {name: Learner(learned.algorithm, learned.net, each) for name, each in theta.items()}
    untaught = by_default(learned.algorithm)
    if untaught != learned.algorithm:
        found["recipe"] = Learner(untaught, learned.net, learned.theta)
    everything = learned.theta | {key: value for back in held.values() for key, value in back.items()}
    return found | {"all": Learner(untaught, learned.net, everything)}


def by_default(algorithm: Algorithm) -> Algorithm:
    """The method with the inner steps, rates and classifier of its paper, in place of those that validation chose."""
    plain = type(algorithm)()
    return replace(
        algorithm, **{name: getattr(plain, name) for name in ("inner", "classifier") if hasattr(plain, name)}
    )


if __name__ == "__main__":
    tyro.cli(main)
