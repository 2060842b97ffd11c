"""Language modelling as meta-tasks: each domain of plain text is held out in turn, from the model's pretraining too.

Domains go in pairs. A model is pretrained, and methods are meta-trained, on all domains outside of a pair; each of the
two then judges once, with steps and rates that were chosen on the other.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metanlp.algorithms import ALGORITHMS, Algorithm, Finetune, InnerLoop
from metanlp.algorithms.base import Inner
from metanlp.backbone import Lora
from metanlp.backbone.vocabulary import VocabularyBackbone
from metanlp.core import storage
from metanlp.core.errors import InputError
from metanlp.core.outputs import CORPUS, RESULTS, OutputFolder
from metanlp.core.progress import Progress
from metanlp.core.settings import to_json
from metanlp.core.torch_modes import own_modes
from metanlp.core.types import Weights
from metanlp.core.versions import versions
from metanlp.episodes.corpus import Chunks, Masking, Vocabulary
from metanlp.episodes.domains import Domains, Passages, check_passages
from metanlp.evaluation.answers import MULTITASK
from metanlp.evaluation.domains import HeldOutDomain
from metanlp.experiment.options import LanguageDomains, Pretraining
from metanlp.experiment.pretrain import pretrain
from metanlp.report.bits import Bits, Cell, cells_of, show_bits, write_bits
from metanlp.report.tables import say
from metanlp.tasks.sources.corpus import documents, domains_in, held_out
from metanlp.training.meta_train import Plan, outer_loop
from metanlp.training.processes import Ranks

AS_IT_IS = "none"  # the pretrained model without adaptation
LEAST = 3  # domains: two that are held out together, and one that teaches
STEPS = (0, 1, 2, 5)  # inner steps that the search tries, read off one trajectory
RATES = ((1.0, 1.0), (1.0, 5.0), (3.0, 10.0))  # factors on the inner rates of adapters and biases that it tries
SEARCHED = 4  # blocks of query passages that it reads

Learned = tuple[Algorithm, Weights]
"""A method, and the θ that it learned."""


@dataclass(frozen=True)
class Fold:
    """Two domains that are held out together."""

    names: tuple[str, str]
    judges: int  # how many of them judge: of an odd number of domains, the last one's partner has had its turn
    folder: Path  # for what it leaves


@own_modes()
def lm_domains(asked: LanguageDomains) -> Bits:
    """Everything, on one process. Leaves in `asked.out` a folder a pair of domains, `results.json` and a plot. Raises
    InputError, DivergedError, StorageError, StoppedError."""
    methods, domains = methods_of(asked), domains_of(asked)
    if (ranks := Ranks.start(threads=asked.threads)).size > 1:
        raise InputError(f"lm_domains runs on one process, here are {ranks.size}; start it without a launcher")
    out = OutputFolder(asked.out, (asked.text, asked.model or ""), asked.replace, asked.resume)
    out.check()
    cells, costs, folds = list[Cell](), list[Mapping[str, Any]](), folds_of(asked, tuple(domains))
    with storage.lock(asked.out):
        if not asked.resume:
            out.clear()
            with storage.disk(asked.out):
                for fold in (fold for fold in folds if any(fold.folder.rglob(CORPUS))):
                    shutil.rmtree(fold.folder)
        for number, fold in enumerate(folds, start=1):
            say({"held out": f"{' and '.join(fold.names)}, {number} of {len(folds)}"})
            stored = done(asked, fold) or run_fold(asked, fold, methods, domains, ranks)
            cells += cells_of(stored["cells"])
            costs.append(stored["cost"])
            left = sum(cost["seconds"] for cost in costs) / number * (len(folds) - number)
            say({"forecast": f"about {left / 60:.0f} more minutes"} if left else {})
        found = Bits(tuple(cells), tuple(costs))
        write_bits(found, asked.out, reference_of(asked), {"asked": shown(asked), "versions": versions()})
        show_bits(found, reference_of(asked))
    return found


def methods_of(asked: LanguageDomains) -> dict[str, Algorithm]:
    """The methods by name. Raises InputError."""
    inner = Inner(asked.inner_steps, asked.inner_lr, asked.head_lr)
    for name in asked.methods:
        if not issubclass(ALGORITHMS.get(name, Algorithm), InnerLoop):
            able = ", ".join(key for key, kind in ALGORITHMS.items() if issubclass(kind, InnerLoop))
            raise InputError(f"--methods names {name!r}; passages are learned by gradient steps: choose from {able}")
    made = {name: ALGORITHMS[name](inner=inner) for name in asked.methods}
    if not made or not made[asked.methods[-1]].meta_trains:
        raise InputError("the last of --methods has to be one that is meta-trained: it sets the compute of the others")
    return made


def reference_of(asked: LanguageDomains) -> str:
    """The method that the others are compared with: multi-task learning, where it is one."""
    return MULTITASK if MULTITASK in asked.methods else asked.methods[0]


def domains_of(asked: LanguageDomains) -> dict[str, Path]:
    """Where each domain lies. Raises InputError, for what is certain before anything is tokenised."""
    if not 0 < asked.held_out < 1 or not asked.shots or min(asked.shots) < 1:
        raise InputError(f"--held-out {asked.held_out} is a share, between 0 and 1; --shots {asked.shots} from 1 up")
    found = domains_in(asked.text)
    if len(found) < LEAST:
        raise InputError(
            f"{asked.text}: has {len(found)} domain ({', '.join(found)}); give {LEAST} or more: two are held out at a "
            "time, and the others teach"
        )
    for name, path in found.items():
        # A passage has at least one letter a token.
        most = sum(-(-len(text) // (asked.max_length - 2)) for text in texts_of(asked, path, judged=False))
        check_passages(name, most, max(asked.shots), 0)
    return found


def texts_of(asked: LanguageDomains, path: Path, *, judged: bool) -> list[str]:
    """Those documents of a domain that teach, or those that judge. Equal ones stand on one side, by what they say."""
    every = (text for _, text in documents([str(path)], asked.column))
    return [text for text in every if held_out(text, asked.held_out) == judged]


def folds_of(asked: LanguageDomains, names: Sequence[str]) -> list[Fold]:
    """The first domain with the second, the third with the fourth …; a last one with the first, which judges once."""
    pairs = [(name, names[(place + 1) % len(names)]) for place, name in enumerate(names)][::2]
    return [Fold(pair, 1 + (pair[1] != names[0]), asked.out / "+".join(pair)) for pair in pairs]


def run_fold(
    asked: LanguageDomains, fold: Fold, methods: Mapping[str, Algorithm], domains: Mapping[str, Path], ranks: Ranks
) -> dict[str, Any]:
    """A model that has not seen the pair, the methods that it teaches, and the pair's cells; kept in its folder."""
    begun = time.perf_counter()
    teaching = {name: path for name, path in domains.items() if name not in fold.names}
    net = net_of(asked, fold, teaching, ranks)
    sampling = Passages(asked.train_shots, asked.train_queries, asked.copies, Masking(asked.mask_rate))
    vocabulary = Vocabulary(*net.vocabulary)
    taught = {name: tokenised(asked, fold, name, path, net, judged=False) for name, path in domains.items()}
    episodes = Domains({name: taught[name] for name in teaching}, vocabulary, sampling, asked.seed)
    held = {
        name: HeldOutDomain(
            name, taught[name], tokenised(asked, fold, name, domains[name], net, judged=True), vocabulary, sampling,
            asked.shots, asked.episodes, asked.test_passages, asked.seed,
        )
        for name in fold.names
    }  # fmt: skip
    learned, cost = trained(asked, fold, methods, net, episodes, ranks)
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


