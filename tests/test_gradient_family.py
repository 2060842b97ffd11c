"""MAML of both orders, ANIL, Meta-SGD, Reptile: gradients are those of what they claim, to the last digit that counts.

Exactness is shown in float64 on a small net of two adapted views, and again on the tiny BERT, there also against
`higher`.
"""

from __future__ import annotations

import json
import math
from abc import ABC
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import higher
import numpy as np
import pytest
import torch
from conftest import pack_rows
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

from metanlp import weights
from metanlp.algorithms import ALGORITHMS, Algorithm, Anil, Maml, MetaSgd, ProtoNet, Reptile
from metanlp.backbone import Backbone, Lora
from metanlp.backbone.packing import pack
from metanlp.episodes import Episodes, Sampling, group
from metanlp.errors import InputError
from metanlp.experiment import make
from metanlp.forms import FORMS
from metanlp.heads import linear_scores
from metanlp.inner import ADAM_EPSILON, Inner, trajectory
from metanlp.learner import Learner, algorithm_from_json, algorithm_to_json
from metanlp.options import Experiment
from metanlp.preparation import methods
from metanlp.types import Batch, Episode, Pass, Task, Tokens, Weights

FREE = Inner(steps=3, lr=0.5, head_lr=0.3, clip=1e9)
CLIPPED = replace(FREE, clip=0.05)  # binds on every task, at every step
ADAM = Inner(steps=3, lr=0.02, head_lr=0.01, clip=0.3, optimiser="adam")


def far(a: Weights, b: Weights) -> float:
    """Distance, as a share of the length of `b`."""
    assert a.keys() == b.keys()
    return float(weights.norm(weights.add(a, b, -1.0)) / weights.norm(b))


def inner_product(a: Weights, b: Weights) -> float:
    return sum(float((a[key] * b[key]).sum()) for key in b)


