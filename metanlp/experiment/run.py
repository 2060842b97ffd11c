"""One experiment: every method trained on the same tasks at equal compute, and tested on the same episodes.

The steps are `meta_train`, `recipe.choose` and `meta_test`; here is only their order.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metanlp.algorithms import Algorithm
from metanlp.core import storage
from metanlp.core.intervals import interval
from metanlp.core.outputs import LEAKAGE, LOCAL, OutputFolder
from metanlp.core.progress import Progress
from metanlp.core.settings import to_json
from metanlp.core.signals import command_line
from metanlp.core.torch_modes import own_modes
from metanlp.core.types import Roles, Task, Weights
from metanlp.evaluation import answers
from metanlp.evaluation.diagnostics import Diagnostics, nearest
from metanlp.evaluation.external import ExternalBaseline
from metanlp.evaluation.meta_test import chance_of, count_trials, meta_test
from metanlp.evaluation.recipe_search import choose
from metanlp.evaluation.results import RESULTS, Report
from metanlp.experiment.forecast import foretell
from metanlp.experiment.options import Experiment
from metanlp.experiment.prepare import (
    NOT_META_TRAINED,
    Run,
    external_baselines,
    make,
    methods,
    prepare,
    protocol_of,
    roles_of,
    spread,
    start_facts,
)
from metanlp.experiment.start import as_it_is, learners_of, settled_start
from metanlp.forms.metrics import bounds_of
from metanlp.learner.artefact import CONFIG
from metanlp.learner.learner import Learner
from metanlp.report.advice import show_adapting, show_answers
from metanlp.report.canvas import NO_PLOT, can_plot
from metanlp.report.cleaning import cleaning_examples, cleaning_rows, show_cleaning
from metanlp.report.page import PAGE, write_page
from metanlp.report.tables import say, show, show_overview
from metanlp.tasks.taskset import places
from metanlp.training.meta_train import Plan, meta_train
from metanlp.training.processes import Ranks
from metanlp.training.rate_search import RATES, search_rate, whole

COMPARED = 100  # training tasks, at the most, that a test task's nearest are looked for among


@own_modes()
def run(
    asked: Experiment, roles: Roles | None = None, *, anew: Sequence[Path] = (), fold: int = 1, folds: int = 1
) -> Report | None:
    """Everything, on as many processes as the launcher started; they train together, then rank 0 tests.

    Leaves the files of docs/commands.md in `asked.out`, which `asked.replace` lets replace an earlier run's there and
    in the folders `anew`, once the input has proved good. Returns the report, on rank 0. `roles` are read as `asked`
    says where they are not given. Of one of several `folds` alike, the first foretells all, and what each found is one
    line. Without test tasks there is a learner, a command that adapts it, and no report. Raises InputError,
    DivergedError, StorageError, StoppedError.
    """
    names, others, plan = settled(asked)
    ranks = Ranks.start(threads=asked.threads)
    # Before they wait for each other in ways that hang where one was asked something else.
    ranks.require_same("at the start", lambda: {f"--{k}": v for k, v in shown(asked).items() if k != "threads"})
    ranks.on_main(output_of(asked).check)
    with ExitStack() as held:
        # Whether a folder is in use is said at once; a new one is made when the input has proved good.
        new = ranks.broadcast(not os.path.exists(asked.out))
        if not new:
            ranks.on_main(lambda: held.enter_context(storage.lock(asked.out)))
        roles = roles or roles_of(asked, asked.test)
        asked = settled_start(asked, [roles], ranks.main)
        shared = prepare(asked, ranks, roles, quiet=fold > 1)
        if ranks.main and fold == 1:
            say(start_facts(shared))
            show_cleaning(every_task(shared.roles))
        if new:  # and looked at again: another run may have made it meanwhile, and come to its end
            ranks.on_main(lambda: [held.enter_context(storage.lock(asked.out)), output_of(asked).check()])
        if not asked.resume:  # only now, as bad input must not cost what an earlier run left
            ranks.on_main(lambda: [OutputFolder(out).clear() for out in (asked.out, *anew)])
        ranks.on_main(lambda: write_json(asked.out / LEAKAGE, {"schema": 1, **asdict(shared.leakage)}))
        plan = replace(plan, tasks_per_pass=shared.needed.tasks)
        if not asked.resume and fold == 1:
            ranks.on_main(lambda: say({"forecast": str(foretell(shared, plan, folds))}))
        learners = all_trained(shared, names, plan)
        ranks.close()
        if not ranks.main:
            return None
        learners = {name: with_recipe(shared, name, learners.get(name)) for name in names if name not in others}
        if not shared.roles.test:
            show_adapting({name: str(folder_of(asked, name)) for name in learners})
            return None
        before = as_it_is(shared.start, asked.start, shared.roles.test)
        found, mistakes = test(shared, before | {name: others.get(name) or learners[name] for name in names})
        kept = learners_of(asked.start, {name: folder_of(asked, name) for name in learners})
        changes = cleaning_examples(every_task(shared.roles))
        local = save(found, asked.out, mistakes, kept, asked.page, changes)
        if folds == 1:
            tell(found, asked.out, local, overview=asked.overview, note=shared.net.notice())
        return found


def settled(asked: Experiment) -> tuple[tuple[str, ...], Mapping[str, ExternalBaseline], Plan]:
    """The methods, those of others among them, and the outer loop. Raises InputError for options that can't be, before
    anything is read or touched."""
    return methods(asked), external_baselines(asked), plan_of(asked)


def output_of(asked: Experiment) -> OutputFolder:
    """The folder that the experiment fills."""
    roles = (place for names in (asked.data, asked.validation, asked.test) for place in places(names))
    named = (asked.model, asked.start or "", *roles)
    return OutputFolder(asked.out, named, asked.replace, asked.resume)


def folder_of(asked: Experiment, name: str) -> Path:
    return asked.out if name == asked.method else asked.out / "baselines" / name


def plan_of(asked: Experiment) -> Plan:
    """The main method's outer loop."""
    together = 1 if asked.tasks_per_pass is None else asked.tasks_per_pass
    lr = RATES[0] if asked.lr == "auto" else asked.lr  # until it is found
    return Plan(steps=asked.steps, minutes=asked.max_minutes, meta_batch=asked.meta_batch, tasks_per_pass=together,
                lr=lr, validations=asked.validations, exact=asked.exact)  # fmt: skip


