"""The rate of the outer loop, for each method its own: short runs at several rates, judged on validation tasks."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from metanlp.core import storage
from metanlp.core.errors import DivergedError
from metanlp.core.intervals import as_good
from metanlp.core.outputs import CHECKPOINTS, RATE_RUNS, RATE_SEARCH
from metanlp.core.types import Weights
from metanlp.learner.learner import Learner
from metanlp.training import checkpoint
from metanlp.training.plan import Plan
from metanlp.training.processes import Ranks

RATES = (1e-3, 5e-4, 2e-3)  # highest rates of AdamW; of those that validation can't tell from the best, the first
SHARE = 0.06  # of the training that follows, for each rate
ALL = SHARE * len(RATES)

Train = Callable[..., Learner]
"""`meta_train` of a method, but for plan, folder and name."""
Validate = Callable[[Weights], Sequence[float]]


@dataclass(frozen=True)
class RateSearch:
    """What was found, and what it took."""

    lr: float  # the rate chosen
    scores: dict[str, float | None]  # mean score on the validation trials, by rate; None for one that fails
    tokens: int  # of all short runs, forward and backward
    seconds: float  # of short runs and their validations

    @property
    def record(self) -> dict[str, Any]:
        """What a learner says of it, beside its rate."""
        return {"rate_scores": self.scores, "rate_tokens": self.tokens, "rate_s": self.seconds}

    def __str__(self) -> str:
        said = {rate: "fails" if score is None else f"{100 * score:.1f} %" for rate, score in self.scores.items()}
        return f"{self.lr:g}; on validation tasks " + ", ".join(f"{rate}: {score}" for rate, score in said.items())


@dataclass(frozen=True)
class _Tried:
    """One short run."""

    trials: np.ndarray | None  # score of each validation trial; None where texts became alike or the run diverged
    tokens: int
    seconds: float


def search_rate(
    train: Train,
    validate: Validate,
    plan: Plan,
    folder: Path,
    name: str,
    ranks: Ranks,
    rates: Sequence[float] = RATES,
) -> RateSearch:
    """The rate for a training by this plan, which then begins anew, as if it had been given the rate.

    A short run is the plan in small, with its whole schedule. The first of `rates` is taken that is within one standard
    error of the best: short runs say little of long ones (Wu et al. 2018, arXiv 1803.02021). What `folder` holds of a
    search is taken from there. Raises DivergedError where every rate fails."""
    path, runs = folder / RATE_SEARCH, folder / RATE_RUNS
    if known := ranks.on_main(lambda: path.read_text() if path.is_file() else ""):
        return RateSearch(**json.loads(known))
    tried: dict[float, _Tried] = {}
    for rate in rates:
        place = runs / f"{rate:g}"
        short = {"plan": _short(plan, rate), "folder": place, "name": f"{name} at {rate:g}"}
        tried[rate] = _tried(lambda given=short: train(**given), validate, place, ranks)
    found = RateSearch(
        _best({rate: each.trials for rate, each in tried.items() if each.trials is not None}),
        {f"{rate:g}": None if (s := tried[rate].trials) is None else float(s.mean()) for rate in sorted(rates)},
        sum(each.tokens for each in tried.values()),
        sum(each.seconds for each in tried.values()),
    )
    ranks.on_main(lambda: storage.atomic_write(path, (json.dumps(asdict(found), indent=1) + "\n").encode()))
    ranks.on_main(lambda: shutil.rmtree(runs, ignore_errors=True))
    return found


def whole(plan: Plan, lr: float) -> Plan:
    """The training at the rate that was found: the plan, without the minutes that the search took."""
    return replace(plan, lr=lr, minutes=plan.minutes and plan.minutes / (1 + ALL))


def _short(plan: Plan, rate: float) -> Plan:
    plan = whole(plan, rate)
    steps, tokens = (length and math.ceil(SHARE * length) for length in (plan.steps, plan.tokens))
    minutes = plan.minutes and SHARE * plan.minutes
    return replace(plan, steps=steps, tokens=tokens, minutes=minutes, validations=0, checkpoints=2)


def _tried(run: Callable[[], Learner], validate: Validate, folder: Path, ranks: Ranks) -> _Tried:
    try:
        learner = run()
    except DivergedError:
        newest = checkpoint.newest(folder / CHECKPOINTS)
        assert newest is not None  # a run that diverges saves one
        state = ranks.on_main(lambda: checkpoint.load(newest)[1]["state"])
        return _Tried(None, state["tokens"], state["seconds"])
    begun, record = time.perf_counter(), learner.record
    trials = None if record["collapses"] else np.array(validate(learner.theta))
    return _Tried(trials, record["tokens"], record["train_s"] + time.perf_counter() - begun)


def _best(scores: dict[float, np.ndarray]) -> float:
    """The first rate that is as good as the best."""
    if not scores:
        raise DivergedError("at every rate training collapses or diverges; give a lower --lr")
    best = max(scores.values(), key=np.mean)
    return next(rate for rate, each in scores.items() if as_good(each, best))
