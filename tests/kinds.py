"""Every kind of every method, θ off its beginning, and a family of tasks to learn: what tests of methods share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from metanlp import weights
from metanlp.algorithms import (
    Algorithm,
    Anil,
    Finetune,
    Frozen,
    Hypernet,
    LearnedOptimizer,
    Maml,
    Mapping,
    Matching,
    Memory,
    MetaSgd,
    Multitask,
    ProtoNet,
    Reptile,
    Siamese,
)
from metanlp.backbone import Backbone
from metanlp.inner import Inner
from metanlp.types import Pass, Task, Tokens, Weights

TWO = Inner(steps=2)
ADAM = Inner(steps=2, lr=0.001, head_lr=0.001, optimiser="adam")

KINDS: dict[str, Algorithm] = {
    "frozen": Frozen(),
    "frozen, logistic": Frozen(classifier="logistic"),
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
    "mapping": Mapping(),
    "mapping, cnp": Mapping(kind="cnp"),
    "memory": Memory(),
    "memory, recurrent": Memory(kind="recurrent"),
    "hypernet": Hypernet(),
}
BASELINES = ("frozen", "frozen, logistic", "finetune")
ADAPT = tuple(kind for kind in KINDS if "second order" not in kind)  # which is of the outer loop alone
LEARN = tuple(kind for kind in KINDS if kind not in BASELINES)


def classes_of(tasks: tuple[Task, ...]) -> tuple[tuple[str, int], ...]:
    return tuple((task.name, len(task.labels)) for task in tasks)


def made(kind: str, tasks: tuple[Task, ...]) -> Algorithm:
    """With heads for these tasks, and with three inner steps at the most: more would show no more, later."""
    algorithm = replace(KINDS[kind], inner=replace(KINDS[kind].inner, steps=min(3, KINDS[kind].inner.steps)))
    return replace(algorithm, classes=classes_of(tasks)) if kind in LEARN else algorithm


def start(algorithm: Algorithm, net: Backbone) -> Weights:
    """θ off its beginning: a fresh B and fresh heads are zero, and hide much."""
    theta = algorithm.init(net, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    return {key: value + 0.1 * torch.randn(value.shape, generator=generator) for key, value in theta.items()}


def far(a: Weights, b: Weights) -> float:
    """Distance, as a share of the length of `b`."""
    assert a.keys() == b.keys()
    return float(weights.norm(weights.add(a, b, -1.0)) / weights.norm(b))


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