def all_trained(shared: Run, names: Sequence[str], plan: Plan) -> dict[str, Learner]:
    """The main method, and with as many tokens all others that learn from tasks."""
    learners = {shared.asked.method: trained(shared, shared.asked.method, plan)}
    tokens = learners[shared.asked.method].record["tokens"]
    equal = replace(plan, steps=None, minutes=None, tokens=tokens, patience=0)  # no less than the main method
    others = (name for name in names[:-1] if name not in NOT_META_TRAINED)
    return learners | {name: trained(shared, name, equal) for name in others}


def trained(shared: Run, name: str, plan: Plan) -> Learner:
    """One method after meta-training, with --lr auto at its own rate; with --resume from where it was, which may be the
    end."""
    asked, ranks, folder = shared.asked, shared.ranks, folder_of(shared.asked, name)
    algorithm, rates = make(name, asked), dict[str, Any]()
    validate = validator(algorithm, shared)
    train = partial(
        meta_train,
        algorithm,
        shared.net,
        shared.episodes,
        validated_on=shared.validated_on,
        resume=asked.resume,
        seed=asked.seed,
        ranks=ranks,
        start=shared.start,
    )
    if asked.lr == "auto" and validate:
        found = search_rate(train, validate, plan, folder, name, ranks)
        plan, rates = whole(plan, found.lr), found.record
        if ranks.main:
            say({f"rate of {name}": str(found)})
    learner = train(plan, validate=validate, folder=folder, name=name, trackers=asked.log_with)
    return replace(learner, record={**learner.record, **rates})


