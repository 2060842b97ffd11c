"""Knowledge tracing: every student is a task. Baselines and meta-learners on the same answers, and a teacher's page."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.nn.functional import normalize

from metanlp.algorithms import ALGORITHMS, Algorithm
from metanlp.algorithms.base import Inner
from metanlp.algorithms.inner import InnerLoop
from metanlp.backbone import Backbone
from metanlp.backbone.skills import SkillNet, names_read
from metanlp.core.errors import InputError
from metanlp.core.outputs import OutputFolder
from metanlp.core.progress import Progress
from metanlp.core.settings import to_json
from metanlp.core.torch_modes import own_modes
from metanlp.core.types import Weights
from metanlp.core.versions import versions
from metanlp.episodes.traces import BEFORE, Cuts, FirstAnswers, History
from metanlp.evaluation.external.recurrent import dkt
from metanlp.evaluation.external.regressions import REGRESSIONS, Given, Predict
from metanlp.evaluation.mastery import Mastery, loss
from metanlp.evaluation.traces import Window, bootstrap, by_steps, judged, searched, unadapted
from metanlp.experiment.options import NOTHING, Students
from metanlp.report.class_page import Wishes, write_class
from metanlp.report.tables import say
from metanlp.report.traces import Tracing, show_tracing, write_tracing
from metanlp.tasks.sources.traces import Student, Traces, doubled, once, read_traces
from metanlp.training.meta_train import Plan, outer_loop
from metanlp.training.processes import Ranks

WINDOWS = (Window(3, 10), Window(11, 20), Window(21, 50))
MOST = WINDOWS[-1].last
ABLE = ("multitask", "maml", "anil", "meta_sgd", "reptile", "protonet", "siamese", "memory", "mapping")
AS_IT_IS = "unadapted"  # θ of the first method, without a student's own answers but as what came before
Predictions = dict[Window, list[np.ndarray]]


@dataclass(frozen=True)
class Class:
    """Students by what they are there for."""

    skills: tuple[str, ...]
    teach: tuple[History, ...]
    choose: tuple[History, ...]
    judge: tuple[History, ...]

    @property
    def windows(self) -> list[Window]:
        """Those in which students who judge have right and wrong answers."""
        return [w for w in WINDOWS if len({*answered(self.judge, w).tolist()}) == 2]


@own_modes()
def students(asked: Students) -> Tracing:
    """Everything, on one process. Leaves `results.json`, `report.html` and `plots/` in `asked.out`. Raises InputError,
    DivergedError, StorageError, StoppedError."""
    methods = methods_of(asked)
    if (ranks := Ranks.start(threads=asked.threads)).size > 1:
        raise InputError(f"student runs on one process, here are {ranks.size}; start it without a launcher")
    sources = [asked.traces, *([asked.judged] if asked.judged else [])]
    with OutputFolder(asked.out, tuple(sources), asked.replace).claimed():
        room, names = prepared(asked)
        cosines = normalize(names, dim=-1) @ normalize(names, dim=-1).T if names.shape[1] else torch.eye(len(names))
        given = Given(room.teach, room.choose, cosines.double().numpy(), MOST, asked.seed)
        learned, costs = baselines(given)
        found = {name: of_all(predict, room) for name, predict in learned.items()}
        if methods:
            ours, spent = meta_learned(asked, methods, room, SkillNet(names, BEFORE), ranks)
            found, costs = found | ours, costs | spent
        drawn = bootstrap(len(room.judge), asked.draws, asked.seed)
        scores = {
            (name, str(window)): judged(room.judge, each[window], window, drawn)
            for name, each in found.items()
            for window in each
        }
        tracing = Tracing(scores, costs, facts(room))
        write_tracing(tracing, asked.out, {"asked": shown(asked), "versions": versions()})
        wishes = Wishes(asked.target, asked.practise, asked.warn, asked.shown, asked.seed)
        write_class(asked.out, wishes, room.skills, room.judge, cast(Mastery, learned["mastery"]), tracing)
        show_tracing(tracing)
    return tracing


def methods_of(asked: Students) -> dict[str, Algorithm]:
    """The methods by name. Raises InputError."""
    inner, made = Inner(asked.inner_steps, asked.inner_lr, asked.head_lr), dict[str, Algorithm]()
    for name in asked.methods:
        if name not in ABLE:
            raise InputError(f"--methods names {name!r}; answers in their order are learned by {', '.join(ABLE)}")
        kind = ALGORITHMS[name]
        steps = issubclass(kind, InnerLoop) and kind().inner.steps
        made[name] = kind(inner=inner) if steps else kind()
    return made


def prepared(asked: Students) -> tuple[Class, torch.Tensor]:
    """The students, read and counted, and what an encoder says of the skills' names. Raises InputError."""
    traces = single(read_traces(asked.traces, asked.columns, asked.judged, asked.held_out), asked.once)
    teach, choose = dealt(traces.teach, asked)
    room = Class(traces.skills, *(tuple(map(History.of, side)) for side in (teach, choose, traces.judge)))
    say(facts(room) | notes(traces))
    for what, side in (("judges", room.judge), ("chooses settings", room.choose)):
        if not answered(side, WINDOWS[0]).any():
            raise InputError(
                f"no student who {what} has a right answer among those after the first {WINDOWS[0].known}; give longer "
                "traces, or more students"
            )
    if asked.model == NOTHING:
        return room, torch.zeros(len(traces.skills), 0)
    return room, names_read(Backbone.load(asked.model), traces.skills)


