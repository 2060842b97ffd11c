"""What a run will take, said before it begins: one meta-step and one validation trial are timed and thrown away.

A step through a model takes time in proportion to its tokens. So two rates are measured, seconds a token forward and
seconds a token of an inner step, and multiplied by the tokens that validations, the recipe search and the tests will
ask for. These tokens are estimated from the bytes of the texts, on both sides alike, so that nothing is tokenised for
it. Nothing that is drawn for the run is drawn here: its bits stay the same.

Left out: what a launcher's processes lose to each other; logistic regressions of `frozen`; the page; a run that ends
early because validation gets worse.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from metanlp.algorithms import ALGORITHMS, BASELINES, Algorithm
from metanlp.episodes import row_length
from metanlp.exams import Exam, Protocol, Support
from metanlp.learner import Learner
from metanlp.meta_test import examine
from metanlp.meta_train import Plan, meta_step
from metanlp.preparation import Run, make, methods, spread
from metanlp.recipe import steps_to_try
from metanlp.types import Task, Weights

LOOKED_AT = 16  # episodes whose tokens are counted
PYTHON = 500_000_000  # bytes of Python and its libraries
UNITS = ((100, 1, "seconds"), (7_200, 60, "minutes"), (float("inf"), 3_600, "hours"))


@dataclass(frozen=True)
class Forecast:
    """Seconds, but for the last three."""

    training: float  # of all methods, with their validations
    search: float  # of the adaptation recipes
    tests: float
    memory: int  # bytes
    tokens: int  # of each trained method, forward and backward
    others: tuple[str, ...] = ()  # methods that nothing is known of beforehand

    def __str__(self) -> str:
        total = self.training + self.search + self.tests
        size, unit = next((size, unit) for below, size, unit in UNITS if total < below)
        shown = (f"{part / size:.{0 if total / size >= 10 else 1}f}"
                 for part in (total, self.training, self.search, self.tests))  # fmt: skip
        whole, training, search, tests = shown
        beside = f", without {', '.join(self.others)}" if self.others else ""
        return (
            f"about {whole} {unit} (training {training}, recipes {search}, tests {tests}){beside}, "
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

    def seconds(self, algorithm: Algorithm, pace: Pace, steps: int, looks: int = 1) -> float:
        """To adapt to each support set by so many steps, and to score the query rows after some of them; where adapters
        don't move, they are run through the model only once."""
        moving = steps if algorithm.inner.lr else 0  # a head alone needs the features only once
        runs = looks * self.count if moving else 1
        return self.support * (pace.forward + moving * pace.inner) + runs * self.query * pace.forward


def foretell(shared: Run, plan: Plan) -> Forecast:
    """Measures, and adds up. θ, and all that is drawn for the run, stay as they are."""
    asked, names = shared.asked, [name for name in methods(shared.asked) if name in ALGORITHMS]
    made = {name: make(name, asked, shared.roles.train) for name in names}
    pace = measured(shared, made[asked.method], plan)
    trials, few = (loads_of(shared, some) for some in (shared.trials, spread(shared.trials, asked.search_trials)))
    tests = [load_of_test(task, shared) for task in shared.roles.test]
    prepared = pace.forward * sum(test.query + test.support for test in tests)  # their trunks
    looks = {name: plan.validations * adapting(one, pace, trials) / shared.ranks.size for name, one in made.items()}
    main = 60 * plan.minutes if plan.minutes else (plan.steps or 0) * pace.step + looks[asked.method]
    steps = (main - looks[asked.method]) / pace.step
    others = [main - looks[asked.method] + looks[name] for name in names if name not in (*BASELINES, asked.method)]
    return Forecast(
        training=main + sum(others),
        search=sum(searching(one, pace, few) for one in made.values()),
        tests=sum(adapting(one, pace, tests) for one in made.values()) + prepared,
        memory=shared.needed.total + PYTHON,
        tokens=round(max(0.0, steps) * pace.tokens),
        others=tuple(name for name in methods(asked) if name not in ALGORITHMS),
    )


def adapting(algorithm: Algorithm, pace: Pace, loads: Iterable[Load]) -> float:
    """Seconds to adapt to all support sets and to score after each."""
    return sum(load.seconds(algorithm, pace, algorithm.inner.steps) for load in loads)