def validator(algorithm: Algorithm, shared: Run) -> Callable[[Weights], list[float]] | None:
    """The score of each of the validation trials, dealt over the ranks; None where there are no validation tasks."""
    if not shared.trials:
        return None

    def validate(theta: Weights) -> list[float]:
        mine = list[tuple[int, float]]()
        for number in shared.ranks.mine(len(shared.trials)):
            held_out, support = shared.trials[number]
            phi = algorithm.adapt(shared.net, theta, support.batch)
            mine.append((number, held_out.score(algorithm, phi, support)))
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
        algorithm = make(name, asked)
        made = Learner(algorithm, shared.net, algorithm.init(shared.net, torch.Generator().manual_seed(asked.seed)))
    record = {**made.record, **origin(shared)}
    if trials := spread(shared.trials, asked.search_trials):
        with Progress(f"{name}: recipe") as progress:
            tick = progress.ticks(len(made.algorithm.recipes()) * len(trials))
            search = choose(made.algorithm, shared.net, made.theta, trials, tick)
        lows, highs = zip(*(bounds_of(held_out.form.metric) for held_out, _ in trials), strict=True)
        possible = min(lows), max(highs)
        curve = {str(step): asdict(interval(np.array(each), possible)) for step, each in search.by_step.items()}
        record |= {"recipe_s": search.seconds, "recipe_score": search.score, "curve": curve}
        made = replace(made, algorithm=search.algorithm)
    made = replace(made, record=record)
    made.save(folder)
    return made


def test(shared: Run, learners: Mapping[str, Learner | ExternalBaseline]) -> tuple[Report, Mapping[str, Any]]:
    """Held-out tasks, every method on the same episodes; and the worst mistakes, which hold texts."""
    asked, tasks, protocol = shared.asked, shared.roles.test, protocol_of(shared.asked)
    diagnostics = Diagnostics(asked.method)
    with Progress("test") as progress:
        tick = progress.ticks(count_trials(tasks, protocol) * len(learners))
        found = meta_test(learners, tasks, protocol, main=asked.method, tick=tick, diagnostics=diagnostics)
    extra = {"world_size": shared.ranks.size, "sources": {task.name: task.source for task in tasks},
             "training_rows_left_out": dict(shared.leaks), "seen_rows_left_out": dict(shared.known),
             "validation_chance": chance_of([held_out.task for held_out, _ in shared.trials]),
             "cleaned": cleaning_rows(every_task(shared.roles)), "asked": shown(asked)}  # fmt: skip
    near = nearest(shared.net, spread(shared.roles.train, COMPARED), spread(tasks, COMPARED))
    return replace(found, protocol=found.protocol | extra, nearest=near), diagnostics.mistakes


def save(
    found: Report, out: Path, mistakes: Mapping[str, Any], learners: Mapping[str, str], page: bool,
    changes: Sequence[Mapping[str, str]] = (), train: Mapping[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """`results.json`, `local.json` and the page. `learners` is what `--from` takes for each method, `changes` examples
    of what cleaning did, `train` the command that trains a method on all tasks. Returns what stands in `local.json`."""
    write_json(out / RESULTS, answers.to_json(found))
    local = {"schema": 1, **here(), "learners": dict(learners), "mistakes": mistakes, "changes": list(changes),
             "train": dict(train or {})}  # fmt: skip
    write_json(out / LOCAL, local)
    if page:
        write_page(out)
    else:  # one of before would tell of other results
        (out / PAGE).unlink(missing_ok=True)
    return local


def tell(found: Report, out: Path, local: Mapping[str, Any], *, overview: bool = False, note: str = "") -> None:
    """Tables, answers, a note and the place of the page, on standard output."""
    if overview:
        show_overview(found, found.main)
    else:
        show(found)
    show_answers(found, local)
    if note:
        say({"note": note})
    if (out / PAGE).is_file():
        say({"report": str(out / PAGE)} | ({} if can_plot() else {"plots": NO_PLOT}))


def here() -> dict[str, str]:
    """What is said on this machine alone: the command, which may name folders, and the machine."""
    return {
        "command": command_line(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "ended": time.strftime("%Y-%m-%d %H:%M"),
    }


def every_task(roles: Roles) -> tuple[Task, ...]:
    """Those that teach, then those that choose, then those that judge."""
    return (*roles.train, *roles.validation, *roles.test)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    storage.atomic_write(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


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
    told = ("out", "replace", "resume", "overview", "page", "publish", "llm_url", "store_gb")
    return {key: value for key, value in options.items() if key not in told} | {
        role: ",".join(Path(name).name if os.sep in name else name for name in options[role].split(","))
        for role in ("model", "data", "validation", "test", "start")
        if options[role]
    }
