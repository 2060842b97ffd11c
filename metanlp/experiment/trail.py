"""The whole trail: plain text, a model pretrained on it, many tasks at once, meta-training, adaptation. Held-out tasks
judge after each stage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from metanlp.backbone.all_weights import Size
from metanlp.backbone.masked_lm import MaskedLM
from metanlp.backbone.pretrained import open_tokenizer
from metanlp.core import storage
from metanlp.core.errors import InputError
from metanlp.core.outputs import HELD_OUT, LEAKAGE, OPTIONS, RESULTS, OutputFolder
from metanlp.core.progress import Progress
from metanlp.core.settings import require_same, to_json
from metanlp.core.torch_modes import own_modes
from metanlp.core.types import Roles, Task
from metanlp.evaluation.held_out import Protocol, check_shots
from metanlp.evaluation.meta_test import count_trials, meta_test
from metanlp.evaluation.results import Report, read_report
from metanlp.experiment.evaluate import joined
from metanlp.experiment.options import Experiment, Pretraining, Trail
from metanlp.experiment.prepare import Run, make, methods, prepare, roles_of, start_facts
from metanlp.experiment.pretrain import pretrain
from metanlp.experiment.run import plan_of, trained, with_recipe, write_json
from metanlp.learner.learner import Learner
from metanlp.report.stages import ADAPTED, FROZEN, row_of, show_stages, write_stages
from metanlp.report.tables import percent, say
from metanlp.tasks.leaks import leakage
from metanlp.tasks.sources.unlabelled import MaskedWords, adjacent_sentences, masked_words
from metanlp.tasks.taskset import TaskSet
from metanlp.training.processes import Ranks

RANDOM, PRETRAINED, MULTITASK, META = STAGES = ("random", "pretrained", "multitask", "meta-trained")
MAX_LENGTH = 128  # tokens of a text in pretraining


@own_modes()
def trail(asked: Trail) -> Report:
    """Every stage, on one process. Leaves in `asked.out` a folder a stage, `results.json` and `plots/stages`; with
    `resume` a stage that is done stays as it is. Raises InputError, DivergedError, StorageError, StoppedError."""
    experiments = {stage: experiment_of(asked, stage) for stage in STAGES}
    for each in experiments.values():  # an option that can't be is said before anything is read
        methods(each)
        plan_of(each)
    if (ranks := Ranks.start(threads=asked.threads)).size > 1:
        raise InputError(f"the trail runs on one process, here are {ranks.size}; start it without a launcher")
    texts = [name.strip() for name in asked.text.split(",")]
    OutputFolder(
        asked.out, (*texts, *asked.data.split(","), *asked.test.split(",")), asked.replace, asked.resume
    ).check()
    with storage.lock(asked.out):
        roles = roles_of(experiments[MULTITASK], asked.test)
        check_shots(roles.test, asked.shots)
        mixed = replace(roles, train=TaskSet((*roles.train, *without_labels(asked, texts))).tasks)
        claim(asked, mixed)
        if (asked.out / RESULTS).is_file():
            found = read_report(asked.out / RESULTS)
        else:
            say({"stages": in_short(asked)})
            cost = make_models(asked)
            made = stages(experiments, roles, mixed, ranks)
            found = whole(asked, [tested(asked, stage, both, roles.test) for stage, both in made], cost)
            write_json(asked.out / RESULTS, found.to_json())
        show_stages(found)
        write_stages(found, asked.out)
        say(ends(asked, found))
    return found


def experiment_of(asked: Trail, stage: str) -> Experiment:
    """What training one stage is asked; its folder is the stage's."""
    number = max(0, STAGES.index(stage) - 1)  # of pretraining, multi-task training, meta-training
    return Experiment(
        model=str(asked.out / (RANDOM if stage == RANDOM else PRETRAINED)),
        start=str(asked.out / MULTITASK) if stage == META else None,
        data=asked.data, validation=asked.validation, test=asked.test, columns=asked.columns,
        method=asked.method if stage == META else "multitask", baselines=(), mix=asked.mix,
        steps=asked.steps[number] if asked.steps else None, max_minutes=None if asked.steps else asked.minutes[number],
        meta_batch=asked.meta_batch, lr=asked.lr, shots=asked.shots, validation_trials=asked.trials,
        search_trials=asked.trials, threads=asked.threads, seed=asked.seed, out=asked.out / stage, resume=True,
    )  # fmt: skip


