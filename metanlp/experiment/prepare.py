"""What the methods of one experiment share: tasks in their roles, the backbone, episodes, validation trials."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from metanlp.algorithms import ALGORITHMS, BASELINES, Algorithm
from metanlp.algorithms.base import Guided
from metanlp.backbone import Backbone, Lora
from metanlp.backbone import memory_estimate as memory
from metanlp.backbone.cpu_threads import at_a_time
from metanlp.backbone.options import Options
from metanlp.backbone.pretrained import outline
from metanlp.backbone.quantize import require_library
from metanlp.core.errors import InputError
from metanlp.core.settings import from_json
from metanlp.core.types import Roles, Task
from metanlp.episodes.sampling import Episodes, Sampling, all_texts, largest_pass
from metanlp.evaluation.external import EXTERNAL, AnswerCache, ExternalBaseline, Llm, Logistic, SetFit, Tfidf
from metanlp.evaluation.external.answer_cache import KEPT
from metanlp.evaluation.external.base import count_asked
from metanlp.evaluation.held_out import HeldOutTask, Protocol, Support, check_forms, check_shots
from metanlp.experiment.options import ALL, NOTHING, Experiment
from metanlp.forms import FORMS
from metanlp.learner.artefact import located, read_config
from metanlp.learner.learner import Learner
from metanlp.learner.origin import teachers
from metanlp.report.tables import say
from metanlp.tasks.leaks import Leakage, drop_leaks, leakage, without_seen
from metanlp.tasks.reading.cleaning import clean_task
from metanlp.tasks.reading.columns import parse_columns
from metanlp.tasks.roles import read_roles
from metanlp.tasks.taskset import notes
from metanlp.training.processes import Ranks
from metanlp.training.task_heads import rows_in_memory

T = TypeVar("T")
NOT_META_TRAINED = (*BASELINES, *EXTERNAL)  # need no meta-training
PADDED = "padded to the longest text of a pass, because this architecture can't be packed: slower, and no trunk"


@dataclass(frozen=True)
class Run:
    """What the methods of one experiment share."""

    asked: Experiment
    net: Backbone
    roles: Roles
    episodes: Episodes
    trials: list[tuple[HeldOutTask, Support]]
    ranks: Ranks
    needed: memory.MemoryEstimate  # what the run will need
    leaks: Mapping[str, int] = field(default_factory=dict)  # training rows left out, by task
    leakage: Leakage = Leakage(())  # where they stand
    start: Learner | None = None  # where θ begins
    known: Mapping[str, int] = field(default_factory=dict)  # rows that `start` has seen, left out of judging, by task

    @cached_property
    def validated_on(self) -> dict[str, str]:
        """What the validation tasks judge by, so that a run goes on with no other."""
        found = dict[str, list[str]]()
        for held_out, support in self.trials:
            found.setdefault(held_out.task.name, []).append(f"{support.shots} shots, set {support.number}")
        rows = {held_out.task.name: held_out.fingerprint()[:12] for held_out, _ in self.trials}
        return {name: f"rows {rows[name]}, {', '.join(sets)}" for name, sets in found.items()}


def methods(asked: Experiment) -> tuple[str, ...]:
    """Baselines first, the main method last. Raises InputError for an unknown one, or one that can't be as asked."""
    others = asked.baselines
    if ALL in others and {*others} <= {ALL, *EXTERNAL}:
        others = (*(name for name in others if name != ALL), *ALGORITHMS)
    names = (*dict.fromkeys(name for name in others if name != asked.method), asked.method)
    if unknown := [name for name in names if name not in ALGORITHMS | EXTERNAL]:
        known = f"{sorted(ALGORITHMS)}, or {ALL!r} alone; with either, {' and '.join(EXTERNAL)}"
        raise InputError(f"method {unknown[0]!r} is not known; choose from {known}")
    if asked.method in NOT_META_TRAINED:
        raise InputError(f"--method {asked.method} learns nothing from tasks; choose it as one of --baselines")
    able = [name for name, kind in ALGORITHMS.items() if kind.differentiable]
    if asked.second_order and asked.method not in able:
        raise InputError(f"--second-order is not for {asked.method}; it is for {', '.join(able)}")
    return names


def external_baselines(asked: Experiment) -> dict[str, ExternalBaseline]:
    """Those among the baselines. Raises InputError for a language model that is not named, or named and not asked."""
    names = [name for name in methods(asked) if name in EXTERNAL]
    if "llm" in names and not (asked.llm_url and asked.llm_model):
        raise InputError("--baselines llm wants --llm-url, as http://127.0.0.1:8000/v1, and --llm-model: its name")
    if "llm" not in names and (asked.llm_url or asked.llm_model):
        raise InputError("--llm-url and --llm-model are given, and llm is not asked for; add it to --baselines")
    made = {"llm": partial(Llm, str(asked.llm_url), str(asked.llm_model)), "setfit": partial(SetFit, asked.model),
            "logistic": partial(Logistic, asked.model), "tfidf": Tfidf}  # fmt: skip
    return {name: made[name](answer_cache=AnswerCache(asked.out / "baselines" / name / KEPT)) for name in names}


