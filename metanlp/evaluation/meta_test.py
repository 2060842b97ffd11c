"""Held-out tasks: adapt, score, compare. Every method sees the same support sets and query rows."""

from __future__ import annotations

import hashlib
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch

from metanlp.core.errors import InputError
from metanlp.core.settings import to_json
from metanlp.core.torch_modes import own_modes
from metanlp.core.types import Task
from metanlp.core.versions import versions
from metanlp.evaluation.diagnostics import Diagnostics
from metanlp.evaluation.external import ExternalBaseline
from metanlp.evaluation.external import examine as examine_external
from metanlp.evaluation.held_out import HeldOutTask, Protocol, Support, check_forms, check_shots, count_repeats
from metanlp.evaluation.results import BLOCKS, LEAST_ROWS, SETS, Report, Result
from metanlp.forms import FORMS, Scored
from metanlp.learner.learner import Learner
from metanlp.tasks.rowset import keys_of

MOST_BLOCKS, BLOCK_ROWS = 10, 5  # blocks of query rows, rows of each; of fewer rows two, from `LEAST_ROWS` on

Judge = Callable[[Support], dict[str, float]]
"""Metrics on the query rows that a support set does not exclude."""

Trial = tuple[dict[str, float], dict[str, np.ndarray]]
"""One method on one support set: its metrics; each metric on each block of query rows, (G,)."""


@own_modes()
def meta_test(
    learners: Mapping[str, Learner | ExternalBaseline],
    tasks: Sequence[Task],
    protocol: Protocol,
    *,
    main: str | None = None,
    tick: Callable[[], object] = lambda: None,
    diagnostics: Diagnostics | None = None,
) -> Report:
    """Test several learners that share one backbone, and external baselines, on the same support sets and query rows.

    `main` is compared with each of the others; by default it is the last learner. `diagnostics` collects what a Report
    does not hold: the worst mistakes. `tick` is called after every (task, support set, method). Raises InputError where
    no task can give the shots asked, or one is of a form that an external baseline does not know.
    """
    ours = checked(learners, tasks, main)
    check_shots(tasks, protocol.shots)
    main = main or list(ours)[-1]
    diagnostics = diagnostics or Diagnostics(main)
    table: dict[str, list[Result]] = {name: [] for name in learners}
    seconds: dict[str, list[float]] = {name: [] for name in learners}
    left_out, counts, digest = dict[str, Any](), dict[str, Any](), hashlib.sha256()
    for task in tasks:
        held_out = HeldOutTask(task, ours[main].encoder, protocol)
        blocks, trials = blocks_of(held_out), dict[tuple[str, int], list[Trial]]()
        digest.update(held_out.fingerprint().encode())
        reasons = {str(k): reason for k, reason in held_out.skipped.items()}
        left_out[task.name] = {"shots": reasons, "query_rows_in_support": count_repeats(held_out)}
        counts[task.name] = counted(held_out)
        for support in held_out.supports:
            for name, learner in learners.items():
                judge, adapt_s, scored = examine(learner, held_out, support)
                trials.setdefault((name, support.shots), []).append((judge(support), by_block(judge, support, blocks)))
                seconds[name].append(adapt_s)
                if scored:
                    diagnostics.see(name, learner, held_out, support, scored)
                tick()
        diagnostics.done()
        for (name, k), each in trials.items():
            table[name] += rows_of(name, task.name, k, each)
    if not any(table.values()):
        raise InputError(f"no test task can give any of {list(protocol.shots)} shots: {left_out}")
    metrics = {task.name: FORMS[task.form].metric for task in tasks}  # by which each is judged
    asked = {"episodes_sha256": digest.hexdigest(), "left_out": left_out, "metrics": metrics}
    methods = {name: _cost(learner, seconds[name]) for name, learner in learners.items()}
    curves = {name: learner.record["curve"] for name, learner in ours.items() if learner.record.get("curve")}
    rows = tuple(row for each in table.values() for row in each)
    return Report(to_json(protocol) | asked, versions(), methods, rows, main, counts, curves, **diagnostics.record())


def checked(
    learners: Mapping[str, Learner | ExternalBaseline], tasks: Sequence[Task], main: str | None
) -> dict[str, Learner]:
    """The learners among them, of which `main` is one. Raises InputError."""
    ours: dict[str, Learner] = {}
    for name, learner in learners.items():
        if isinstance(learner, Learner):
            ours[name] = learner
        else:
            check_forms(name, learner.learns, tasks)
    if (main or not ours) and main not in ours:
        raise InputError(f"main is {main!r}, the learners are {list(ours) or 'none'}; name one of them, or nothing")
    if len({id(learner.net) for learner in ours.values()}) > 1:
        raise InputError("the learners to compare must share one backbone: load it once and hand it to all")
    return ours