def without_labels(asked: Trail, texts: Sequence[str]) -> Iterator[Task]:
    """The tasks that the texts give."""
    for source in texts if asked.mix else ():
        if "masked" in asked.unlabelled:
            yield from masked_words(source, MaskedWords(seed=asked.seed), asked.column)
        if "adjacent" in asked.unlabelled:
            yield adjacent_sentences(source, column=asked.column, seed=asked.seed)


def claim(asked: Trail, roles: Roles) -> None:
    """Makes the folder, and those of the stages, this run's: without `resume` nothing of before is left. Raises
    InputError where a run that goes on was asked something else."""
    folders = (asked.out, *(asked.out / stage for stage in STAGES))
    options = {
        key: value for key, value in to_json(asked).items() if key not in ("out", "replace", "resume", "threads")
    }
    if not asked.resume:
        for folder in folders:
            OutputFolder(folder).clear()
    elif (before := asked.out / OPTIONS).is_file():
        require_same(asked.out, json.loads(before.read_text(encoding="utf-8")), options)
    write_json(asked.out / OPTIONS, options)
    found = {"schema": 1, **asdict(leakage(roles))}
    for folder in folders:  # by this file a folder is known as a run's
        write_json(folder / LEAKAGE, found)


def in_short(asked: Trail) -> str:
    """What will be done, and how long that takes."""
    lengths = [f"{n} steps" for n in asked.steps] if asked.steps else [f"{n:g} minutes" for n in asked.minutes]
    names = ("pretraining", "multi-task training", asked.method)
    said = ", ".join(f"{name} {length}" for name, length in zip(names, lengths, strict=True))
    total = (
        ""
        if asked.steps
        else f"; about {sum(asked.minutes):g} minutes in all, and what choosing recipes and tests take"
    )
    return said + total


def make_models(asked: Trail) -> dict[str, dict[str, float]]:
    """The pretrained model, and the same before its first step; what they cost."""
    folder = asked.out / PRETRAINED
    if not (folder / RESULTS).is_file():
        experiment = experiment_of(asked, PRETRAINED)
        pretrain(
            Pretraining(
                text=asked.text, column=asked.column, vocabulary=asked.vocabulary, layers=asked.layers,
                width=asked.width, heads=asked.heads, max_length=MAX_LENGTH, steps=experiment.steps,
                max_minutes=experiment.max_minutes, threads=asked.threads, seed=asked.seed, out=folder, resume=True,
            )
        )  # fmt: skip
    size = Size(asked.layers, asked.width, asked.heads)
    net = MaskedLM.make(open_tokenizer(str(folder)), size, MAX_LENGTH, seed=asked.seed)
    net.save(net.init(torch.Generator()), asked.out / RANDOM)
    found = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    seconds, pace = found["seconds"], found["tokens_per_second"]
    kept = {key: found[key] for key in ("perplexity", "unigram_perplexity")}
    return {
        RANDOM: {"seconds": 0.0, "tokens": 0.0},
        PRETRAINED: {"seconds": seconds, "tokens": 2 * pace * seconds} | kept,
    }


def stages(
    experiments: Mapping[str, Experiment], roles: Roles, mixed: Roles, ranks: Ranks
) -> Iterator[tuple[str, Mapping[str, Learner]]]:
    """The learners of each stage in turn; meta-training begins where multi-task training ended."""
    plain = prepare(experiments[RANDOM], ranks, roles)
    yield RANDOM, as_is_and_adapted(plain, "finetune")
    shared = prepare(experiments[MULTITASK], ranks, roles)
    yield PRETRAINED, as_is_and_adapted(replace(shared, asked=experiments[PRETRAINED]), "finetune")
    say(start_facts(shared))
    yield MULTITASK, as_is_and_adapted(shared, "multitask", trained_as_asked(shared))
    shared = prepare(experiments[META], ranks, mixed)
    say(start_facts(shared))
    yield META, as_is_and_adapted(shared, shared.asked.method, trained_as_asked(shared))


