"""Held-out tasks: adapt, score, compare. Every method sees the same support sets and query rows."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metanlp.artefact import versions
from metanlp.config import to_json
from metanlp.errors import DamagedError, InputError
from metanlp.exams import Exam, Protocol, Support, check_forms, check_shots, count_repeats
from metanlp.forms import FORMS, Scored
from metanlp.insight import Insight
from metanlp.learner import Learner
from metanlp.metrics import Interval, interval, metric_of_means, paired
from metanlp.recipe import describe
from metanlp.rivals import Rival
from metanlp.rivals import examine as examine_rival
from metanlp.types import Task
from metanlp.weights import drop

RESULTS = "results.json"

# method -> task -> shots -> one entry an episode
Scores = dict[str, dict[str, dict[int, list[dict[str, float]]]]]


@dataclass(frozen=True)
class Report:
    """What was found, in the form of `results.json`: its only serial form."""

    protocol: dict[str, Any]  # shots, episodes, test rows, seed, episodes_sha256, what was left out and why
    versions: dict[str, str]  # of this package and those that it computes with
    methods: dict[str, dict[str, Any]]  # cost and recipe of each method
    scores: dict[str, dict[str, dict[str, dict[str, Any]]]]  # method -> task -> shots -> metric -> mean, low, high
    # method -> shots -> metric, over tasks: that of `protocol["metrics"]`, or `score` where tasks are judged by several
    means: dict[str, dict[str, dict[str, Any]]]
    paired: list[dict[str, Any]]  # differences on the same episodes; task None is the mean over tasks
    # method -> inner steps -> score on validation tasks: mean, low, high
    curves: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, dict[str, float]] = field(default_factory=dict)  # method -> shots -> expected error
    # method -> shots -> `answers`, the sum of their probabilities (`sure`), `right` ones: in each of 10 bins
    reliability: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    views: dict[str, Any] = field(default_factory=dict)  # of the main method: names, prior, tasks: their shares
    hardest: dict[str, Any] = field(default_factory=dict)  # the task it scored lowest on, and its confusions
    nearest: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # test task -> training tasks, cosines
    schema: int = 1  # of this file


def read_report(path: Path) -> Report:
    """`results.json`. Raises DamagedError where the file is no report."""
    try:
        found = Report(**json.loads(path.read_text(encoding="utf-8")))
        _ = [found.protocol[key] for key in ("episodes_sha256", "metrics", "left_out")]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DamagedError(f"{path} is damaged: {type(error).__name__} {error}; remove it") from error
    return found


def meta_test(
    learners: Mapping[str, Learner | Rival],
    tasks: Sequence[Task],
    protocol: Protocol,
    *,
    main: str | None = None,
    tick: Callable[[], object] = lambda: None,
    insight: Insight | None = None,
) -> Report:
    """Test several learners that share one backbone, and rivals, on the same support sets and query rows. `main` is
    compared with each of the others; by default it is the last learner.

    An `insight` that is handed in keeps the worst mistakes, which a Report has not. `tick` is called after every (task,
    support set, method). Raises InputError where no task can give the shots asked, or one is of a form
    that a rival does not know.
    """
    ours = checked(learners, tasks, main)
    check_shots(tasks, protocol.shots)
    net = next(iter(ours.values())).net
    found: Scores = {name: {} for name in learners}
    seconds: dict[str, list[float]] = {name: [] for name in learners}
    left_out: dict[str, Any] = {}
    main = main or list(ours)[-1]
    insight = insight or Insight(main)
    digest = hashlib.sha256()
    for task in tasks:
        exam = Exam(task, net, protocol)
        digest.update(exam.fingerprint().encode())
        reasons = {str(k): reason for k, reason in exam.skipped.items()}
        left_out[task.name] = {"shots": reasons, "query_rows_in_support": count_repeats(exam)}
        for support in exam.supports:
            for name, learner in learners.items():
                entry, adapt_s, scored = examine(learner, exam, support)
                found[name].setdefault(task.name, {}).setdefault(support.shots, []).append(entry)
                seconds[name].append(adapt_s)
                if scored:
                    insight.see(name, learner, exam, support, scored)
                tick()
        insight.done()
    if not any(found.values()):
        raise InputError(f"no test task can give any of {list(protocol.shots)} shots: {left_out}")
    asked = to_json(protocol) | {
        "episodes_sha256": digest.hexdigest(),
        "left_out": left_out,
        "metrics": judged_by(tasks),
    }
    methods = {name: _cost(learner, seconds[name]) for name, learner in learners.items()}
    curves = {name: learner.record["curve"] for name, learner in ours.items() if learner.record.get("curve")}
    return replace(summed_up(asked, methods, found, main, curves), **insight.record())


def checked(learners: Mapping[str, Learner | Rival], tasks: Sequence[Task], main: str | None) -> dict[str, Learner]:
    """The learners among them, of which `main` is one. Raises InputError."""
    ours = {name: learner for name, learner in learners.items() if isinstance(learner, Learner)}
    if (main or not ours) and main not in ours:
        raise InputError(f"main is {main!r}, the learners are {list(ours) or 'none'}; name one of them, or nothing")
    if len({id(learner.net) for learner in ours.values()}) > 1:
        raise InputError("the learners to compare must share one backbone: load it once and hand it to all")
    for name, rival in learners.items():
        if isinstance(rival, Rival):
            check_forms(name, rival.forms, tasks)
    return ours


def judged_by(tasks: Sequence[Task]) -> dict[str, str]:
    """The metric that counts, by task."""
    return {task.name: FORMS[task.form].metric for task in tasks}


def examine(learner: Learner | Rival, exam: Exam, support: Support) -> tuple[dict[str, float], float, Scored | None]:
    """Metrics of one learner on one support set, the seconds it took to adapt, what it said of every query row."""
    if isinstance(learner, Rival):
        return examine_rival(learner, exam, support)
    begun = time.perf_counter()
    phi = learner.algorithm.adapt(learner.net, learner.theta, support.batch)
    if learner.net.device.type == "cuda":
        torch.cuda.synchronize()
    adapt_s = time.perf_counter() - begun
    scored = exam.scores(learner.algorithm, phi)
    return exam.judge(scored, support), adapt_s, scored


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
    metrics: dict[str, str] = asked["metrics"]
    title = metric_of_means(metrics)
    means = {name: {str(k): {title: summary(over_tasks(found[name], k, metrics))} for k in shots} for name in found}
    pairs = [row for other in found if other != main for k in shots for row in _pairs(found, main, other, k, metrics)]
    errors = {name: _errors(by_task, shots) for name, by_task in found.items()}
    return Report(asked, versions(), methods, scores, means, pairs, curves, errors)


def over_tasks(
    by_task: Mapping[str, Mapping[int, list[dict[str, float]]]], k: int, metrics: Mapping[str, str]
) -> list[float]:
    """Mean over tasks of each numbered episode, each task by its metric: (E,). Tasks without k shots take no part."""
    columns = [[entry[metrics[task]] for entry in by_k[k]] for task, by_k in by_task.items() if k in by_k]
    count = min(map(len, columns))
    return [float(np.mean([column[e] for column in columns])) for e in range(count)]


def _errors(by_task: Mapping[str, Mapping[int, list[dict[str, float]]]], shots: Sequence[int]) -> dict[str, float]:
    """Expected calibration error by shots, over the tasks whose answers have a probability."""
    sure = {
        task: by_k for task, by_k in by_task.items() if all("ece" in entry for part in by_k.values() for entry in part)
    }
    at = [k for k in shots if any(k in by_k for by_k in sure.values())]
    return {str(k): float(np.mean(over_tasks(sure, k, dict.fromkeys(sure, "ece")))) for k in at}


def _pairs(found: Scores, a: str, b: str, k: int, metrics: Mapping[str, str]) -> list[dict[str, Any]]:
    """a − b on the same episodes: for each task and for the mean over tasks."""
    rows = []
    for task in [*(t for t in found[a] if k in found[a][t]), None]:
        sides = [over_tasks(found[m] if task is None else {task: found[m][task]}, k, metrics) for m in (a, b)]
        difference = paired(*map(np.array, sides))
        rows.append({"a": a, "b": b, "k": k, "task": task, "difference": difference.mean, "low": difference.low,
                     "high": difference.high})  # fmt: skip
    return rows


def _columns(entries: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {metric: summary([entry[metric] for entry in entries]) for metric in entries[0]}


def _interval(found: Interval) -> dict[str, float | None]:
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _cost(learner: Learner | Rival, adapt_s: Sequence[float]) -> dict[str, Any]:
    ours = isinstance(learner, Learner)
    record = learner.record if ours else {}
    made = {key: record.get(key, 0) for key in ("train_s", "tokens", "recipe_s", "steps", "skipped")}
    made |= {"adapt_s": float(np.median(adapt_s)), "peak_mb": peak_mb()}
    if ours:
        return made | {"parameters": learned(learner), "recipe": describe(learner.algorithm)}
    return made | {"parameters": 0, "recipe": dict(learner.settings()), **learner.spent()}


def learned(learner: Learner) -> int:
    """Numbers in what training tasks taught: θ without these tasks' own heads, which adapt to nothing; 0 where nothing
    was taught."""
    return sum(w.numel() for w in drop(learner.theta, "tasks/").values()) if learner.record.get("tokens") else 0


def peak_mb() -> float:
    """Largest resident size of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