def make(name: str, asked: Experiment) -> Algorithm:
    """A method with the settings of the experiment."""
    algorithm = ALGORITHMS[name]()
    inner = replace(algorithm.inner, lr=asked.inner_lr, head_lr=asked.head_lr)
    algorithm = replace(algorithm, inner=replace(inner, steps=asked.inner_steps) if inner.steps else inner)
    if isinstance(algorithm, Guided):
        algorithm = replace(algorithm, decorrelate=asked.decorrelate)
    if algorithm.differentiable and name == asked.method:
        algorithm = replace(algorithm, second_order=asked.second_order)
    return algorithm


def roles_of(asked: Experiment, test: str | None) -> Roles:
    """The tasks that are asked for, cleaned where that is asked; those that judge are `test`."""
    root, test = os.environ.get("METANLP_DATA"), None if test == NOTHING else test
    place, columns = Path(root) if root else None, parse_columns(asked.columns)
    roles = read_roles(asked.data, asked.validation, test, place, columns, asked.drop_repeats)
    if not asked.clean:
        return roles
    return Roles(*(tuple(map(clean_task, tasks)) for tasks in (roles.train, roles.validation, roles.test)))


def prepare(asked: Experiment, ranks: Ranks, everything: Roles, *, quiet: bool = False) -> Run:
    """Load the backbone; say what memory is needed, unless told to be `quiet`; take what leaks out of training."""
    require_library(asked.quantize)
    others = external_baselines(asked)
    seen = (*everything.train, *everything.validation)
    for name in methods(asked):  # an external baseline sees none but those that judge
        check_forms(name, (ALGORITHMS | EXTERNAL)[name].learns, (*(() if name in others else seen), *everything.test))
    for baseline in others.values():
        ranks.on_main(baseline.check)
    roles, leaks = drop_leaks(everything)
    check_shots(roles.test, asked.shots)
    # Before the seconds that loading takes, as this refuses tasks with too few rows. It tokenises later.
    episodes = Episodes(roles.train, lambda *texts: net.encode(*texts), Sampling(mix=asked.mix), asked.seed)
    options = options_of(asked)
    needed = check_memory(roles, episodes.sampling, asked, options, ranks, quiet)
    net = Backbone.open(asked.model, options, ranks.device, asked.store_gb)
    start = Learner.load(asked.start, net=net) if asked.start else None
    roles, known = judged_by_new_rows(roles, start)
    trials = validation_trials(roles.validation, net, asked)
    if asked.lr == "auto" and not trials:
        raise InputError("--lr auto is chosen on validation tasks, and there are none; name some, or give a number")
    return Run(asked, net, roles, episodes, trials, ranks, needed, leaks, leakage(everything), start, known)


def judged_by_new_rows(roles: Roles, start: Learner | None) -> tuple[Roles, dict[str, int]]:
    """The roles without evaluation rows that `start` has learned from, and how many there were, by task."""
    if start is None:
        return roles, {}
    (validation, some), (test, more) = (without_seen(tasks, start.seen) for tasks in (roles.validation, roles.test))
    return Roles(roles.train, validation, test), some | more


def protocol_of(asked: Experiment) -> Protocol:
    """Of the test."""
    return Protocol(asked.shots, asked.episodes, asked.test_rows, asked.drop_repeats, asked.seed)


def options_of(asked: Experiment) -> Options:
    """The backbone's; those of the learner that training begins from, where there is one."""
    adapt = Lora(rank=asked.rank, alpha=2 * asked.rank, layers=asked.layers, targets=asked.targets)
    begins = Options(adapt, asked.views, prompt=asked.prompt)
    if asked.start:
        begins = from_json(Options, read_config(located(asked.start), "learner")["backbone"])
    longest = begins.max_length if asked.max_length is None else asked.max_length
    return replace(begins, precision=asked.precision, quantize=asked.quantize, max_length=longest,
                   gradient_checkpoint=asked.gradient_checkpoint)  # fmt: skip


