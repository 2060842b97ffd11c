"""Held-out tasks: adapt, score, compare. Every method sees the same support sets and query rows."""

from __future__ import annotations

import hashlib
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from metanlp.artefact import versions
from metanlp.config import to_json
from metanlp.errors import InputError
from metanlp.exams import Exam, Protocol, Support, check_shots, count_repeats
from metanlp.learner import Learner
from metanlp.metrics import Interval, calibration, interval, paired, score
from metanlp.recipe import describe
from metanlp.types import Task

# method -> task -> shots -> one entry an episode
Scores = dict[str, dict[str, dict[int, list[dict[str, float]]]]]


@dataclass(frozen=True)
class Report:
    """What was found, in the form of `results.json`: its only serial form."""

    protocol: dict[str, Any]  # shots, episodes, test rows, seed, episodes_sha256, what was left out and why
    versions: dict[str, str]
    methods: dict[str, dict[str, Any]]  # cost and recipe of each method
    scores: dict[str, dict[str, dict[str, dict[str, Any]]]]  # method -> task -> shots -> metric -> mean, low, high
    means: dict[str, dict[str, dict[str, Any]]]  # method -> shots -> metric, over tasks
    paired: list[dict[str, Any]]  # differences on the same episodes; task None is the mean over tasks
    curves: dict[str, Any] = field(default_factory=dict)  # method -> accuracy on validation tasks by inner step
    calibration: dict[str, dict[str, float]] = field(default_factory=dict)  # method -> shots -> expected error
    schema: int = 1


def meta_test(
    learners: Mapping[str, Learner],
    tasks: Sequence[Task],
    protocol: Protocol,
    *,
    main: str | None = None,
    tick: Callable[[], object] = lambda: None,
) -> Report:
    """Test several learners that share one backbone. `main` is compared with each of the others; by default the last.

    `tick` is called after every (task, support set, method). Raises InputError where no task can give the shots asked.
    """
    if (main or not learners) and main not in learners:
        raise InputError(f"main is {main!r}, the learners are {list(learners) or 'none'}; name one of them, or nothing")
    net = next(iter(learners.values())).net
    if any(learner.net is not net for learner in learners.values()):
        raise InputError("the learners to compare must share one backbone: load it once and hand it to all")
    check_shots(tasks, protocol.shots)
    found: Scores = {name: {} for name in learners}
    seconds: dict[str, list[float]] = {name: [] for name in learners}
    left_out: dict[str, Any] = {}
    digest = hashlib.sha256()
    for task in tasks:
        exam = Exam(task, net, protocol)
        digest.update(exam.fingerprint().encode())
        reasons = {str(k): reason for k, reason in exam.skipped.items()}
        left_out[task.name] = {"shots": reasons, "query_rows_in_support": count_repeats(exam)}
        for support in exam.supports:
            for name, learner in learners.items():
                entry, adapt_s = examine(learner, exam, support)
                found[name].setdefault(task.name, {}).setdefault(support.shots, []).append(entry)
                seconds[name].append(adapt_s)
                tick()
    if not any(found.values()):
        raise InputError(f"no test task can give any of {list(protocol.shots)} shots: {left_out}")
    asked = to_json(protocol) | {
        "episodes_sha256": digest.hexdigest(),
        "left_out": left_out,
        "metrics": _metrics(tasks),
    }
    methods = {name: _cost(learner, seconds[name]) for name, learner in learners.items()}
    curves = {name: learner.record["curve"] for name, learner in learners.items() if learner.record.get("curve")}
    return summed_up(asked, methods, found, main or list(learners)[-1], curves)


def examine(learner: Learner, exam: Exam, support: Support) -> tuple[dict[str, float], float]:
    """Metrics of one learner on one support set, and the seconds it took to adapt."""
    begun = time.perf_counter()
    phi = learner.algorithm.adapt(learner.net, learner.theta, support.batch)
    if learner.net.device.type == "cuda":
        torch.cuda.synchronize()
    adapt_s = time.perf_counter() - begun
    counted = ~support.excluded
    probabilities = exam.probabilities(learner.algorithm, phi)[counted]
    targets = exam.targets[counted]
    entry = score(probabilities.argmax(1), targets, exam.ways)
    return entry | {"ece": calibration(probabilities, targets)}, adapt_s


def count_trials(tasks: Sequence[Task], protocol: Protocol) -> int:
    """Support sets there will be at the most: what a progress bar needs beforehand."""
    return len(tasks) * len(protocol.shots) * protocol.episodes


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean with its 95 % interval, and the episodes it was made from."""
    return _interval(interval(np.array(values))) | {"episodes": [round(float(value), 6) for value in values]}


def summed_up(
    asked: dict[str, Any], methods: dict[str, Any], found: Scores, main: str, curves: dict[str, Any]
) -> Report:
    """Means, intervals and paired differences of what was found, `main` against each of the others."""
    scores = {
        name: {task: {str(k): _columns(entries) for k, entries in by_k.items()} for task, by_k in by_task.items()}
        for name, by_task in found.items()
    }
    shots = sorted({k for by_task in found.values() for by_k in by_task.values() for k in by_k})
    means = {name: {str(k): {"accuracy": summary(over_tasks(found[name], k))} for k in shots} for name in found}
    errors = {name: {str(k): float(np.mean(over_tasks(found[name], k, "ece"))) for k in shots} for name in found}
    pairs = [row for other in found if other != main for k in shots for row in _pairs(found, main, other, k)]
    return Report(asked, versions(), methods, scores, means, pairs, curves, errors)


def over_tasks(
    by_task: Mapping[str, Mapping[int, list[dict[str, float]]]], k: int, metric: str = "accuracy"
) -> list[float]:
    """Mean over tasks of each numbered episode: (E,). Tasks without k shots take no part."""
    columns = [[entry[metric] for entry in by_k[k]] for by_k in by_task.values() if k in by_k]
    count = min(map(len, columns))
    return [float(np.mean([column[e] for column in columns])) for e in range(count)]


def _pairs(found: Scores, a: str, b: str, k: int) -> list[dict[str, Any]]:
    """a − b on the same episodes: for each task and for the mean over tasks."""
    rows = []
    for task in [*(t for t in found[a] if k in found[a][t]), None]:
        sides = [over_tasks(found[m] if task is None else {task: found[m][task]}, k) for m in (a, b)]
        difference = paired(*map(np.array, sides))
        rows.append({"a": a, "b": b, "k": k, "task": task, "difference": difference.mean, "low": difference.low,
                     "high": difference.high})  # fmt: skip
    return rows


def _columns(entries: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {metric: summary([entry[metric] for entry in entries]) for metric in entries[0]}


def _interval(found: Interval) -> dict[str, float | None]:
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _cost(learner: Learner, adapt_s: Sequence[float]) -> dict[str, Any]:
    made = {key: learner.record.get(key, 0) for key in ("train_s", "tokens", "recipe_s", "steps", "skipped")}
    return made | {
        "adapt_s": float(np.median(adapt_s)),
        "peak_mb": peak_mb(),
        "parameters": sum(value.numel() for value in learner.theta.values()),
        "recipe": describe(learner.algorithm),
    }


def peak_mb() -> float:
    """Largest resident size of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _metrics(tasks: Sequence[Task]) -> dict[str, str]:
    return {task.name: task.metric for task in tasks}
