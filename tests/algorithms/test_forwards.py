"""No forward twice at the same weights: how often each side goes through the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from gradients import ADAM, FREE, Toy, toy_episode
from kinds import start
from torch import Tensor

from metanlp.algorithms import (
    Algorithm,
    Anil,
    Finetune,
    LearnedOptimizer,
    Maml,
    Matching,
    Memory,
    MetaSgd,
    ProtoNet,
    Reptile,
    Siamese,
)
from metanlp.algorithms.inner import Inner
from metanlp.core.types import Batch, Pass, Weights
from metanlp.episodes.sampling import group

TWO, ADAM_TWO = Inner(steps=2), Inner(steps=2, lr=0.02, head_lr=0.01, optimiser="adam")


class Counting(Toy):
    """Counts what goes through it, forward and back, by the number of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.runs, self.back = Counter[int](), Counter[int]()

    def features(self, w: Weights, batch: Batch) -> Tensor:
        rows = len(batch.targets)
        self.runs[rows] += 1
        found = super().features(w, batch)
        if found.requires_grad:
            found.register_hook(lambda gradient: self.back.update([rows]))
        return found


@pytest.fixture
def net() -> Iterator[Counting]:
    torch.set_default_dtype(torch.float64)
    yield Counting()
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def given() -> Pass:
    """18 support rows and 10 query rows."""
    return group([toy_episode(1, 3, 4), toy_episode(2, 2, 3)])


@pytest.mark.parametrize(
    ("algorithm", "support", "query"),
    [
        (ProtoNet(), 1, 1),
        (Matching(), 1, 1),
        (Maml(TWO), 3, 1),  # at θ, after one step, after two
        (Maml(ADAM_TWO), 3, 1),
        (LearnedOptimizer(TWO), 3, 1),
        (Maml(TWO, second_order=True), 4, 1),  # the evidence about views has a graph of its own
        (Maml(TWO, second_order=True, multi_step=0.5), 4, 2),
        (Anil(TWO), 1, 1),
        (Anil(TWO, second_order=True, multi_step=0.5), 1, 1),
        (Reptile(Inner(steps=3)), 3, 2),  # support rows twice in turn, query rows once; both where that leads
    ],
    ids=str,
)
def test_a_meta_gradient(net: Counting, given: Pass, algorithm: Algorithm, support: int, query: int) -> None:
    algorithm.meta_grad(net, start(algorithm, net), given)
    assert net.runs == {18: support, 10: query}


@pytest.mark.parametrize(
    ("inner", "runs"),
    [(Inner(steps=5), 6), (Inner(steps=5, lr=0.0), 1), (Inner(steps=0), 1), (ADAM, 4), (FREE, 4)],
    ids=["sgd", "head alone", "no step", "adam", "free"],
)
def test_adapting_with_every_step_looked_at(net: Counting, given: Pass, inner: Inner, runs: int) -> None:
    algorithm = Finetune(inner)
    assert len(list(algorithm.adapting(net, start(algorithm, net), given.support, range(9)))) == inner.steps + 1
    assert net.runs == {18: runs}


@pytest.mark.parametrize(
    "algorithm",
    [
        *(method() for method in (ProtoNet, Matching, Siamese, Memory)),
        *(method(TWO) for method in (Maml, Anil, MetaSgd, LearnedOptimizer)),
        Maml(TWO, multi_step=0.5),
        *(Reptile(Inner(steps=steps)) for steps in (1, 2, 3, 4)),
    ],
    ids=str,
)
def test_tokens_are_counted_as_they_go_through(net: Counting, given: Pass, algorithm: Algorithm) -> None:
    """Forward, and backward where there is a way back; second order is counted apart."""
    theta = start(algorithm, net)
    net.runs.clear()
    found = algorithm.meta_grad(net, theta, given)
    sides = {18: given.support, 10: given.query}
    passes = net.runs + net.back
    assert (algorithm.cost().support, algorithm.cost().query) == (passes[18], passes[10])
    assert found.tokens == sum(count * sides[rows].count_tokens for rows, count in passes.items())