def check_memory(
    roles: Roles, sampling: Sampling, asked: Experiment, options: Options, ranks: Ranks, quiet: bool
) -> memory.MemoryEstimate:
    """Say what the run will need, with as many episodes a pass as is asked for or fit, before the model is loaded.
    Raises InputError where there is less."""
    adapted_to = (*roles.validation, *roles.test)
    tokens = largest_pass(roles.train, adapted_to, sampling, max(asked.shots), options.max_length)
    rows = sampling.shots[1], sampling.queries
    each = largest_pass(roles.train, (), sampling, 0, options.max_length) / sum(rows)
    made = [make(name, asked) for name in methods(asked) if name not in NOT_META_TRAINED]
    kept = [algorithm.cost().rows(*rows) for algorithm in made]
    plain, stepped = (round(each * max(count)) for count in zip(*kept, strict=True))
    sizes = [FORMS[task.form].outputs(task.meaning) for task in roles.train]
    draws = asked.meta_batch * asked.steps if asked.steps else None
    heads = rows_in_memory(sizes, draws) if any(algorithm.task_heads for algorithm in made) else 0
    stored = all_texts(roles.train, options.max_length)
    needed = memory.estimate(outline(asked.model), options, ranks.device, max(tokens, plain), stepped, heads, stored)
    needed = replace(needed, store=min(needed.store, round(asked.store_gb * 1e9)))
    fitting = memory.tasks_per_pass(needed, memory.of_gpu(ranks.device), asked.meta_batch, ranks.size)
    together = asked.tasks_per_pass or ranks.broadcast(fitting)
    needed = needed.of(together, at_a_time(ranks.device, asked.meta_batch // together))
    if ranks.main and not quiet:
        say({"memory": f"{needed} of {together * tokens:,} tokens"})
    memory.require(needed, ranks.device)
    return needed


def start_facts(shared: Run) -> dict[str, str]:
    """What the run is about to do, for people."""
    roles, net = shared.roles, shared.net
    leaks, asked = sum(shared.leaks.values()), shared.asked
    length = f"{asked.max_minutes:g} minutes" if asked.max_minutes else f"{asked.steps} meta-steps"
    others = [name for name in methods(asked)[:-1] if name not in NOT_META_TRAINED]
    noted = notes((*roles.train, *roles.validation, *roles.test))
    more = f"; {len(noted) - 1} more, which `metanlp tasks` prints" if noted[1:] else ""
    held = ("" if net.options.quantize == "none" else f"weights in {net.options.quantize}, ") + net.options.precision
    facts = {
        "model": f"{net.name}, {net.depth} layers, adapters from layer {net.lowest + 1}, {held}",
        "processes": f"{shared.ranks.size} on {shared.ranks.device.type}, {torch.get_num_threads()} threads each",
        "tasks": f"{len(roles.train)} train, {len(roles.validation)} validation, {len(roles.test)} test",
        "leakage": f"{leaks} training rows left out because they stand in a validation or test task"
        + "".join(f"; {pair}" for pair in shared.leakage.first())
        + ("; all in leakage.json" if shared.leakage.overlaps else ""),
        "notes": f"{noted[0]}{more}" if noted else "",
        "start": begins(shared) if shared.start else "",
        "passes": ("packed, without padding" if net.family.packed else PADDED)
        + (f"; up to {asked.store_gb:g} GB of frozen states are stored" if net.store else ""),
        "views": ", ".join(net.view_names) + (f"; every text after {net.options.prompt!r}" * bool(net.options.prompt)),
        "meta-training": f"{length} for {asked.method}"
        + "".join(f", then as many tokens for {name}" for name in others),
    }
    trials = count_asked(roles.test, protocol_of(asked))
    facts |= {name: baseline.plan(*trials) for name, baseline in external_baselines(asked).items()}
    return {name: fact for name, fact in facts.items() if fact}


def begins(shared: Run) -> str:
    """Where θ begins, and what that leaves of evaluation."""
    assert shared.start is not None
    taught = len(teachers(shared.start.record))
    on = f", which learned from {taught} tasks" if taught else ""
    gone = f"; {count} evaluation rows left out, which it has seen" if (count := sum(shared.known.values())) else ""
    return f"{shared.asked.start}{on}{gone}"


def validation_trials(tasks: Sequence[Task], net: Backbone, asked: Experiment) -> list[tuple[HeldOutTask, Support]]:
    """Support sets of the validation tasks, evenly spread over tasks and the two fewest shots of the test."""
    episodes = 1 + asked.validation_trials // max(1, len(tasks))
    protocol = Protocol(tuple(sorted({*asked.shots}))[:2], episodes, test_rows=64, seed=asked.seed + 1)
    every = [HeldOutTask(task, net, protocol) for task in tasks]
    turns = zip_longest(*(held_out.supports for held_out in every))
    trials = [(held_out, s) for turn in turns for held_out, s in zip(every, turn, strict=True) if s]
    # They are adapted to again and again, so their trunk is computed now.
    return [(e, replace(s, batch=net.with_trunk(s.batch))) for e, s in spread(trials, asked.validation_trials)]


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, evenly spaced; all of them where there are no more."""
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)) if items else []
    return [items[int(place)] for place in places]