def stirred(algorithm: Algorithm, net: Any) -> Weights:
    """θ off its beginning: a fresh B and fresh heads are zero, and hide much."""
    theta = algorithm.init(net, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    return {key: value + 0.1 * torch.randn(value.shape, generator=generator) for key, value in theta.items()}


# In float64.


class Toy:
    """Mean token vectors through a layer with an adapter of rank 2, and a second one: all that a method asks of a
    backbone."""

    width, view_names, wide, rank = 6, ("adapted.1.all", "adapted.2.all"), 5, 2

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        sizes = ((40, self.wide), (self.width, self.wide), (self.width, self.width))
        self.table, self.first, self.second = (torch.randn(size, generator=generator) for size in sizes)

    def init(self, generator: torch.Generator) -> Weights:
        down = torch.rand(self.rank, self.wide, generator=generator) - 0.5
        return {"lora/down": down, "lora/up": torch.zeros(self.width, self.rank)}

    def with_trunk(self, batch: Batch) -> Batch:
        return batch

    def features(self, w: Weights, batch: Batch) -> Tensor:
        shared = w["lora/down"].dim() == 2
        down, up = (w[key] if shared else w[key][batch.task_of] for key in ("lora/down", "lora/up"))
        sums = torch.zeros(len(batch.lengths), self.wide).index_add(0, batch.example_of, self.table[batch.ids])
        x = sums / batch.lengths[:, None]
        hidden = torch.tanh(x @ self.first.T + (up @ (down @ x[..., None]))[..., 0])
        return torch.stack([hidden, torch.tanh(hidden @ self.second.T)], 1)

    def work(self, batch: Batch, passes: int) -> int:
        return batch.count_tokens * passes


def toy_episode(number: int, ways: int, shots: int) -> Episode:
    rng = np.random.default_rng(number)
    rows = ways * (shots + 2)
    lengths = rng.integers(2, 5, rows)
    total, starts = int(lengths.sum()), np.cumsum([0, *lengths])
    tokens = Tokens(rng.integers(0, 40, total), np.zeros(total, np.int64), np.ones(total, np.int64), starts)
    support, query = np.arange(ways * shots), np.arange(ways * shots, rows)
    sides = [pack(tokens, side, side % ways, ways) for side in (support, query)]
    return Episode(f"toy/{number}", number, tuple(range(ways)), tuple(support), tuple(query), *sides)


@pytest.fixture
def toy() -> Iterator[Toy]:
    torch.set_default_dtype(torch.float64)
    yield Toy()
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def episodes() -> Pass:
    """Three tasks of 3, 2 and 4 ways; the classes of the last have one row each, so that nothing moves there."""
    return group([toy_episode(1, 3, 3), toy_episode(2, 2, 2), toy_episode(3, 4, 1)])


def outer_loss(algorithm: Maml, net: Any, theta: Weights, given: Pass) -> Tensor:
    """What the outer loop minimises, by adapting and answering alone, summed over tasks: ()."""
    total = torch.zeros(())
    for steps, share in enumerate(algorithm.shares()):
        if not share:
            continue
        fewer = replace(algorithm, inner=replace(algorithm.inner, steps=steps))
        phi = fewer.adapt(net, theta, given.support)
        sides = [(net.features(phi, side), side) for side in (given.support, given.query)]
        total = total + share * fewer.scores_loss(fewer.scores(net, phi, given.query), given.query).sum()
        total = total + share * algorithm.guide * torch.as_tensor(
            algorithm.tasks_loss(theta, sides, given.episodes)
        ).sum()
    return total


def slopes(algorithm: Maml, net: Any, theta: Weights, given: Pass, ways: list[Weights], size: float) -> list[float]:
    """Of the outer loss along each of `ways`, by central differences of fourth order."""
    found: list[float] = []
    for way in ways:
        ends = [weights.add(theta, way, by * size) for by in (2, 1, -1, -2)]
        far_up, up, down, far_down = (float(outer_loss(algorithm, net, end, given).double()) for end in ends)
        found.append((8 * (up - down) - (far_up - far_down)) / (12 * size))
    return found


CLASSES = tuple((f"toy/{n}", ways) for n, ways in ((1, 3), (2, 2), (3, 4)))
EXACT = {
    "protonet": ProtoNet(),
    "no steps": Maml(Inner(0), second_order=True),
    "free": Maml(FREE, second_order=True),
    "clipped": Maml(CLIPPED, second_order=True),
    "adapters": Maml(replace(FREE, head_lr=0.0), second_order=True),
    "anil": Anil(FREE, second_order=True),
    "guided": Maml(CLIPPED, second_order=True, classes=CLASSES, guide=0.7),
    "many losses": Maml(CLIPPED, second_order=True, multi_step=0.6),
    "adam": Maml(ADAM, second_order=True),
    "adam, head": Anil(ADAM, second_order=True, multi_step=1.0),
    "meta_sgd": MetaSgd(FREE, second_order=True),
    "meta_sgd, clipped": MetaSgd(CLIPPED, second_order=True, multi_step=1.0, classes=CLASSES),
}


@pytest.mark.parametrize("name", EXACT)
def test_what_claims_to_be_exact_is_the_gradient_by_finite_differences(toy: Toy, episodes: Pass, name: str) -> None:
    """Along every kind of key, in a random direction and in that of the gradient."""
    algorithm = EXACT[name]
    theta = stirred(algorithm, toy)
    grad = algorithm.meta_grad(toy, theta, episodes).grad
    generator, ways = torch.Generator().manual_seed(2), list[Weights]()
    for prefix in sorted({key.split("/")[0] for key in theta}):
        part = weights.pick(grad, f"{prefix}/")
        ways.append({key: torch.randn(value.shape, generator=generator) for key, value in part.items()})
        if weights.norm(part):
            ways.append(weights.scale(part, 1 / weights.norm(part)))
    expected = [inner_product(grad, way) for way in ways]
    assert slopes(algorithm, toy, theta, episodes, ways, 1e-4) == pytest.approx(expected, rel=1e-6, abs=1e-9)
