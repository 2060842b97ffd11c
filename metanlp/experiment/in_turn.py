"""Tasks that are held out in turn, from the model's own training too: domains of text, pairs of languages.

They go in pairs. A model is trained, and methods are meta-trained, on all tasks outside of a pair; each of the two then
judges once, with steps and rates that were chosen on the other.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from metanlp.algorithms import ALGORITHMS, Algorithm, Finetune, InnerLoop
from metanlp.algorithms.base import Inner, Net
from metanlp.core import storage
from metanlp.core.errors import InputError
from metanlp.core.outputs import CORPUS, RESULTS, OutputFolder
from metanlp.core.progress import Progress, part
from metanlp.core.settings import require_same, to_json
from metanlp.core.types import Weights
from metanlp.core.versions import versions
from metanlp.episodes.domains import Domains
from metanlp.evaluation.answers import MULTITASK
from metanlp.evaluation.domains import HeldOutDomain
from metanlp.experiment.options import InTurn
from metanlp.report.in_turn import Cell, Measure, cells_of, measured, show_in_turn, write_in_turn
from metanlp.report.tables import say
from metanlp.training.meta_train import Plan, outer_loop
from metanlp.training.processes import Ranks

AS_IT_IS = "none"  # the model without adaptation
ALL = "+all"  # the folder of a fold that holds out no task
LEAST = 3  # tasks: two that are held out together, and one that teaches
# Factors on the inner rates of adapters and biases that the search tries. Steps of Adam are as long as its rate says.
RATES = {"sgd": ((1.0, 1.0), (1.0, 5.0), (3.0, 10.0)), "adam": ((1.0, 1.0), (2.0, 3.0))}
SEARCHED = 4  # blocks of query texts that it reads


class NamedNet(Net, Protocol):
    """A net that knows what it is."""

    def identity(self) -> dict[str, Any]: ...


Learned = tuple[Algorithm, Weights]
"""A method, and the θ that it learned."""


@dataclass(frozen=True)
class Fold:
    """Two tasks that are held out together; or none, where all teach."""

    names: tuple[str, ...]
    judges: int  # how many of them judge: of an odd number of tasks, the last one's partner has had its turn
    folder: Path  # for what it leaves


Made = tuple[NamedNet, Domains, Mapping[str, HeldOutDomain]]
"""Of a fold: a model that has seen neither task, episodes of the others, and the two."""

Keep = Callable[[Fold, NamedNet, Mapping[str, Learned], Mapping[str, Any]], None]
"""What keeps the learners of a fold, given what each method learned and what that cost."""


def in_turn(
    asked: InTurn, sources: tuple[str, ...], names: Sequence[str], make: Callable[[Fold, Ranks], Made],
    measures: Sequence[Measure], notes: Sequence[str], keep: Keep | None = None,
) -> list[Cell]:  # fmt: skip
    """Everything, on one process. Leaves in `asked.out` a folder a pair of tasks, `results.json`, plots and a page with
    the `notes`; where there are no `names` all tasks teach, and none judges. Raises InputError, DivergedError,
    StorageError, StoppedError."""
    methods = methods_of(asked)
    if (ranks := Ranks.start(threads=asked.threads)).size > 1:
        raise InputError(f"this runs on one process, here are {ranks.size}; start it without a launcher")
    out = OutputFolder(asked.out, sources, asked.replace, asked.resume)
    out.check()
    cells, costs, folds = list[Cell](), list[Mapping[str, Any]](), folds_of(asked, names)
    with storage.lock(asked.out):
        if not asked.resume:
            out.clear()
            with storage.disk(asked.out):
                for fold in (fold for fold in folds if any(fold.folder.rglob(CORPUS))):
                    shutil.rmtree(fold.folder)
        for number, fold in enumerate(folds, start=1):
            say({"held out": f"{' and '.join(fold.names) or 'none'}, {number} of {len(folds)}"})
            with part(f"{number} of {len(folds)}"):
                stored = done(asked, fold) or run_fold(asked, fold, methods, make, ranks, keep)
            cells += cells_of(stored["cells"])
            costs.append(stored["cost"])
            left = sum(cost["seconds"] for cost in costs) / number * (len(folds) - number)
            say({"forecast": f"about {left / 60:.0f} more minutes"} if left else {})
        if not cells:
            return []
        about, reference = {"asked": shown(asked), "versions": versions()}, reference_of(asked)
        found = measured(cells, measures)
        write_in_turn(found, asked.out, reference, about, costs, notes)
        show_in_turn(found, reference, notes[1:])
    return cells


def methods_of(asked: InTurn) -> dict[str, Algorithm]:
    """The methods by name. Raises InputError."""
    inner = Inner(asked.inner_steps, asked.inner_lr, asked.head_lr, optimiser=asked.optimiser)
    for name in asked.methods:
        if not issubclass(ALGORITHMS.get(name, Algorithm), InnerLoop):
            able = ", ".join(key for key, kind in ALGORITHMS.items() if issubclass(kind, InnerLoop))
            raise InputError(f"--methods names {name!r}; these texts are learned by gradient steps: choose from {able}")
    made = {name: ALGORITHMS[name](inner=inner) for name in asked.methods}
    if not made or not made[asked.methods[-1]].meta_trains:
        raise InputError("the last of --methods has to be one that is meta-trained: it sets the compute of the others")
    return made


def reference_of(asked: InTurn) -> str:
    """The method that the others are compared with: multi-task learning, where it is one."""
    return MULTITASK if MULTITASK in asked.methods else asked.methods[0]


def require_least(place: str, names: Sequence[str], what: str) -> None:
    """Raises InputError for too few tasks."""
    if len(names) < LEAST:
        raise InputError(
            f"{place}: has {', '.join(names)} alone; give {LEAST} {what} or more: two are held out at a time, and the "
            "others teach"
        )


def folds_of(asked: InTurn, names: Sequence[str]) -> list[Fold]:
    """The first task with the second, the third with the fourth …; a last one with the first, which judges once. One
    for all tasks where none is named."""
    if not names:
        return [Fold((), 0, asked.out / ALL)]
    pairs = [(name, names[(place + 1) % len(names)]) for place, name in enumerate(names)][::2]
    return [Fold(pair, 1 + (pair[1] != names[0]), asked.out / "+".join(pair)) for pair in pairs]


def run_fold(
    asked: InTurn, fold: Fold, methods: Mapping[str, Algorithm], make: Callable[[Fold, Ranks], Made], ranks: Ranks,
    keep: Keep | None,
) -> dict[str, Any]:  # fmt: skip
    """The methods that all tasks outside of the pair teach, and the pair's cells; kept in its folder."""
    begun = time.perf_counter()
    net, episodes, held = make(fold, ranks)
    learned, cost = trained(asked, fold, methods, net, episodes, ranks)
    if keep:
        keep(fold, net, learned, cost)
    cells = list[Cell]()
    turns = (fold.names, fold.names[::-1])[: fold.judges]
    with Progress(f"test {' and '.join(fold.names)}") as progress:
        tick = progress.ticks(len(turns) * len(learned) * len(asked.shots))
        for name, other in turns:
            for method, (algorithm, theta) in learned.items():
                cells += judge(asked, method, algorithm, theta, net, held[name], held[other], name, tick)
    cost |= {"held out": fold.names, "seconds": time.perf_counter() - begun}
    stored = {"asked": shown(asked), "cost": cost, "cells": [to_json(cell) for cell in cells]}
    storage.atomic_write(fold.folder / RESULTS, (json.dumps(stored, indent=1) + "\n").encode())
    return stored


