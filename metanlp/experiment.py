"""One experiment: every method trained on the same tasks at equal compute, and tested on the same episodes.

The steps are `meta_train`, `recipe.choose` and `meta_test`; here is only their order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from metanlp import checkpoint, report
from metanlp.algorithms import ALGORITHMS, BASELINES, Algorithm
from metanlp.artefact import CONFIG
from metanlp.backbone import Backbone, Lora, memory
from metanlp.backbone.encoder import outline
from metanlp.backbone.options import Options
from metanlp.config import to_json
from metanlp.episodes import Episodes, Sampling, largest_pass
from metanlp.errors import InputError
from metanlp.exams import Exam, Protocol, Support, check_shots
from metanlp.forms import FORMS
from metanlp.learner import Learner
from metanlp.meta_test import Report, count_trials, meta_test
from metanlp.meta_train import Plan, meta_train
from metanlp.options import Experiment
from metanlp.parallel import Ranks
from metanlp.progress import Progress
from metanlp.recipe import choose
from metanlp.tasks.columns import parse_columns
from metanlp.tasks.leaks import Leakage, drop_leaks, leakage
from metanlp.tasks.roles import read_roles
from metanlp.types import Roles, Task, Weights

T = TypeVar("T")
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
    leaks: Mapping[str, int] = field(default_factory=dict)  # training rows left out, by task
    leakage: Leakage = Leakage(())  # where they stand


def run(asked: Experiment, roles: Roles | None = None) -> Report | None:
    """Everything, on as many processes as the launcher started; they train together, then rank 0 tests.

    Leaves the files of the README's table in `asked.out`. The report, on rank 0. `roles` are read as `asked` says where
    they are not given.
    """
    names, plan, ranks = methods(asked), plan_of(asked), Ranks.start(threads=asked.threads)
    with ExitStack() as held:
        # Whether a folder is in use is said at once; a new one is made when the input has proved good.
        new = ranks.broadcast(not os.path.exists(asked.out))
        if not new:
            ranks.on_main(lambda: held.enter_context(checkpoint.lock(asked.out)))
        shared = prepare(asked, ranks, roles or roles_of(asked, asked.test))
        if new:
            ranks.on_main(lambda: held.enter_context(checkpoint.lock(asked.out)))
        if not asked.resume:  # only now, as bad input must not cost what an earlier run left
            ranks.on_main(lambda: forget(asked.out))
        ranks.on_main(lambda: write_json(asked.out / "leakage.json", {"schema": 1, **asdict(shared.leakage)}))
        learners = {asked.method: trained(shared, asked.method, plan)}
        tokens = learners[asked.method].record["tokens"]
        equal = replace(plan, steps=None, minutes=None, tokens=tokens, patience=0)  # no less than the main method
        for name in names[:-1]:
            if name not in BASELINES:
                learners[name] = trained(shared, name, equal)
        ranks.close()
        if not ranks.main:
            return None
        learners = {name: with_recipe(shared, name, learners.get(name)) for name in names}
        found = test(shared, learners)
        save(shared, learners[asked.method], found)
        return found


def forget(out: Path) -> None:
    """Learners that an earlier run left in the folder are not this run's."""
    for config in (out / CONFIG, *out.glob(f"baselines/*/{CONFIG}")):
        config.unlink(missing_ok=True)


def folder_of(asked: Experiment, name: str) -> Path:
    return asked.out if name == asked.method else asked.out / "baselines" / name


def methods(asked: Experiment) -> tuple[str, ...]:
    """Baselines first, the main method last. Raises InputError for an unknown one."""
    names = (*(name for name in asked.baselines if name != asked.method), asked.method)
    if unknown := [name for name in names if name not in ALGORITHMS]:
        raise InputError(f"method {unknown[0]!r} is not known; choose from {sorted(ALGORITHMS)}")
    if asked.method in BASELINES:
        raise InputError(f"--method {asked.method} learns nothing from tasks; choose it as one of --baselines")
    return names


