"""Leave one task out: each task of --data judges once, after a training on all the others.

One experiment a task, in `OUT/TASK/`, with everything that an experiment leaves; over all of them `OUT/results.json`.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import itemgetter, or_
from statistics import fmean
from typing import Any

import numpy as np

from metanlp.backbone.pretrained import MINILM
from metanlp.core import storage
from metanlp.core.errors import InputError
from metanlp.core.progress import part
from metanlp.core.settings import require_same
from metanlp.core.types import Roles
from metanlp.evaluation.answers import STARTS
from metanlp.evaluation.external import EXTERNAL
from metanlp.evaluation.held_out import check_shots
from metanlp.evaluation.results import RESULTS, Report, read_report
from metanlp.experiment import run as experiment
from metanlp.experiment.options import NOTHING, Experiment
from metanlp.experiment.prepare import NOT_META_TRAINED, roles_of
from metanlp.experiment.start import learners_of, settled_start
from metanlp.learner.artefact import DEFAULT, located
from metanlp.learner.seen import nothing_seen, seen_in
from metanlp.report.tables import in_a_line, say
from metanlp.tasks.leaks import without_seen
from metanlp.training.processes import Ranks


def run(asked: Experiment) -> Report:
    """Every task of --data in turn. With --resume those that are done stay as they are. Raises InputError."""
    experiment.settled(asked)
    experiment.output_of(asked).check()
    if (ranks := Ranks.start(threads=asked.threads)).size > 1:
        raise InputError(f"--test {asked.test} runs on one process, here are {ranks.size}; start it without a launcher")
    folds = leave_one_out(roles_of(asked, None))
    asked = settled_start(asked, [*folds.values()])
    seen = seen_in(located(asked.start)) if asked.start else nothing_seen()
    for roles in folds.values():  # now, as the last of them should not spoil hours
        check_shots(without_seen(roles.test, seen)[0], asked.shots)
    with storage.lock(asked.out):
        reports: dict[str, Report] = {}
        for number, (name, roles) in enumerate(folds.items(), start=1):
            fold = replace(asked, out=asked.out / name)
            anew = () if reports else (asked.out, *(asked.out / other for other in folds))
            with part(f"{number} of {len(folds)}"):
                found = done(fold) or experiment.run(fold, roles, anew=anew, fold=number, folds=len(folds))
            assert found is not None  # one process is rank 0
            reports[name] = found
            say({f"{number} of {len(folds)}, {name} left out": in_a_line(found)})
        found = combined(reports, asked.method)
        # Each has learned from all tasks but one; the first stands for all.
        first = replace(asked, out=asked.out / next(iter(folds)))
        kept = {name: experiment.folder_of(first, name) for name in experiment.methods(asked) if name not in EXTERNAL}
        learners, train = learners_of(asked.start, kept), {name: training(asked, name) for name in kept}
        train = {name: command for name, command in train.items() if name not in NOT_META_TRAINED}
        local = experiment.save(found, asked.out, {}, learners, asked.page, train=train)
        experiment.tell(found, asked.out, local, overview=asked.overview)
    return found


def training(asked: Experiment, method: str) -> str:
    """The command that trains a method on all tasks, none of them left out."""
    words = ["metanlp", "train", "--data", asked.data, "--method", method]
    if asked.model not in ("minilm", MINILM):
        words += ["--model", asked.model]
    if asked.start != DEFAULT:
        words += ["--start", asked.start or NOTHING]
    if asked.columns:
        words += ["--columns", asked.columns]
    if asked.drop_repeats:
        words += ["--drop-repeats"]
    return shlex.join([*words, "--out", f"{asked.out}-{method}"])


def leave_one_out(roles: Roles) -> dict[str, Roles]:
    """Task -> the roles in which it alone judges. Raises InputError where nothing would be left to teach."""
    if len(roles.train) < 2:
        raise InputError("--data has one task to train on; without it none is left, so give two or more")
    return {
        task.name: Roles(tuple(other for other in roles.train if other is not task), roles.validation, (task,))
        for task in roles.train
    }


def done(fold: Experiment) -> Report | None:
    """What a run before found, where --resume may take it. Raises InputError where it was asked something else,
    DamagedError where its file is no report."""
    path = fold.out / RESULTS
    if not (fold.resume and path.is_file()):
        return None
    found = read_report(path)
    require_same(fold.out, found.protocol.get("asked", {}), json.loads(json.dumps(experiment.shown(fold))))
    return found


def combined(reports: Mapping[str, Report], main: str) -> Report:
    """One report over all tasks: their tables one below the other."""
    every = list(reports.values())
    first, protocols = every[0], [each.protocol for each in every]
    merged = {key: reduce(or_, (each[key] for each in protocols)) for key in ("left_out", "metrics", "sources")}
    shas = "".join(each["episodes_sha256"] for each in protocols)
    rows_left_out = {task: each.protocol["training_rows_left_out"] for task, each in reports.items()}
    asked = first.protocol | merged | {
        "episodes_sha256": hashlib.sha256(shas.encode()).hexdigest(), "training_rows_left_out": rows_left_out
    }  # fmt: skip
    methods = {
        name: once if name in STARTS else cost({task: each.methods[name] for task, each in reports.items()})
        for name, once in first.methods.items()
    }
    rows = tuple(row for each in every for row in each.results)
    counts = reduce(or_, (each.counts for each in every))
    return Report(asked, first.versions, methods, rows, main, counts, **looked_at(every))


def looked_at(reports: Sequence[Report]) -> dict[str, Any]:
    """The diagnostics of all: sums of bins, the mean prior of the views, the hardest of the tasks."""
    bins: dict[str, dict[str, dict[str, Any]]] = {}
    for name, by_k in (item for each in reports for item in each.reliability.items()):
        for k, sums in by_k.items():
            known = bins.setdefault(name, {}).get(k)
            bins[name][k] = {key: np.add(known[key], sums[key]).tolist() for key in sums} if known else sums
    views: dict[str, Any] = {}
    if seen := [each.views for each in reports if each.views]:
        prior = np.mean([each["prior"] for each in seen], axis=0).tolist()
        views = {"names": seen[0]["names"], "prior": prior, "tasks": reduce(or_, (each["tasks"] for each in seen))}
    hardest = min((each.hardest for each in reports if each.hardest), key=itemgetter("score"), default={})
    nearest = reduce(or_, (each.nearest for each in reports))
    return {"reliability": bins, "views": views, "hardest": hardest, "nearest": nearest}


def cost(by_task: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of one method, over all tasks left out: sums, the mean time to adapt, the highest peak, each recipe."""
    each = list(by_task.values())
    added = ("train_s", "tokens", "rate_s", "rate_tokens", "recipe_s", "steps", "skipped", "collapses")
    sums = {key: sum(one.get(key, 0) for one in each) for key in added}
    return sums | {
        "adapt_s": fmean(one["adapt_s"] for one in each),
        "peak_mb": max(one["peak_mb"] for one in each),
        "parameters": each[0]["parameters"],
        "recipes": {task: one["recipe"] for task, one in by_task.items()},
        "rates": {task: one.get("lr") for task, one in by_task.items()},
    }
