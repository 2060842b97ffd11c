"""Leave one task out: each task of --data judges once, after a training on all the others.

One experiment a task, in `OUT/TASK/`, with everything that an experiment leaves; over all of them `OUT/results.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from statistics import fmean
from typing import Any

import numpy as np

from metanlp import checkpoint, experiment, report
from metanlp.errors import InputError
from metanlp.exams import check_shots
from metanlp.meta_test import RESULTS, Report, Scores, read_report, summed_up
from metanlp.options import Experiment
from metanlp.parallel import Ranks
from metanlp.preparation import roles_of
from metanlp.report.page import LOCAL
from metanlp.types import Roles


def run(asked: Experiment) -> Report:
    """Every task of --data in turn. With --resume those that are done stay as they are. Raises InputError."""
    experiment.settled(asked)
    if (ranks := Ranks.start(threads=asked.threads)).size > 1:
        raise InputError(f"--test {asked.test} runs on one process, here are {ranks.size}; start it without a launcher")
    folds = leave_one_out(roles_of(asked, None))
    for roles in folds.values():  # now, as the last of them should not spoil hours
        check_shots(roles.test, asked.shots)
    with checkpoint.lock(asked.out):
        reports: dict[str, Report] = {}
        for number, (name, roles) in enumerate(folds.items(), start=1):
            report.say({"left out": f"{name}, {number} of {len(folds)}"})
            fold = replace(asked, out=asked.out / name)
            anew = () if reports else (asked.out, *(asked.out / other for other in folds))
            reports[name] = done(fold) or never_none(experiment.run(fold, roles, anew=anew))
        found = combined(reports, asked.method)
        experiment.write_json(asked.out / RESULTS, asdict(found))
        experiment.write_json(asked.out / LOCAL, {"schema": 1, **experiment.here()})
        if asked.overview:
            report.show_overview(found, asked.method)
        else:
            report.show_scores(found)
        experiment.show_page(asked.out, asked.page)
    return found


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
    before = found.protocol.get("asked", {})
    now = json.loads(json.dumps(experiment.shown(fold)))
    changed = [key for key in now if before.get(key) != now[key]]
    if changed:
        key = changed[0]
        raise InputError(
            f"{fold.out} was made with {key} = {before.get(key)}, now it is {now[key]}; resume with the same, or "
            "start anew without --resume"
        )
    return found


def combined(reports: Mapping[str, Report], main: str) -> Report:
    """One report over all tasks: the means are over the tasks left out, of the same episodes."""
    first = next(iter(reports.values()))
    found: Scores = {
        name: {task: entries(each.scores[name][task]) for task, each in reports.items() if task in each.scores[name]}
        for name in first.methods
    }
    merged: dict[str, Any] = {
        part: {key: value for each in reports.values() for key, value in each.protocol[part].items()}
        for part in ("left_out", "metrics", "sources")
    }
    shas = "".join(each.protocol["episodes_sha256"] for each in reports.values())
    merged["episodes_sha256"] = hashlib.sha256(shas.encode()).hexdigest()
    rows_left_out = {task: each.protocol["training_rows_left_out"] for task, each in reports.items()}
    methods = {name: cost({task: each.methods[name] for task, each in reports.items()}) for name in first.methods}
    asked = first.protocol | merged | {"training_rows_left_out": rows_left_out}
    return replace(summed_up(asked, methods, found, main, {}), **looked_at(list(reports.values())))


def looked_at(reports: Sequence[Report]) -> dict[str, Any]:
    """What tests show beside their scores, of all: sums, the mean prior of the views, the hardest of the tasks."""
    bins: dict[str, dict[str, dict[str, Any]]] = {}
    for name, k, sums in (
        (n, k, s) for each in reports for n, by_k in each.reliability.items() for k, s in by_k.items()
    ):
        known = bins.setdefault(name, {}).get(k)
        bins[name][k] = {key: np.add(known[key], values).tolist() for key, values in sums.items()} if known else sums
    views = [each.views for each in reports if each.views]
    prior = (
        {"names": views[0]["names"], "prior": np.mean([v["prior"] for v in views], axis=0).tolist()} if views else {}
    )
    return {
        "reliability": bins,
        "views": prior | {"tasks": {task: share for v in views for task, share in v["tasks"].items()}} if views else {},
        "hardest": min(
            (each.hardest for each in reports if each.hardest), key=lambda found: found["score"], default={}
        ),
        "nearest": {task: near for each in reports for task, near in each.nearest.items()},
    }


def entries(by_shots: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> dict[int, list[dict[str, float]]]:
    """Shots -> one entry an episode, as they were before they were summed up."""
    return {
        int(k): [
            dict(zip(metrics, values, strict=True))
            for values in zip(*(metric["episodes"] for metric in metrics.values()), strict=True)
        ]
        for k, metrics in by_shots.items()
    }


def cost(by_task: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of one method, over all tasks left out: sums, the mean time to adapt, the highest peak, each recipe."""
    each = list(by_task.values())
    sums = {key: sum(one[key] for one in each) for key in ("train_s", "tokens", "recipe_s", "steps", "skipped")}
    return sums | {
        "adapt_s": fmean(one["adapt_s"] for one in each),
        "peak_mb": max(one["peak_mb"] for one in each),
        "parameters": each[0]["parameters"],
        "recipes": {task: one["recipe"] for task, one in by_task.items()},
    }


def never_none(found: Report | None) -> Report:
    assert found is not None  # one process is rank 0
    return found