def plan_of(asked: Experiment) -> Plan:
    """The main method's outer loop."""
    return Plan(
        steps=asked.steps,
        minutes=asked.max_minutes,
        meta_batch=asked.meta_batch,
        lr=asked.lr,
        validations=asked.validations,
        exact=asked.exact,
    )


def protocol_of(asked: Experiment) -> Protocol:
    return Protocol(asked.shots, asked.episodes, asked.test_rows, seed=asked.seed)


def roles_of(asked: Experiment, test: str | None) -> Roles:
    """The tasks that are asked for; those that judge are `test`."""
    root = os.environ.get("METANLP_DATA")
    return read_roles(asked.data, asked.validation, test, Path(root) if root else None, parse_columns(asked.columns))


def prepare(asked: Experiment, ranks: Ranks, everything: Roles) -> Run:
    """Load the backbone; say what leaks, take it out of training."""
    roles, leaks = drop_leaks(everything)
    check_shots(roles.test, asked.shots)
    # Before the seconds that loading takes, as this refuses tasks with too few rows. It tokenises later.
    episodes = Episodes(roles.train, lambda *texts: net.encode(*texts), Sampling(), asked.seed)
    options = options_of(asked)
    check_memory(roles, episodes.sampling, asked, options, ranks)
    net = Backbone.open(asked.model, options, ranks.device)
    trials = validation_trials(roles.validation, net, asked)
    shared = Run(asked, net, roles, episodes, trials, ranks, leaks, leakage(everything))
    if ranks.main:
        report.say(start_facts(shared))
    return shared


def options_of(asked: Experiment) -> Options:
    """The backbone's."""
    adapt = Lora(rank=asked.rank, alpha=2 * asked.rank, targets=asked.targets)
    return Options(adapt, asked.views, asked.precision, prompt=asked.prompt, quantize=asked.quantize,
                   gradient_checkpoint=asked.gradient_checkpoint)  # fmt: skip


def check_memory(roles: Roles, sampling: Sampling, asked: Experiment, options: Options, ranks: Ranks) -> None:
    """Say what the run will need, before the model is loaded. Raises InputError where there is less."""
    adapted_to = (*roles.validation, *roles.test)
    tokens = largest_pass(roles.train, adapted_to, sampling, max(asked.shots), options.max_length)
    needed = memory.estimate(outline(asked.model), options, ranks.device, tokens)
    if ranks.main:
        report.say({"memory": f"{needed} of {tokens:,} tokens"})
    memory.require(needed, ranks.device)


def start_facts(shared: Run) -> dict[str, str]:
    """What the run is about to do, for people."""
    roles, net = shared.roles, shared.net
    leaks, asked = sum(shared.leaks.values()), shared.asked
    length = f"{asked.max_minutes:g} minutes" if asked.max_minutes else f"{asked.steps} meta-steps"
    others = [name for name in methods(asked)[:-1] if name not in BASELINES]
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
    }


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


def trained(shared: Run, name: str, plan: Plan) -> Learner:
    """One method after meta-training; with --resume from where it was, which may be the end."""
    asked, ranks = shared.asked, shared.ranks
    algorithm = make(name, asked, shared.roles.train)
    return meta_train(
        algorithm,
        shared.net,
        shared.episodes,
        plan,
        validate=validator(algorithm, shared),
        folder=folder_of(asked, name),
        resume=asked.resume,
        seed=asked.seed,
        ranks=ranks,
        name=name,
        trackers=asked.log_with,
    )


def make(name: str, asked: Experiment, train: Sequence[Task]) -> Algorithm:
    """A method with the settings of the experiment."""
    algorithm = ALGORITHMS[name]()
    inner = replace(algorithm.inner, lr=asked.inner_lr, head_lr=asked.head_lr)
    algorithm = replace(algorithm, inner=replace(inner, steps=asked.inner_steps) if inner.steps else inner)
    if name in BASELINES:
        return algorithm
    return replace(algorithm, classes=tuple((task.name, FORMS[task.form].outputs(task)) for task in train))