def single(traces: Traces, wanted: bool) -> Traces:
    """Without questions that stand twice, as far as teaching students show it, where that is `wanted`."""
    pairs = doubled(traces.teach)
    apart = replace(
        traces, **{side: tuple(once(s, pairs) for s in getattr(traces, side)) for side in ("teach", "judge")}
    )
    if gone := sum(map(len, traces.judge)) - sum(map(len, apart.judge)):
        done = "they are left out" if wanted else "what reads the latest answers knows them; --once leaves them out"
        say({"questions that stand twice, under two skills": f"{gone:,} answers of those who judge; {done}"})
    return apart if wanted else traces


def dealt(students: Sequence[Student], asked: Students) -> tuple[list[Student], list[Student]]:
    """Students who teach, and those who choose settings. Raises InputError where one side would be empty."""
    count = round(asked.choose * len(students))
    if not 0 < count < len(students):
        raise InputError(
            f"--choose {asked.choose:g} of {len(students)} teaching students is {count}; some have to teach and some "
            "to choose: give more students or another share"
        )
    order = np.random.default_rng(asked.seed).permutation(len(students))
    first = [students[n].first(asked.most_answers) for n in order]
    return first[count:], first[:count]


def answered(histories: Sequence[History], window: Window) -> np.ndarray:
    """All answers in the window: (N,) bool."""
    return np.concatenate([h.student.right[window.known : window.last] for h in histories])


def facts(room: Class) -> dict[str, str]:
    """Who there is, for people."""
    sides = {"teach": room.teach, "choose settings": room.choose, "judge": room.judge}
    return {
        name: f"{len(side):,} students, {sum(len(each.student) for each in side):,} answers"
        for name, side in sides.items()
    } | {"skills": f"{len(room.skills):,}"}


def notes(traces: Traces) -> dict[str, str]:
    """What its owner should know of the data."""
    short = [student.name for student in traces.judge if len(student) <= WINDOWS[0].known]
    found: dict[str, str] = {}
    if short:
        found["too short"] = (
            f"{len(short)} students, {short[0]!r} first, have {WINDOWS[0].known} answers or fewer: they "
        )
        found["too short"] += "are on the page and judge nothing"
    if traces.new_skills:
        named = ", ".join(traces.new_skills[:3])
        found["new skills"] = (
            f"{len(traces.new_skills)} that no teaching student was asked ({named}): known by name alone"
        )
    return found


