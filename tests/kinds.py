"""Every kind of every method, θ off its beginning, and a family of tasks to learn: what tests of methods share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from metanlp import algorithms
from metanlp.algorithms import (
    Algorithm,
    Anil,
    Finetune,
    Frozen,
    Hypernet,
    LearnedOptimizer,
    Maml,
    Matching,
    Memory,
    MetaSgd,
    Multitask,
    ProtoNet,
    Reptile,
    Siamese,
)
from metanlp.algorithms.base import Net
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone
from metanlp.core.types import Pass, Task, Tokens, Weights
from metanlp.training.task_heads import TaskHeads

TWO = Inner(steps=2)
ADAM = Inner(steps=2, lr=0.001, head_lr=0.001, optimiser="adam")

KINDS: dict[str, Algorithm] = {
    "frozen": Frozen(),
    "frozen, mixture": Frozen(classifier="mixture"),
    "finetune": Finetune(),
    "multitask": Multitask(),
    "protonet": ProtoNet(),
    "matching": Matching(),
    "matching, full context": Matching(full_context=True, hidden=32),
    "siamese": Siamese(),
    "siamese, best": Siamese(match="best"),
    "maml": Maml(),
    "maml, second order": Maml(TWO, second_order=True),
    "maml, adam, every step": Maml(ADAM, multi_step=0.5),
    "anil": Anil(),
    "anil, second order": Anil(TWO, second_order=True),
    "meta_sgd": MetaSgd(),
    "meta_sgd, second order": MetaSgd(TWO, second_order=True),
    "reptile": Reptile(),
    "learned_optimizer": LearnedOptimizer(),
    "mapping": algorithms.Mapping(),
    "mapping, cnp": algorithms.Mapping(kind="cnp"),
    "memory": Memory(),
    "memory, recurrent": Memory(kind="recurrent"),
    "hypernet": Hypernet(),
}
USUAL = tuple(kind for kind in KINDS if "," not in kind)  # one of each method; the others are its options
BASELINES = ("frozen", "frozen, mixture", "finetune")
ADAPT = tuple(kind for kind in KINDS if "second order" not in kind)  # which is of the outer loop alone
LEARN = tuple(kind for kind in KINDS if kind not in BASELINES)


def made(kind: str) -> Algorithm:
    """With three inner steps at the most: more would show no more, later."""
    return replace(KINDS[kind], inner=replace(KINDS[kind].inner, steps=min(3, KINDS[kind].inner.steps)))


def classes_of(tasks: Sequence[Task]) -> dict[str, int]:
    return {task.name: len(task.labels) for task in tasks}


def start(algorithm: Algorithm, net: Net, tasks: Mapping[str, int] | None = None) -> Weights:
    """θ off its beginning: a fresh B and fresh heads are zero, and hide much. With heads for `tasks`, by their numbers
    of classes, where the method uses them."""
    theta = algorithm.init(net, torch.Generator().manual_seed(0))
    heads = TaskHeads(algorithm, net, 0.0, torch.device("cpu")).of(tasks or {})
    generator = torch.Generator().manual_seed(1)
    return {key: v + 0.1 * torch.randn(v.shape, generator=generator) for key, v in (theta | heads).items()}


WORDS = [
    first + second for first in ("ba", "do", "fi", "ku", "le", "mo") for second in ("ra", "se", "ti", "vo", "zu", "n")
]


def planted(number: int) -> Task:
    """Two words tell the class, six tell nothing; which class comes first changes from task to task."""
    rng = np.random.default_rng([8, number])
    signs, noise = rng.permutation(WORDS[:2]), WORDS[2:]
    texts = [[*rng.choice(noise, 6), *[signs[n % 2]] * 2] for n in range(60)]
    rows = [{"text": " ".join(rng.permutation(text)), "label": n % 2} for n, text in enumerate(texts)]
    return Task(f"planted/{number}", {"train": rows}, ("first", "second"), "planted")


def judged(algorithm: Algorithm, net: Backbone, theta: Weights, held: Pass) -> float:
    scores = algorithm.scores(net, algorithm.adapt(net, theta, held.support), held.query)
    return (scores.argmax(1) == held.query.targets).float().mean().item()


def one_token_each(texts: Sequence[tuple[str, ...]]) -> Tokens:
    ones = np.ones(len(texts), np.int64)
    return Tokens(ones, 0 * ones, ones, np.arange(len(texts) + 1))
