"""What a run will take, said before it begins: up to three meta-steps and two trials are timed and thrown away.

A step through a model takes time in proportion to its tokens. So two rates are measured, seconds a token forward and
seconds a token of an inner step, and multiplied by the tokens that validations, the recipe search and the tests will
ask for. These tokens are estimated from the bytes of the texts, on both sides alike, so that nothing is tokenised for
it. Nothing that is drawn for the run is drawn here: its bits stay the same.

Left out: what a launcher's processes lose to each other; logistic regressions of `frozen`; the page; a run that ends
early because validation gets worse.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch

from metanlp.algorithms import ALGORITHMS, BASELINES, Algorithm
from metanlp.core.types import Task, Weights
from metanlp.episodes.sampling import row_length
from metanlp.evaluation.held_out import HeldOutTask, Protocol, Support
from metanlp.evaluation.meta_test import examine
from metanlp.evaluation.recipe_search import steps_to_try
from metanlp.experiment.prepare import Run, make, methods, spread
from metanlp.learner.learner import Learner
from metanlp.training.meta_train import Plan, meta_step
from metanlp.training.rate_search import ALL, RATES
from metanlp.training.task_heads import TaskHeads

LOOKED_AT = 16  # episodes whose tokens are counted
BUDGET = 3.0  # seconds after which no other meta-batch is begun
PYTHON = 500_000_000  # bytes of Python and its libraries
UNITS = ((100, 1, "seconds"), (7_200, 60, "minutes"), (float("inf"), 3_600, "hours"))


@dataclass(frozen=True)
class Forecast:
    """Seconds, but for the last four."""

    training: float  # of all methods, with their validations and the search of their rates
    search: float  # of the adaptation recipes
    tests: float
    memory: int  # bytes
    tokens: int  # of each trained method, forward and backward
    others: tuple[str, ...] = ()  # methods that nothing is known of beforehand
    folds: int = 1  # runs of this kind, each of so many bytes and tokens

    def __str__(self) -> str:
        total = self.training + self.search + self.tests
        size, unit = next((size, unit) for below, size, unit in UNITS if total < below)
        digits = 0 if total / size >= 10 else 1
        said = [f"{part / size:.{digits}f}" for part in (total, self.training, self.search, self.tests)]
        beside = f", without {', '.join(self.others)}" if self.others else ""
        beside += f", {self.folds} tasks left out in turn" if self.folds > 1 else ""
        return (
            f"about {said[0]} {unit} (training {said[1]}, recipes {said[2]}, tests {said[3]}){beside}, "
            f"{self.memory / 1e9:.1f} GB, {self.tokens / 1e6:.2g} M tokens a method"
        )


@dataclass(frozen=True)
class Pace:
    """What was measured: seconds."""

    step: float  # a meta-step of mean length
    tokens: float  # of such a step; a number
    forward: float  # a token, without gradients
    inner: float  # a token in an inner step


@dataclass(frozen=True)
class Load:
    """Trials on one task."""

    count: int  # support sets
    support: float  # tokens of all of them
    query: float  # tokens of the query rows

    def seconds(self, algorithm: Algorithm, pace: Pace, steps: int | None = None, looks: int = 1) -> float:
        """To adapt to each support set by so many steps, by default the method's, and to score the query rows after
        some of them."""
        moving = (algorithm.inner.steps if steps is None else steps) if algorithm.inner.lr else 0
        runs = looks * self.count if moving else 1  # a head alone needs the features only once
        return self.support * (pace.forward + moving * pace.inner) + runs * self.query * pace.forward


def foretell(shared: Run, plan: Plan, folds: int = 1) -> Forecast:
    """Measures, and adds up, for so many runs like this. θ, and all that is drawn for the run, stay as they are."""
    asked, names = shared.asked, [name for name in methods(shared.asked) if name in ALGORITHMS]
    made = {name: make(name, asked) for name in names}
    pace = measured(shared, made[asked.method], plan)
    trials, few = (loads_of(shared, some) for some in (shared.trials, spread(shared.trials, asked.search_trials)))
    tests = [load_of_test(task, shared) for task in shared.roles.test]
    tested = [*made.values(), *([shared.start.algorithm] if shared.start else [])]
    prepared = pace.forward * sum(test.query + test.support for test in tests)  # their trunks
    look = {
        name: sum(load.seconds(one, pace) for load in trials) / shared.ranks.size
        for name, one in made.items()
        if name not in BASELINES
    }
    more, tries = (ALL, len(RATES)) if asked.lr == "auto" else (0.0, 0)  # training and looks that the rates take
    looked = plan.validations * look[asked.method]
    steps = max(0.0, 60 * plan.minutes / (1 + more) - looked) / pace.step if plan.minutes else plan.steps or 0
    return Forecast(
        training=folds
        * sum((1 + more) * steps * pace.step + (plan.validations + tries) * each for each in look.values()),
        search=folds * sum(searching(one, pace, few) for one in made.values()),
        tests=folds * (sum(load.seconds(one, pace) for one in tested for load in tests) + prepared),
        memory=shared.needed.total + PYTHON,
        tokens=round((1 + more) * steps * pace.tokens),
        others=tuple(name for name in methods(asked) if name not in ALGORITHMS),
        folds=folds,
    )


def searching(algorithm: Algorithm, pace: Pace, loads: Iterable[Load]) -> float:
    """Seconds of the recipe search: each setting, scored after several numbers of steps."""
    marks = [step for step in steps_to_try(algorithm) if step]
    return sum(
        load.seconds(one, pace, min(one.inner.steps, max(marks)), sum(step <= one.inner.steps for step in marks))
        for load in loads
        for one in algorithm.recipes()
    )


def measured(shared: Run, algorithm: Algorithm, plan: Plan) -> Pace:
    """Times a process's share of a few meta-batches, the first of them for warming up where there is time for more;
    then a trial."""
    net, episodes, alone = shared.net, shared.episodes, replace(shared.ranks, index=0, size=1)
    theta = algorithm.init(net, torch.Generator().manual_seed(shared.asked.seed))
    heads = TaskHeads(algorithm, net, plan.weight_decay, net.device)
    passes = plan.meta_batch // plan.tasks_per_pass
    share = replace(plan, meta_batch=-(-passes // shared.ranks.size) * plan.tasks_per_pass)
    lengths = [len(p.support.ids) + len(p.query.ids) for p in (build() for build in episodes.passes(0, LOOKED_AT, 1))]
    timed: list[tuple[float, int, int]] = []  # seconds, tokens that the method counts, tokens of its episodes
    while len(timed) < 3 and sum(seconds for seconds, *_ in timed) < BUDGET:
        number, begun = len(timed), time.perf_counter()
        mine = range(number * share.meta_batch, (number + 1) * share.meta_batch)
        guided = theta | heads.of(episodes.drawn(mine.start, len(mine)))
        tokens = meta_step(algorithm, net, guided, episodes, share, number, alone)[2]
        timed.append((time.perf_counter() - begun, tokens, sum(lengths[n % LOOKED_AT] for n in mine)))
    seconds, counted, raw = np.array(timed[1:] or timed).sum(axis=0)
    usual = float(np.mean(lengths)) * share.meta_batch / raw
    forward, inner = trial_pace(shared, algorithm, theta)
    return Pace(usual * seconds, usual * counted * plan.meta_batch / share.meta_batch, forward, inner)


def trial_pace(shared: Run, algorithm: Algorithm, theta: Weights) -> tuple[float, float]:
    """Seconds a token forward, and of an inner step, from a trial on a validation task, or a test task if there are
    none."""
    protocol = Protocol(shared.asked.shots, 2, 64, seed=shared.asked.seed + 1)
    tasks = (HeldOutTask(t, shared.net, protocol) for t in (*shared.roles.validation, *shared.roles.test))
    held_out = next(each for each in tasks if each.supports)
    _ = held_out.chunks  # made once for all trials
    adapt_s = scoring = 0.0
    last = held_out.supports[-1]
    for support in (held_out.supports[0], last):  # a first time is slower, and a second look at the same is none
        begun = time.perf_counter()
        _, adapt_s, _ = examine(Learner(algorithm, shared.net, theta), held_out, support)
        scoring = time.perf_counter() - begun - adapt_s
    length = row_length(held_out.task, shared.net.options.max_length)
    forward = scoring / (len(held_out.rows) * length)
    backward = adapt_s / (len(last.keys) * length) - forward
    return forward, max(backward / algorithm.inner.steps, forward) if algorithm.inner.steps else 3 * forward


def loads_of(shared: Run, trials: Iterable[tuple[HeldOutTask, Support]]) -> list[Load]:
    """Validation trials, by task."""
    tasks: dict[str, tuple[HeldOutTask, list[int]]] = {}  # with the rows of its support sets
    for held_out, support in trials:
        tasks.setdefault(held_out.task.name, (held_out, []))[1].append(len(support.keys))
    found: list[Load] = []
    for held_out, rows in tasks.values():
        length = row_length(held_out.task, shared.net.options.max_length)
        found.append(Load(len(rows), sum(rows) * length, len(held_out.rows) * length))
    return found


def load_of_test(task: Task, shared: Run) -> Load:
    """What the protocol will ask of a test task."""
    asked, length = shared.asked, row_length(task, shared.net.options.max_length)
    shots = [k for k in asked.shots if not task.supports or k in task.supports]
    sets = [min(len(task.supports.get(k, ())) or asked.episodes, asked.episodes) for k in shots]
    rows = sum(n * k for n, k in zip(sets, shots, strict=True)) * max(1, len(task.labels))
    queries = len(task.pools.get("test", task.pools["train"]))
    return Load(sum(sets), rows * length, min(queries, asked.test_rows or queries) * length)