def trained_as_asked(shared: Run) -> Learner:
    return trained(shared, shared.asked.method, replace(plan_of(shared.asked), tasks_per_pass=shared.needed.tasks))


def as_is_and_adapted(shared: Run, name: str, learned: Learner | None = None) -> Mapping[str, Learner]:
    """A stage's two learners: prototypes or a regression on the features that it gives, and the adaptation of the
    method `name`; each with the recipe that did best on validation tasks. By default θ has learned nothing."""
    algorithm, seed = make(name, shared.asked), shared.asked.seed
    theta = algorithm.init(shared.net, torch.Generator().manual_seed(seed))
    learned = learned or Learner(algorithm, shared.net, theta)
    frozen = replace(learned, algorithm=make("protonet", shared.asked))
    return {FROZEN: with_recipe(shared, FROZEN, frozen), ADAPTED: with_recipe(shared, name, learned)}


def tested(asked: Trail, stage: str, both: Mapping[str, Learner], tasks: Sequence[Task]) -> Report:
    """A stage's two learners on the held-out tasks, on the same episodes as those of the others. What a run before
    found stays as it is."""
    path = asked.out / stage / HELD_OUT
    if path.is_file():
        return read_report(path)
    protocol = Protocol(asked.shots, asked.episodes, asked.test_rows, seed=asked.seed)
    rows = {row_of(stage, way): each for way, each in both.items()}
    with Progress(f"test, {stage}") as progress:
        tick = progress.ticks(count_trials(tasks, protocol) * len(rows))
        found = meta_test(rows, tasks, protocol, tick=tick)
    write_json(path, found.to_json())
    say({f"{row}, {found.metric}": f"{percent(found.score(row))} %" for row in rows})
    return found


def whole(asked: Trail, parts: Sequence[Report], cost: Mapping[str, Mapping[str, float]]) -> Report:
    """One report of all stages, with what each has cost."""
    found = joined(parts, row_of(META, ADAPTED))
    taught = {stage: found.methods[row_of(stage, ADAPTED)] for stage in (MULTITASK, META)}
    costs = dict(cost) | {
        stage: {"seconds": each["train_s"], "tokens": each["tokens"]} for stage, each in taught.items()
    }
    about: dict[str, Any] = {"stages": costs, "asked": shown(asked), "chance": found.chance()}
    return replace(found, protocol=found.protocol | about)


def shown(asked: Trail) -> dict[str, Any]:
    """The options, without paths of this machine."""
    options = {key: value for key, value in to_json(asked).items() if key not in ("out", "replace", "resume")}
    named = ("text", "data", "validation", "test")
    return options | {key: ",".join(Path(name).name for name in options[key].split(",")) for key in named}


def ends(asked: Trail, found: Report) -> dict[str, str]:
    """What stands after the run."""
    pretrained, chance = found.protocol["stages"][PRETRAINED], found.protocol["chance"]
    folder = asked.out / META
    return {
        "pretraining": f"perplexity of masked tokens {pretrained['perplexity']:.0f} on texts held out, of a unigram "
        f"model {pretrained['unigram_perplexity']:.0f}",
    } | ({"chance": f"{100 * chance:.1f} %"} if chance else {}) | {
        "note": SMALL,
        "learner": f"metanlp adapt --from {folder} --base {asked.out / PRETRAINED} --examples FILE",
    }  # fmt: skip


SMALL = (
    "a model of this size and corpus shows what each stage adds to the one before, on the same tasks; it does not show "
    "how good a learner can be, nor that an order of methods holds for a model that has read a thousand times as much"
)