def done(asked: LanguageDomains, fold: Fold) -> dict[str, Any] | None:
    """What an earlier run left, where --resume may take it. Raises InputError where it was asked something else."""
    path = fold.folder / RESULTS
    if not (asked.resume and path.is_file()):
        return None
    stored = json.loads(path.read_text(encoding="utf-8"))
    for key, now in shown(asked).items():
        if stored["asked"].get(key) != now:
            raise InputError(
                f"{fold.folder} was made with {key} = {stored['asked'].get(key)}, now it is {now}; resume with the "
                "same, or take another --out"
            )
    return stored


def net_of(asked: LanguageDomains, fold: Fold, teaching: Mapping[str, Path], ranks: Ranks) -> VocabularyBackbone:
    """The model of --model, or one that only the domains outside of the pair have taught."""
    name = asked.model
    if name is None:
        folder = fold.folder / "model"
        name, made = str(folder), (folder / RESULTS).is_file()
        if not (asked.resume and made):
            minutes = None if asked.pretrain_steps else asked.pretrain_minutes
            pretrain(Pretraining(
                text=",".join(map(str, teaching.values())), column=asked.column, vocabulary=asked.vocabulary,
                layers=asked.layers, width=asked.width, heads=asked.heads, max_length=asked.max_length,
                accumulate=1, steps=asked.pretrain_steps, max_minutes=minutes, mask_rate=asked.mask_rate,
                held_out=asked.held_out, threads=asked.threads, seed=asked.seed, out=folder, replace=not asked.resume,
                resume=asked.resume and folder.is_dir(),
            ))  # fmt: skip
    net = VocabularyBackbone.load(name, Lora(rank=asked.rank, targets="all linear"), max_length=asked.max_length,
                                  seed=asked.seed, device=ranks.device)  # fmt: skip
    if asked.model:
        new = f"; {len(net.new)} weights of its vocabulary head are new and untaught" if net.new else ""
        say({"model": f"{net.name}, which may have read the held-out domains before{new}"})
    return net