def examine(
    learner: Learner | ExternalBaseline, held_out: HeldOutTask, support: Support
) -> tuple[Judge, float, Scored | None]:
    """Metrics of one learner after adapting to one support set, as a function of which query rows count; the seconds
    it took to adapt; its scores of every query row."""
    if isinstance(learner, ExternalBaseline):
        return examine_external(learner, held_out, support)
    begun = time.perf_counter()
    phi = learner.algorithm.adapt(learner.net, learner.theta, support.batch)
    if learner.net.device.type == "cuda":
        torch.cuda.synchronize()
    adapt_s = time.perf_counter() - begun
    scored = held_out.scores(learner.algorithm, phi)
    return partial(held_out.judge, scored), adapt_s, scored


def blocks_of(held_out: HeldOutTask) -> np.ndarray:
    """The query rows dealt at random into blocks: the block of each, (R,)."""
    return dealt(len(held_out.rows), held_out.protocol.seed)


def dealt(rows: int, seed: int) -> np.ndarray:
    """So many rows in at most 10 blocks of at least 5, or two smaller ones: the block of each, (R,); one where the
    spread can't be told, below `LEAST_ROWS`."""
    blocks = max(min(MOST_BLOCKS, rows // BLOCK_ROWS), 2 if rows >= LEAST_ROWS else 1)
    return np.random.default_rng([seed, rows]).permutation(rows) % blocks


def by_block(judge: Judge, support: Support, blocks: np.ndarray) -> dict[str, np.ndarray]:
    """Each metric on each block of query rows, (G,): what the block adds to the metric of all rows, G x all - (G - 1) x
    without it (the delete-a-group jackknife, Quenouille 1956). For a mean over rows it is the mean over the block."""
    count, whole = int(blocks.max()) + 1, judge(support)
    if count == 1:
        return {metric: np.zeros(0) for metric in whole}
    without = [support.excluded | (blocks == block) for block in range(count)]
    parts = [whole if excluded.all() else judge(replace(support, excluded=excluded)) for excluded in without]
    return {m: count * whole[m] - (count - 1) * np.array([part[m] for part in parts]) for m in whole}


def rows_of(method: str, task: str, shots: int, trials: Sequence[Trial]) -> Iterator[Result]:
    """Rows of the table of results."""
    for metric in trials[0][0]:
        sets, blocks = [metrics[metric] for metrics, _ in trials], [parts[metric] for _, parts in trials]
        for part, values in ((SETS, sets), (BLOCKS, np.mean(blocks, axis=0).tolist())):
            yield from (Result(method, task, shots, metric, part, n, round(v, 6)) for n, v in enumerate(values))


def counted(held_out: HeldOutTask) -> dict[str, Any]:
    """What the task's scores are counted on, as in `Report.counts`."""
    task, by_shots = held_out.task, dict[int, list[frozenset[int]]]()
    for support in held_out.supports:
        by_shots.setdefault(support.shots, []).append(frozenset(support.keys))
    shots = {
        str(k): {
            "support_sets": len(sets),
            "distinct": len({*sets}),
            "overlap": overlap(sets),
            "possible": held_out.possible(k),
        }
        for k, sets in by_shots.items()
    }
    available = len(np.unique(keys_of(task.pools.get("test", task.pools["train"]), held_out.form)))
    chance = chance_of([task])
    told = {} if chance is None else {"chance": chance}
    return {"form": task.form, "query_rows": len({*held_out.keys}), "available": available, "shots": shots, **told}


def chance_of(tasks: Sequence[Task]) -> float | None:
    """Accuracy of guessing the classes of these tasks, in the mean; None where there is one without classes, or none at
    all."""
    known = bool(tasks) and all(FORMS[task.form].single_label for task in tasks)
    return float(np.mean([1 / len(task.labels) for task in tasks])) if known else None


def overlap(sets: Sequence[frozenset[Any]]) -> float:
    """Share of their rows that two support sets have in common, mean over pairs."""
    shares = [len(a & b) / min(len(a), len(b)) for a, b in combinations(sets, 2)]
    return round(float(np.mean(shares)), 6) if shares else 0.0


def count_trials(tasks: Sequence[Task], protocol: Protocol) -> int:
    """Support sets there will be at the most: what a progress bar needs beforehand."""
    return len(tasks) * len(protocol.shots) * protocol.episodes


def _cost(learner: Learner | ExternalBaseline, adapt_s: Sequence[float]) -> dict[str, Any]:
    """Of one method, as in `Report.methods`; parameters are the numbers that training tasks taught."""
    record = learner.record if isinstance(learner, Learner) else {}
    counts = ("train_s", "tokens", "rate_s", "rate_tokens", "recipe_s", "steps", "skipped", "collapses")
    made = {key: record.get(key, 0) for key in counts}
    made |= {key: record[key] for key in ("lr", "rate_scores") if key in record}
    made |= {"adapt_s": float(np.median(adapt_s)), "peak_mb": peak_mb()}
    if isinstance(learner, ExternalBaseline):
        return made | {"parameters": 0, "recipe": dict(learner.settings()), **learner.spent()}
    learned = sum(weight.numel() for weight in learner.theta.values()) if record.get("tokens") else 0
    return made | {"parameters": learned, "recipe": asdict(learner.algorithm)}


def peak_mb() -> float:
    """Largest resident size of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
