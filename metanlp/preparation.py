"""What the methods of one experiment share: tasks in their roles, the backbone, episodes, validation trials."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from metanlp import report
from metanlp.algorithms import ALGORITHMS, BASELINES, Algorithm, LearnedOptimizer, Maml
from metanlp.backbone import Backbone, Lora, memory
from metanlp.backbone.bits import require_library
from metanlp.backbone.encoder import outline
from metanlp.backbone.options import Options
from metanlp.backbone.workers import at_a_time
from metanlp.episodes import Episodes, Sampling, largest_pass
from metanlp.errors import InputError
from metanlp.exams import Exam, Protocol, Support, check_forms, check_shots
from metanlp.forms import FORMS
from metanlp.options import ALL, Experiment
from metanlp.parallel import Ranks
from metanlp.rivals import RIVALS, Kept, Llm, Rival, SetFit
from metanlp.rivals.base import count_asked
from metanlp.rivals.kept import KEPT
from metanlp.tasks.columns import parse_columns
from metanlp.tasks.leaks import Leakage, drop_leaks, leakage
from metanlp.tasks.roles import read_roles
from metanlp.types import Roles, Task

T = TypeVar("T")
UNTAUGHT = (*BASELINES, *RIVALS)  # need no meta-training
PADDED = "padded to the longest text of a pass, because this architecture can't be packed: slower, and no trunk"


@dataclass(frozen=True)
class Run:
    """What the methods of one experiment share."""

    asked: Experiment
    net: Backbone
    roles: Roles
    episodes: Episodes
    trials: list[tuple[Exam, Support]]
    ranks: Ranks
    needed: memory.Memory  # what the run will need
    leaks: Mapping[str, int] = field(default_factory=dict)  # training rows left out, by task
    leakage: Leakage = Leakage(())  # where they stand


def methods(asked: Experiment) -> tuple[str, ...]:
    """Baselines first, the main method last. Raises InputError for an unknown one, or one that can't be as asked."""
    others = asked.baselines
    if ALL in others and {*others} <= {ALL, *RIVALS}:
        others = (*(name for name in others if name != ALL), *ALGORITHMS)
    names = (*dict.fromkeys(name for name in others if name != asked.method), asked.method)
    if unknown := [name for name in names if name not in ALGORITHMS | RIVALS]:
        known = f"{sorted(ALGORITHMS)}, or {ALL!r} alone; with either, {' and '.join(RIVALS)}"
        raise InputError(f"method {unknown[0]!r} is not known; choose from {known}")
    if asked.method in UNTAUGHT:
        raise InputError(f"--method {asked.method} learns nothing from tasks; choose it as one of --baselines")
    able = [name for name, kind in ALGORITHMS.items() if issubclass(kind, Maml) and kind is not LearnedOptimizer]
    if asked.second_order and asked.method not in able:
        raise InputError(f"--second-order is not for {asked.method}; it is for {', '.join(able)}")
    return names


def rivals(asked: Experiment) -> dict[str, Rival]:
    """Those among the baselines. Raises InputError for a language model that is not named, or named and not asked."""
    names = [name for name in methods(asked) if name in RIVALS]
    if "llm" in names and not (asked.llm_url and asked.llm_model):
        raise InputError("--baselines llm wants --llm-url, as http://127.0.0.1:8000/v1, and --llm-model: its name")
    if "llm" not in names and (asked.llm_url or asked.llm_model):
        raise InputError("--llm-url and --llm-model are given, and llm is not asked for; add it to --baselines")
    found: dict[str, Rival] = {}
    for name in names:
        kept = Kept(asked.out / "baselines" / name / KEPT)
        llm = name == "llm"
        found[name] = (
            Llm(str(asked.llm_url), str(asked.llm_model), kept=kept) if llm else SetFit(asked.model, kept=kept)
        )
    return found


def make(name: str, asked: Experiment, train: Sequence[Task]) -> Algorithm:
    """A method with the settings of the experiment."""
    algorithm = ALGORITHMS[name]()
    inner = replace(algorithm.inner, lr=asked.inner_lr, head_lr=asked.head_lr)
    algorithm = replace(algorithm, inner=replace(inner, steps=asked.inner_steps) if inner.steps else inner)
    if name in BASELINES:
        return algorithm
    if isinstance(algorithm, Maml) and name == asked.method:
        algorithm = replace(algorithm, second_order=asked.second_order)
    return replace(algorithm, classes=tuple((task.name, FORMS[task.form].outputs(task)) for task in train))


def roles_of(asked: Experiment, test: str | None) -> Roles:
    """The tasks that are asked for; those that judge are `test`."""
    root = os.environ.get("METANLP_DATA")
    return read_roles(asked.data, asked.validation, test, Path(root) if root else None, parse_columns(asked.columns))