def done(asked: InTurn, fold: Fold) -> dict[str, Any] | None:
    """What an earlier run left, where --resume may take it. Raises InputError where it was asked something else."""
    path = fold.folder / RESULTS
    if not (asked.resume and path.is_file()):
        return None
    stored = json.loads(path.read_text(encoding="utf-8"))
    require_same(fold.folder, stored["asked"], shown(asked))
    return stored


def trained(
    asked: InTurn, fold: Fold, methods: Mapping[str, Algorithm], net: NamedNet, episodes: Domains,
    ranks: Ranks,
) -> tuple[dict[str, Learned], dict[str, Any]]:  # fmt: skip
    """Each method with its θ, in the order asked, and what they took. The last one sets the tokens of the others."""
    plan = Plan(steps=asked.steps, meta_batch=asked.meta_batch, lr=asked.lr, validations=0, patience=0)
    thetas, cost = dict[str, Weights](), dict[str, Any]()
    for name, algorithm in reversed(tuple(methods.items())):
        theta = algorithm.init(net, torch.Generator().manual_seed(asked.seed))
        if algorithm.meta_trains:
            kept = {"algorithm": {"name": name, **to_json(algorithm)}, "plan": to_json(plan), "seed": asked.seed,
                    **net.identity(), "episodes": episodes.identity()}  # fmt: skip
            theta, state = outer_loop(
                algorithm, net, theta, episodes, plan, kept, validate=None, folder=fold.folder / name,
                resume=asked.resume, ranks=ranks, name=name, trackers=(),
            )  # fmt: skip
            cost[name] = {"steps": state.step, "tokens": state.tokens, "train_s": state.seconds}
            plan = replace(plan, steps=None, tokens=plan.tokens or state.tokens)
        thetas[name] = theta
    frozen = Finetune(inner=Inner(steps=0))
    learned: dict[str, Learned] = {AS_IT_IS: (frozen, frozen.init(net, torch.Generator().manual_seed(asked.seed)))}
    return learned | {name: (algorithm, thetas[name]) for name, algorithm in methods.items()}, cost