def searching(algorithm: Algorithm, pace: Pace, loads: Iterable[Load]) -> float:
    """Seconds of the recipe search: each setting, scored after several numbers of steps."""
    marks = [step for step in steps_to_try(algorithm) if step]
    return sum(
        load.seconds(one, pace, min(one.inner.steps, max(marks)), sum(step <= one.inner.steps for step in marks))
        for load in loads
        for one in algorithm.recipes()
    )


def measured(shared: Run, algorithm: Algorithm, plan: Plan) -> Pace:
    """Times a process's share of the first meta-batch, once more where that was quick, as a first time is slower; then
    a trial."""
    net, episodes, alone = shared.net, shared.episodes, replace(shared.ranks, index=0, size=1)
    theta = algorithm.init(net, torch.Generator().manual_seed(shared.asked.seed))
    passes = plan.meta_batch // plan.tasks_per_pass
    share = replace(plan, meta_batch=-(-passes // shared.ranks.size) * plan.tasks_per_pass)
    lengths = [len(p.support.ids) + len(p.query.ids) for p in (build() for build in episodes.passes(0, LOOKED_AT, 1))]

    def timed_step() -> tuple[float, int]:
        begun = time.perf_counter()
        tokens = meta_step(algorithm, net, theta, episodes, share, 0, alone)[2]
        return time.perf_counter() - begun, tokens

    seconds, tokens = timed_step()
    if seconds < 1:
        seconds, tokens = timed_step()
    timed = [lengths[n % LOOKED_AT] for n in range(share.meta_batch)]
    usual = float(np.mean(lengths) / np.mean(timed))
    forward, inner = trial_pace(shared, algorithm, theta)
    return Pace(usual * seconds, usual * tokens * plan.meta_batch / share.meta_batch, forward, inner)


def trial_pace(shared: Run, algorithm: Algorithm, theta: Weights) -> tuple[float, float]:
    """Seconds a token forward, and of an inner step, from one trial."""
    exam, *supports = a_task(shared)
    _ = exam.chunks  # made once for all trials
    adapt_s = scoring = 0.0
    for support in supports:  # the last one counts: a first time is slower, and a second look at the same is none
        begun = time.perf_counter()
        _, adapt_s, _ = examine(Learner(algorithm, shared.net, theta), exam, support)
        scoring = time.perf_counter() - begun - adapt_s
    length = row_length(exam.task, shared.net.options.max_length)
    forward = scoring / (len(exam.rows) * length)
    backward = adapt_s / (len(supports[-1].keys) * length) - forward
    return forward, max(backward / algorithm.inner.steps, forward) if algorithm.inner.steps else 3 * forward


def a_task(shared: Run) -> tuple[Exam, Support, Support]:
    """A validation task with two of its support sets, or a test task where there are none."""
    asked, tasks = shared.asked, (*shared.roles.validation, *shared.roles.test)
    protocol = Protocol(asked.shots, 2, 64, seed=asked.seed + 1)
    exams = (Exam(task, shared.net, protocol) for task in tasks)
    return next((exam, exam.supports[0], exam.supports[-1]) for exam in exams if exam.supports)


def loads_of(shared: Run, trials: Sequence[tuple[Exam, Support]]) -> list[Load]:
    """Validation trials, by task."""
    exams = {exam.task.name: exam for exam, _ in trials}
    counts = Counter(exam.task.name for exam, _ in trials)
    rows = Counter(dict.fromkeys(exams, 0))
    for exam, support in trials:
        rows[exam.task.name] += len(support.keys)
    length = {name: row_length(exam.task, shared.net.options.max_length) for name, exam in exams.items()}
    return [Load(counts[n], rows[n] * length[n], len(exam.rows) * length[n]) for n, exam in exams.items()]


def load_of_test(task: Task, shared: Run) -> Load:
    """What the protocol will ask of a test task."""
    asked, length = shared.asked, row_length(task, shared.net.options.max_length)
    shots = [k for k in asked.shots if not task.supports or k in task.supports]
    sets = [len(task.supports.get(k, ())) or asked.episodes for k in shots]
    rows = sum(min(n, asked.episodes) * k for n, k in zip(sets, shots, strict=True)) * max(1, len(task.labels))
    queries = len(task.pools.get("test", task.pools["train"]))
    count = sum(min(n, asked.episodes) for n in sets)
    return Load(count, rows * length, min(queries, asked.test_rows or queries) * length)
