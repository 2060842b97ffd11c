"""Saved learners on held-out tasks: what a run does at its end, asked of folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import add, or_
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metanlp.algorithms import Frozen
from metanlp.core import storage
from metanlp.core.errors import InputError
from metanlp.core.progress import Progress
from metanlp.core.torch_modes import own_modes
from metanlp.core.types import Task
from metanlp.evaluation.diagnostics import Diagnostics
from metanlp.evaluation.held_out import Protocol, check_shots
from metanlp.evaluation.meta_test import count_trials, meta_test
from metanlp.evaluation.results import Report
from metanlp.experiment.run import save, tell
from metanlp.learner.artefact import located, read_config
from metanlp.learner.learner import Learner
from metanlp.learner.seen import seen_in
from metanlp.report.tables import say
from metanlp.tasks.leaks import without_seen
from metanlp.training.processes import Ranks

FROZEN = "frozen"


@own_modes()
def evaluate(
    sources: Sequence[str | Path],
    tasks: Sequence[Task],
    protocol: Protocol,
    out: Path,
    *,
    base: str | None = None,
    page: bool = True,
) -> Report:
    """Scores the learners of folders, or of the Hub, and the frozen encoder beside them, on the same episodes; the
    first is compared with each of the others. `base` names another place for the pretrained model.

    Leaves `results.json`, `local.json` and, with `page`, `report.html` and `plots/` in `out`. Rows that one of them has
    seen do not judge. Raises InputError, DamagedError, StorageError."""
    folders = [located(source) for source in sources]
    if not folders:
        raise InputError("--from names no learner; give the folder of one, or of several")
    configs = [read_config(folder, "learner") for folder in folders]
    named = dict(zip(names_of(folders, configs), zip(folders, configs, strict=True), strict=True))
    main, groups = next(iter(named)), by_backbone(named)
    tasks, known = without_seen(tasks, reduce(np.union1d, map(seen_in, folders)))
    check_shots(tasks, protocol.shots)
    if known:
        say({"leakage": f"{sum(known.values())} evaluation rows left out, which a learner has seen"})
    with storage.lock(out):
        diagnostics, parts = Diagnostics(main), list[Report]()
        with Progress("test") as progress:
            tick = progress.ticks((len(named) + len(groups)) * count_trials(tasks, protocol))
            for group in groups:  # one backbone at a time is in memory
                learners = beside_frozen(opened(group, base), len(groups) > 1)
                asked: dict[str, Any] = {"main": main, "diagnostics": diagnostics} if main in learners else {}
                parts.append(meta_test(learners, tasks, protocol, tick=tick, **asked))
        found = joined(parts, main)
        found = replace(found, protocol=found.protocol | {"seen_rows_left_out": known})
        learners = dict(zip(named, map(str, sources), strict=True))
        tell(found, out, save(found, out, diagnostics.mistakes, learners, page))
    return found


def names_of(folders: Sequence[Path], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a table calls the learners: their methods, where these differ; else their folders, without what they lie in,
    as results are published; else numbers too."""
    names = [str(config["algorithm"]["name"]) for config in configs]
    if len({*names}) < len(names):
        names = [folder.resolve().name for folder in folders]
    if len({*names}) < len(names):
        names = [f"{name} {number}" for number, name in enumerate(names, start=1)]
    return names


Named = Mapping[str, tuple[Path, Mapping[str, Any]]]


def by_backbone(named: Named) -> list[Named]:
    """Learners that can share a backbone together: the same weights, held and read in the same way."""
    groups = list[tuple[Any, dict[str, tuple[Path, Mapping[str, Any]]]]]()
    for name, (folder, config) in named.items():
        held = config["base"], config["backbone"]  # compared and not spelled, as 32 is 32.0
        group = next((group for other, group in groups if other == held), None)
        if group is None:
            groups.append((held, group := {}))
        group[name] = folder, config
    return [group for _, group in groups]


def opened(group: Named, base: str | None) -> dict[str, Learner]:
    """The learners of one backbone, which is loaded once."""
    found: dict[str, Learner] = {}
    for name, (folder, _) in group.items():
        net = next(iter(found.values())).net if found else None
        found[name] = Learner.load(folder, base=base, device=Ranks.alone().device, net=net)
    return found


def beside_frozen(learners: Mapping[str, Learner], several: bool) -> dict[str, Learner]:
    """With the encoder as it was before any learning, which shows what the learning gave, read as a run prefers to read
    it; of `several` it has the name of the first learner that is read off it. Without a frozen view there is none."""
    name, first = next(iter(learners.items()))
    if not any(view.startswith("frozen.") for view in first.net.view_names):
        return dict(learners)
    nothing = Frozen().init(first.net, torch.Generator().manual_seed(0))  # no weights of heads and views of `first`
    frozen = Learner(Frozen().mixed(), first.net, nothing)
    return {f"{FROZEN}, as for {name}" if several else FROZEN: frozen, **learners}


def joined(parts: Sequence[Report], main: str) -> Report:
    """One report of several on the same episodes: their tables one below the other."""
    if len({part.protocol["episodes_sha256"] for part in parts}) > 1:
        raise AssertionError("episodes don't depend on the backbone")
    first = next(part for part in parts if main in part.methods)
    kept = ("methods", "curves", "reliability", "results")
    merged = {name: reduce(add if name == "results" else or_, (getattr(part, name) for part in parts)) for name in kept}
    return replace(first, **merged)