def judge(
    asked: InTurn, method: str, algorithm: Algorithm, theta: Weights, net: Net, held: HeldOutDomain,
    other: HeldOutDomain, name: str, tick: Callable[[], object],
) -> list[Cell]:  # fmt: skip
    """One method on one task, at each number of support texts with the recipe that does best on the `other` task."""
    found, chosen = list[Cell](), algorithm
    for k in asked.shots:
        fewest = min(asked.shots) if asked.search_at == "fewest" else k
        if algorithm.inner.steps and (not found or fewest == k):  # else what was chosen before serves
            chosen = recipe(asked, algorithm, theta, net, other, fewest)
        # Without a step every support set leads to the same φ.
        read = held.supports[k] if chosen.inner.steps else held.supports[k][:1]
        each = [held.measures(chosen, net, chosen.adapt(net, theta, support)) for support in read]
        each *= len(held.supports[k]) // len(each)
        inner = chosen.inner
        for measure in each[0]:
            sample = held.sample([values[measure] for values in each], k)
            found.append(Cell(name, method, k, tuple(sample.sets.tolist()), tuple(sample.blocks.tolist()),
                              sample.overlap, inner.steps, inner.lr, inner.head_lr, measure))  # fmt: skip
        tick()
    return found


def recipe(asked: InTurn, algorithm: Algorithm, theta: Weights, net: Net, other: HeldOutDomain, k: int) -> Algorithm:
    """The steps and rates with the fewest bits on another task, searched the same way for every method: the rates of
    meta-training, and larger ones. Those that diverge lose."""
    own, found = algorithm.inner, list[tuple[float, Algorithm]]()
    steps = {*asked.search_steps, own.steps}
    for lr, head_lr in RATES[own.optimiser]:
        inner = replace(own, steps=max(steps), lr=lr * own.lr, head_lr=head_lr * own.head_lr)
        bits: dict[int, list[float]] = {}
        for support in other.supports[k][: asked.search_trials]:
            for step, phi in replace(algorithm, inner=inner).adapting(net, theta, support, steps):
                bits.setdefault(step, []).append(float(other.bits(algorithm, net, phi, SEARCHED).sum()))
        found += [
            (float(np.nan_to_num(np.mean(each), nan=np.inf)), replace(algorithm, inner=replace(inner, steps=step)))
            for step, each in bits.items()
        ]
    return min(found, key=lambda item: item[0])[1]


def shown(asked: InTurn) -> dict[str, Any]:
    """The options, without paths of this machine and without what decides no result."""
    options = to_json(asked)
    return {key: value for key, value in options.items() if key not in ("out", "replace", "resume")} | {
        key: Path(options[key]).name for key in ("text", "data", "model") if options.get(key)
    }