def validator(algorithm: Algorithm, shared: Run) -> Callable[[Weights], list[float]] | None:
    """The score of each of the validation trials, dealt over the ranks; None where there are no validation tasks."""
    if not shared.trials:
        return None

    def validate(theta: Weights) -> list[float]:
        mine = []
        for number in shared.ranks.mine(len(shared.trials)):
            exam, support = shared.trials[number]
            phi = algorithm.adapt(shared.net, theta, support.batch)
            mine.append((number, exam.score(algorithm, phi, support)))
        # In the order of the trials, so that their mean has the same bits with any number of processes.
        return [value for _, value in sorted(shared.ranks.gather(mine))]

    return validate


def with_recipe(shared: Run, name: str, made: Learner | None) -> Learner:
    """The learner with the adaptation that did best on validation tasks, saved. A baseline that learns nothing is made
    here; one that a resumed run saved before is taken from its folder."""
    asked, folder = shared.asked, folder_of(shared.asked, name)
    if asked.resume and (folder / CONFIG).is_file():
        return replace(Learner.load(folder, base=asked.model), net=shared.net)
    if made is None:
        algorithm = make(name, asked, shared.roles.train)
        made = Learner(algorithm, shared.net, algorithm.init(shared.net, torch.Generator().manual_seed(asked.seed)))
    record = {**made.record, **origin(shared)}
    if trials := spread(shared.trials, asked.search_trials):
        with Progress(f"{name}: recipe") as progress:
            tick = progress.ticks(len(made.algorithm.recipes()) * len(trials))
            search = choose(made.algorithm, made.net, made.theta, trials, tick)
        curve = {str(step): value for step, value in search.curve.items()}
        record |= {"recipe_s": search.seconds, "recipe_score": search.score, "curve": curve}
        made = replace(made, algorithm=search.algorithm)
    made = replace(made, record=record)
    made.save(folder)
    return made


def test(shared: Run, learners: Mapping[str, Learner]) -> Report:
    """Held-out tasks, every method on the same episodes."""
    asked, tasks = shared.asked, shared.roles.test
    with Progress("test") as progress:
        tick = progress.ticks(count_trials(tasks, protocol_of(asked)) * len(learners))
        found = meta_test(learners, tasks, protocol_of(asked), main=asked.method, tick=tick)
    sources = {task.name: task.source for task in tasks}
    extra = {
        "world_size": shared.ranks.size,
        "sources": sources,
        "training_rows_left_out": dict(shared.leaks),
        "asked": shown(asked),
    }
    return replace(found, protocol=found.protocol | extra)


def save(shared: Run, main: Learner, found: Report) -> None:
    """`results.json`, and the table on standard output."""
    write_json(shared.asked.out / "results.json", asdict(found))
    report.show(found, main.record)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    checkpoint.atomic_write(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def origin(shared: Run) -> dict[str, Any]:
    """Where a learner comes from, for its configuration."""
    roles = shared.roles
    tasks = {"train": [t.name for t in roles.train], "validation": [t.name for t in roles.validation]}
    sources = {task.name: task.source for task in (*roles.train, *roles.validation)}
    return {"tasks": tasks, "sources": sources, "seed": shared.asked.seed,
            "sampling": to_json(shared.episodes.sampling), "world_size": shared.ranks.size}  # fmt: skip


def shown(asked: Experiment) -> dict[str, Any]:
    """The options, without paths of this machine."""
    options = to_json(asked)
    return {key: value for key, value in options.items() if key not in ("out", "resume")} | {
        role: ",".join(Path(name).name if os.sep in name else name for name in options[role].split(","))
        for role in ("model", "data", "validation", "test")
    }