def baselines(given: Given) -> tuple[dict[str, Predict], dict[str, Any]]:
    """Those that have learned, and the seconds that it took."""
    found, costs = dict[str, Predict](), dict[str, Any]()
    learners = {**REGRESSIONS, "dkt": dkt}
    with Progress("baselines") as progress:
        tick = progress.ticks(len(learners))
        for name, learn in learners.items():
            begun = time.perf_counter()
            found[name] = learn(given)
            costs[name] = {"train_s": time.perf_counter() - begun}
            tick()
    return found, costs


def of_all(predict: Predict, room: Class) -> Predictions:
    """Of every student who judges."""
    every = [predict(history) for history in room.judge]
    return {window: [p[window.known : window.last] for p in every] for window in room.windows}


def meta_learned(
    asked: Students, methods: Mapping[str, Algorithm], room: Class, net: SkillNet, ranks: Ranks
) -> tuple[dict[str, Predictions], dict[str, Any]]:
    """The same of meta-learners. The last one sets the answers, forward and backward, that the others may read."""
    draws = FirstAnswers(room.teach, Cuts(asked.shots, asked.queries), asked.seed)
    plan = Plan(steps=asked.steps, meta_batch=asked.meta_batch, tasks_per_pass=asked.meta_batch, lr=asked.lr,
                weight_decay=asked.weight_decay, validations=8, patience=0)  # fmt: skip
    thetas, costs = dict[str, Weights](), dict[str, Any]()
    for name, algorithm in reversed(tuple(methods.items())):
        theta = algorithm.init(net, torch.Generator().manual_seed(asked.seed))
        thetas[name], state = outer_loop(
            algorithm, net, theta, draws, plan, {"algorithm": name, **net.identity()}, folder=None, resume=False,
            validate=lambda theta, algorithm=algorithm: validated(algorithm, net, theta, room.choose), ranks=ranks,
            name=name, trackers=(),
        )  # fmt: skip
        costs[name] = {"train_s": state.seconds, "answers": state.tokens, "steps": state.step}
        plan = replace(plan, steps=None, tokens=plan.tokens or state.tokens)
    found = dict[str, Predictions]()
    with Progress("test") as progress:
        tick = progress.ticks(len(methods) * len(room.windows))
        for name, algorithm in methods.items():
            if not found:
                found[AS_IT_IS] = {w: unadapted(algorithm, net, thetas[name], room.judge, w) for w in room.windows}
                costs[AS_IT_IS] = costs[name]
            found[name], costs[name]["recipes"] = tested(algorithm, net, thetas[name], room, tick)
    return found, costs


def tested(
    algorithm: Algorithm, net: SkillNet, theta: Weights, room: Class, tick: Callable[[], object]
) -> tuple[Predictions, dict[str, Any]]:
    """Predictions by window, each with the steps and rates that suit the choosing students best, and these."""
    found, recipes = Predictions(), dict[str, Any]()
    for window in room.windows:
        chosen = searched(algorithm, net, theta, room.choose, window)
        (found[window],) = by_steps(chosen, net, theta, room.judge, window, {chosen.inner.steps}).values()
        recipes[str(window)] = to_json(chosen.inner)
        tick()
    return found, recipes


def validated(algorithm: Algorithm, net: SkillNet, theta: Weights, choose: Sequence[History]) -> list[float]:
    """Of each window, how well the choosing students are predicted: the mean probability of what they answered."""
    found = list[float]()
    for window in (w for w in WINDOWS if len(answered(choose, w))):
        (each,) = by_steps(algorithm, net, theta, choose, window, {algorithm.inner.steps}).values()
        found.append(math.exp(-loss(choose, each, window.known)))
    return found


def shown(asked: Students) -> dict[str, Any]:
    """The options, without paths of this machine and without what decides no result."""
    options = to_json(asked)
    return {key: value for key, value in options.items() if key not in ("out", "replace")} | {
        key: Path(options[key]).name for key in ("traces", "judged", "model") if options[key]
    }
