"""One experiment: every method trained on the same tasks at equal compute, and tested on the same episodes.

The steps are `meta_train`, `recipe.choose` and `meta_test`; here is only their order.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metanlp import checkpoint, report
from metanlp.algorithms import Algorithm
from metanlp.artefact import CONFIG
from metanlp.config import to_json
from metanlp.forecast import foretell
from metanlp.insight import Insight, nearest
from metanlp.learner import Learner
from metanlp.meta_test import RESULTS, Report, count_trials, meta_test
from metanlp.meta_train import Plan, meta_train
from metanlp.metrics import interval
from metanlp.options import Experiment
from metanlp.parallel import Ranks
from metanlp.preparation import UNTAUGHT, Run, make, methods, prepare, protocol_of, rivals, roles_of, spread
from metanlp.progress import Progress
from metanlp.recipe import choose
from metanlp.report.page import LOCAL, PAGE, PLOTS, write_page
from metanlp.rivals import Rival
from metanlp.rivals.kept import KEPT
from metanlp.types import Roles, Weights

COMPARED = 100  # training tasks, at the most, that a test task's nearest are looked for among


def run(asked: Experiment, roles: Roles | None = None, *, anew: Sequence[Path] = ()) -> Report | None:
    """Everything, on as many processes as the launcher started; they train together, then rank 0 tests.

    Leaves the files of the README's table in `asked.out`. The report, on rank 0. `roles` are read as `asked` says where
    they are not given. What an earlier run left there, and in the folders `anew`, is given up when the input has proved
    good, unless that run is to go on.
    """
    names, others, plan = settled(asked)
    ranks = Ranks.start(threads=asked.threads)
    with ExitStack() as held:
        # Whether a folder is in use is said at once; a new one is made when the input has proved good.
        new = ranks.broadcast(not os.path.exists(asked.out))
        if not new:
            ranks.on_main(lambda: held.enter_context(checkpoint.lock(asked.out)))
        shared = prepare(asked, ranks, roles or roles_of(asked, asked.test))
        if new:
            ranks.on_main(lambda: held.enter_context(checkpoint.lock(asked.out)))
        if not asked.resume:  # only now, as bad input must not cost what an earlier run left
            ranks.on_main(lambda: [forget(out) for out in (asked.out, *anew)])
        ranks.on_main(lambda: write_json(asked.out / "leakage.json", {"schema": 1, **asdict(shared.leakage)}))
        plan = replace(plan, tasks_per_pass=shared.needed.tasks)
        if not asked.resume:
            ranks.on_main(lambda: report.say({"forecast": str(foretell(shared, plan))}))
        learners = {asked.method: trained(shared, asked.method, plan)}
        tokens = learners[asked.method].record["tokens"]
        equal = replace(plan, steps=None, minutes=None, tokens=tokens, patience=0)  # no less than the main method
        for name in names[:-1]:
            if name not in UNTAUGHT:
                learners[name] = trained(shared, name, equal)
        ranks.close()
        if not ranks.main:
            return None
        learners = {name: with_recipe(shared, name, learners.get(name)) for name in names if name not in others}
        found, mistakes = test(shared, {name: others.get(name) or learners[name] for name in names})
        save(shared, learners[asked.method], found, mistakes)
        return found


def settled(asked: Experiment) -> tuple[tuple[str, ...], Mapping[str, Rival], Plan]:
    """The methods, those of others among them, and the outer loop. Raises InputError for options that can't be, before
    anything is read or touched."""
    return methods(asked), rivals(asked), plan_of(asked)


def forget(out: Path) -> None:
    """Learners, answers and a report that an earlier run left in the folder are not this run's."""
    each = (*out.glob(f"baselines/*/{CONFIG}"), *out.glob(f"baselines/*/{KEPT}"))
    for made in (out / CONFIG, *each, out / RESULTS, out / PAGE, out / LOCAL, *out.glob(f"{PLOTS}/*.*")):
        made.unlink(missing_ok=True)


def folder_of(asked: Experiment, name: str) -> Path:
    return asked.out if name == asked.method else asked.out / "baselines" / name


def plan_of(asked: Experiment) -> Plan:
    """The main method's outer loop."""
    return Plan(
        steps=asked.steps,
        minutes=asked.max_minutes,
        meta_batch=asked.meta_batch,
        tasks_per_pass=1 if asked.tasks_per_pass is None else asked.tasks_per_pass,
        lr=asked.lr,
        validations=asked.validations,
        exact=asked.exact,
    )


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
        return Learner.load(folder, base=asked.model, net=shared.net)
    if made is None:
        algorithm = make(name, asked, shared.roles.train)
        made = Learner(algorithm, shared.net, algorithm.init(shared.net, torch.Generator().manual_seed(asked.seed)))
    record = {**made.record, **origin(shared)}
    if trials := spread(shared.trials, asked.search_trials):
        with Progress(f"{name}: recipe") as progress:
            tick = progress.ticks(len(made.algorithm.recipes()) * len(trials))
            search = choose(made.algorithm, made.net, made.theta, trials, tick)
        curve = {str(step): asdict(interval(np.array(each))) for step, each in search.by_step.items()}
        record |= {"recipe_s": search.seconds, "recipe_score": search.score, "curve": curve}
        made = replace(made, algorithm=search.algorithm)
    made = replace(made, record=record)
    made.save(folder)
    return made


def test(shared: Run, learners: Mapping[str, Learner | Rival]) -> tuple[Report, Mapping[str, Any]]:
    """Held-out tasks, every method on the same episodes; and the worst mistakes, which hold texts."""
    asked, tasks = shared.asked, shared.roles.test
    insight = Insight(asked.method)
    with Progress("test") as progress:
        tick = progress.ticks(count_trials(tasks, protocol_of(asked)) * len(learners))
        found = meta_test(learners, tasks, protocol_of(asked), main=asked.method, tick=tick, insight=insight)
    sources = {task.name: task.source for task in tasks}
    extra = {
        "world_size": shared.ranks.size,
        "sources": sources,
        "training_rows_left_out": dict(shared.leaks),
        "asked": shown(asked),
    }
    near = nearest(shared.net, spread(shared.roles.train, COMPARED), spread(tasks, COMPARED))
    return replace(found, protocol=found.protocol | extra, nearest=near), insight.mistakes


def save(shared: Run, main: Learner, found: Report, mistakes: Mapping[str, Any]) -> None:
    """`results.json`, `local.json`, the tables on standard output, and the page."""
    asked = shared.asked
    write_json(asked.out / RESULTS, asdict(found))
    write_json(asked.out / LOCAL, {"schema": 1, **here(), "mistakes": mistakes})
    if asked.overview:
        report.show_overview(found, asked.method)
    else:
        report.show(found, main.record)
    show_page(asked.out, asked.page)


def show_page(out: Path, page: bool) -> None:
    """The page, if it is asked for, and where it is."""
    if not page:  # one of before would tell of other results
        (out / PAGE).unlink(missing_ok=True)
        return
    report.say({"report": str(write_page(out))} | ({} if report.can_plot() else {"plots": report.NO_PLOT}))


def here() -> dict[str, str]:
    """What is said on this machine alone: the command, which may name folders, and the machine."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "ended": time.strftime("%Y-%m-%d %H:%M"),
    }


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
    """The options, without paths of this machine and without what decides no result."""
    options = to_json(asked)
    told = ("out", "resume", "overview", "page", "publish", "llm_url")
    return {key: value for key, value in options.items() if key not in told} | {
        role: ",".join(Path(name).name if os.sep in name else name for name in options[role].split(","))
        for role in ("model", "data", "validation", "test")
    }