def prepare(asked: Experiment, ranks: Ranks, everything: Roles) -> Run:
    """Load the backbone; say what leaks, take it out of training."""
    require_library(asked.quantize)
    others = rivals(asked)
    for name in methods(asked):
        before = () if name in others else (*everything.train, *everything.validation)  # which a rival never sees
        check_forms(name, (ALGORITHMS | RIVALS)[name].forms, (*before, *everything.test))
    for rival in others.values():
        ranks.on_main(rival.check)
    roles, leaks = drop_leaks(everything)
    check_shots(roles.test, asked.shots)
    # Before the seconds that loading takes, as this refuses tasks with too few rows. It tokenises later.
    episodes = Episodes(roles.train, lambda *texts: net.encode(*texts), Sampling(), asked.seed)
    options = options_of(asked)
    needed = check_memory(roles, episodes.sampling, asked, options, ranks)
    net = Backbone.open(asked.model, options, ranks.device)
    trials = validation_trials(roles.validation, net, asked)
    shared = Run(asked, net, roles, episodes, trials, ranks, needed, leaks, leakage(everything))
    if ranks.main:
        report.say(start_facts(shared))
    return shared


def protocol_of(asked: Experiment) -> Protocol:
    """Of the test."""
    return Protocol(asked.shots, asked.episodes, asked.test_rows, seed=asked.seed)


def options_of(asked: Experiment) -> Options:
    """The backbone's."""
    adapt = Lora(rank=asked.rank, alpha=2 * asked.rank, targets=asked.targets)
    return Options(adapt, asked.views, asked.precision, prompt=asked.prompt, quantize=asked.quantize,
                   gradient_checkpoint=asked.gradient_checkpoint)  # fmt: skip


def check_memory(roles: Roles, sampling: Sampling, asked: Experiment, options: Options, ranks: Ranks) -> memory.Memory:
    """Say what the run will need, with as many episodes a pass as is asked for or fit, before the model is loaded.
    Raises InputError where there is less."""
    adapted_to = (*roles.validation, *roles.test)
    tokens = largest_pass(roles.train, adapted_to, sampling, max(asked.shots), options.max_length)
    rows = sampling.shots[1], sampling.queries
    each = largest_pass(roles.train, (), sampling, 0, options.max_length) / sum(rows)
    kept = [make(name, asked, ()).kept(*rows) for name in methods(asked) if name not in UNTAUGHT]
    plain, stepped = (round(each * max(count)) for count in zip(*kept, strict=True))
    needed = memory.estimate(outline(asked.model), options, ranks.device, max(tokens, plain), stepped)
    together = asked.tasks_per_pass or ranks.broadcast(
        memory.tasks_per_pass(needed, memory.of_gpu(ranks.device), asked.meta_batch, ranks.size)
    )
    needed = needed.of(together, at_a_time(ranks.device, asked.meta_batch // together))
    if ranks.main:
        report.say({"memory": f"{needed} of {together * tokens:,} tokens"})
    memory.require(needed, ranks.device)
    return needed


def start_facts(shared: Run) -> dict[str, str]:
    """What the run is about to do, for people."""
    roles, net = shared.roles, shared.net
    leaks, asked = sum(shared.leaks.values()), shared.asked
    length = f"{asked.max_minutes:g} minutes" if asked.max_minutes else f"{asked.steps} meta-steps"
    others = [name for name in methods(asked)[:-1] if name not in UNTAUGHT]
    return {
        "model": f"{net.name}, {net.depth} layers, adapters from layer {net.lowest + 1}, {held(net.options)}",
        "processes": f"{shared.ranks.size} on {shared.ranks.device.type}, {torch.get_num_threads()} threads each",
        "tasks": f"{len(roles.train)} train, {len(roles.validation)} validation, {len(roles.test)} test",
        "leakage": f"{leaks} training rows left out because they stand in a validation or test task"
        + "".join(f"; {pair}" for pair in shared.leakage.first())
        + ("; all in leakage.json" if shared.leakage.overlaps else ""),
        "passes": "packed, without padding" if net.family.packed else PADDED,
        "views": ", ".join(net.view_names)
        + (f"; every text after {prompt!r}" if (prompt := net.options.prompt) else ""),
        "meta-training": f"{length} for {asked.method}"
        + "".join(f", then as many tokens for {name}" for name in others),
    } | {name: rival.plan(*count_asked(roles.test, protocol_of(asked))) for name, rival in rivals(asked).items()}


def held(options: Options) -> str:
    """In how many bits the frozen weights are."""
    return options.precision if options.quantize == "none" else f"weights in {options.quantize}, {options.precision}"


def validation_trials(tasks: Sequence[Task], net: Backbone, asked: Experiment) -> list[tuple[Exam, Support]]:
    """Support sets of the validation tasks, evenly spread over tasks and the two fewest shots of the test."""
    episodes = 1 + asked.validation_trials // max(1, len(tasks))
    protocol = Protocol(asked.shots[:2], episodes, test_rows=64, seed=asked.seed + 1)
    exams = [Exam(task, net, protocol) for task in tasks]
    turns = max((len(exam.supports) for exam in exams), default=0)
    trials = [(exam, exam.supports[n]) for n in range(turns) for exam in exams if n < len(exam.supports)]
    # They are adapted to again and again, so their trunk is computed now.
    return [(e, replace(s, batch=net.with_trunk(s.batch))) for e, s in spread(trials, asked.validation_trials)]


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, evenly spaced; all of them where there are no more."""
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)) if items else []
    return [items[int(place)] for place in places]