def tokenised(
    asked: LanguageDomains, fold: Fold, name: str, path: Path, net: VocabularyBackbone, *, judged: bool
) -> Chunks:
    """The passages of a domain that teach, or those that judge. Raises InputError where there are none."""
    texts, side = texts_of(asked, path, judged=judged), "judge" if judged else "teach"
    if not texts:
        raise InputError(
            f"domain {name!r}: none of its documents falls to those that {side}, --held-out {asked.held_out}; give more"
        )
    return Chunks.write(fold.folder / CORPUS / name / side, texts, net.tokenizer, asked.max_length)


def trained(
    asked: LanguageDomains, fold: Fold, methods: Mapping[str, Algorithm], net: VocabularyBackbone, episodes: Domains,
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
    asked: LanguageDomains, method: str, algorithm: Algorithm, theta: Weights, net: VocabularyBackbone,
    held: HeldOutDomain, other: HeldOutDomain, name: str, tick: Callable[[], object],
) -> list[Cell]:  # fmt: skip
    """One method on one domain, at each number of passages with the recipe that does best on the `other` domain."""
    found = list[Cell]()
    for k in asked.shots:
        chosen = recipe(algorithm, theta, net, other, k, asked.search_trials) if algorithm.inner.steps else algorithm
        each = [held.bits(chosen, net, chosen.adapt(net, theta, support)) for support in held.supports[k]]
        sample, inner = held.sample(each, k), chosen.inner
        found.append(Cell(name, method, k, tuple(sample.sets.tolist()), tuple(sample.blocks.tolist()), sample.overlap,
                          inner.steps, inner.lr, inner.head_lr))  # fmt: skip
        tick()
    return found


def recipe(
    algorithm: Algorithm, theta: Weights, net: VocabularyBackbone, other: HeldOutDomain, k: int, trials: int
) -> Algorithm:
    """The steps and rates with the fewest bits on another domain, searched the same way for every method: the rates of
    meta-training, and larger ones. Those that diverge lose."""
    own, found = algorithm.inner, list[tuple[float, Algorithm]]()
    for lr, head_lr in RATES:
        inner = replace(own, steps=max(*STEPS, own.steps), lr=lr * own.lr, head_lr=head_lr * own.head_lr)
        bits: dict[int, list[float]] = {}
        for support in other.supports[k][:trials]:
            for step, phi in replace(algorithm, inner=inner).adapting(net, theta, support, {*STEPS, own.steps}):
                bits.setdefault(step, []).append(float(other.bits(algorithm, net, phi, SEARCHED).sum()))
        found += [
            (float(np.nan_to_num(np.mean(each), nan=np.inf)), replace(algorithm, inner=replace(inner, steps=step)))
            for step, each in bits.items()
        ]
    return min(found, key=lambda item: item[0])[1]


def shown(asked: LanguageDomains) -> dict[str, Any]:
    """The options, without paths of this machine and without what decides no result."""
    options = to_json(asked)
    return {key: value for key, value in options.items() if key not in ("out", "replace", "resume")} | {
        key: Path(options[key]).name for key in ("text", "model") if options[key]
    }
