"""Saved learners on held-out tasks: what a run does at its end, asked of folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from metanlp import checkpoint, report
from metanlp.algorithms import Frozen
from metanlp.artefact import located, read_config
from metanlp.errors import InputError
from metanlp.exams import Protocol, check_shots
from metanlp.experiment import here, show_page, write_json
from metanlp.insight import Insight
from metanlp.learner import Learner
from metanlp.leave_one_out import entries
from metanlp.meta_test import RESULTS, Report, Scores, count_trials, meta_test, summed_up
from metanlp.parallel import Ranks
from metanlp.progress import Progress
from metanlp.report.page import LOCAL
from metanlp.types import Task

FROZEN = "frozen"


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

    Leaves `results.json`, `local.json` and, with `page`, `report.html` and `plots/` in `out`. Raises InputError,
    DamagedError, StorageError."""
    folders = [located(source) for source in sources]
    if not folders:
        raise InputError("--from names no learner; give the folder of one, or of several")
    check_shots(tasks, protocol.shots)
    configs = [read_config(folder, "learner") for folder in folders]
    named = dict(zip(names_of(folders, configs), zip(folders, configs, strict=True), strict=True))
    main, groups = next(iter(named)), by_backbone(named)
    with checkpoint.lock(out):
        insight, parts = Insight(main), list[Report]()
        with Progress("test") as progress:
            tick = progress.ticks((len(named) + len(groups)) * count_trials(tasks, protocol))
            for group in groups:  # one backbone at a time is in memory
                learners = beside_frozen(opened(group, base), len(groups) > 1)
                seen = insight if main in learners else None
                ours = main if seen else None
                parts.append(meta_test(learners, tasks, protocol, main=ours, tick=tick, insight=seen))
        found = joined(parts, main)
        write_json(out / RESULTS, asdict(found))
        write_json(out / LOCAL, {"schema": 1, **here(), "mistakes": insight.mistakes})
        report.show(found, {})
        show_page(out, page)
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
    groups: dict[str, dict[str, tuple[Path, Mapping[str, Any]]]] = {}
    for name, (folder, config) in named.items():
        key = json.dumps([config["base"], config["backbone"]], sort_keys=True)
        groups.setdefault(key, {})[name] = folder, config
    return list(groups.values())


def opened(group: Named, base: str | None) -> dict[str, Learner]:
    """The learners of one backbone, which is loaded once."""
    found: dict[str, Learner] = {}
    for name, (folder, _) in group.items():
        net = next(iter(found.values())).net if found else None
        found[name] = Learner.load(folder, base=base, device=Ranks.alone().device, net=net)
    return found


def beside_frozen(learners: Mapping[str, Learner], several: bool) -> dict[str, Learner]:
    """With the encoder as it was before any learning, which shows what the learning gave; of `several` it has the name
    of the first learner that is read off it."""
    name, first = next(iter(learners.items()))
    untaught = {f"{FROZEN}, as for {name}" if several else FROZEN: Learner(Frozen(), first.net, first.theta)}
    return untaught | dict(learners)


def joined(parts: Sequence[Report], main: str) -> Report:
    """One report of several that saw the same episodes."""
    first = next(part for part in parts if main in part.methods)
    if len(parts) == 1:
        return first
    if len({part.protocol["episodes_sha256"] for part in parts}) > 1:
        raise AssertionError("episodes don't depend on the backbone")
    found: Scores = {
        name: {task: entries(by_shots) for task, by_shots in by_task.items()}
        for part in parts
        for name, by_task in part.scores.items()
    }
    by_method = {
        kept: {name: value for part in parts for name, value in getattr(part, kept).items()}
        for kept in ("methods", "scores", "means", "curves", "calibration", "reliability")
    }
    pairs = summed_up(first.protocol, by_method["methods"], found, main, {}).paired
    return replace(first, paired=pairs, **by_method)
