"""The shopping guide: an experiment on product tasks, then rankings for simulated shoppers by everything it trained."""

from __future__ import annotations

from dataclasses import replace

from metanlp.backbone.pretrained import MINILM
from metanlp.core import storage
from metanlp.core.progress import Progress
from metanlp.core.torch_modes import own_modes
from metanlp.evaluation import answers
from metanlp.evaluation.external import EXTERNAL, ExternalBaseline
from metanlp.evaluation.results import RESULTS, Report
from metanlp.evaluation.shoppers import Market, rank_for, shoppers_of
from metanlp.experiment.options import ShoppingGuide
from metanlp.experiment.prepare import external_baselines, methods, roles_of
from metanlp.experiment.run import folder_of, run, settled, write_json
from metanlp.learner.artefact import DEFAULT
from metanlp.learner.learner import Learner
from metanlp.report.page import PAGE, write_page
from metanlp.report.rankings import rankings_json, show_rankings
from metanlp.report.tables import say

PLAIN = "logistic"  # the tuned plain model that the others are held against


@own_modes()
def shopping_guide(asked: ShoppingGuide) -> Report | None:
    """Everything that `run` does, and the rankings, in `results.json` as `protocol["guide"]` and on the page. Returns
    the report, on rank 0. Raises InputError, DivergedError, StorageError, StoppedError."""
    market = Market(asked.ticks, asked.draws, asked.listed, asked.praise, asked.seed)
    settled(asked)
    roles = roles_of(asked, asked.test)
    shoppers = shoppers_of(roles.test, market)  # before the minutes that training takes
    found = run(asked, roles)
    if found is None:
        return None
    with storage.lock(asked.out):
        known = rankers(asked)
        with Progress("rank") as progress:
            rankings = rank_for(shoppers, known, market, progress.ticks(len(shoppers) * len(known)))
        reference = PLAIN if PLAIN in known else next(iter(known))
        about = {"listed": asked.listed, "draws": asked.draws, "praise": asked.praise, "reference": reference}
        found = replace(found, protocol=found.protocol | {"guide": rankings_json(rankings, reference, about)})
        write_json(asked.out / RESULTS, answers.to_json(found))
        show_rankings(rankings, reference)
        if asked.page:
            write_page(asked.out)
            say({"report": str(asked.out / PAGE)})
    return found


def rankers(asked: ShoppingGuide) -> dict[str, Learner | ExternalBaseline]:
    """What the run compared; with minilm also the learner that comes with the package, which saw other tasks."""
    others, net = external_baselines(asked), None
    ready = {DEFAULT: Learner.load(DEFAULT)} if asked.model in ("minilm", MINILM) else {}
    made: dict[str, Learner | ExternalBaseline] = {**ready}
    for name in methods(asked):
        if name in EXTERNAL:
            made[name] = others[name]
            continue
        learner = Learner.load(folder_of(asked, name), base=asked.model, net=net)
        made[name], net = learner, learner.net
    return made
