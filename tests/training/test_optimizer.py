"""θ while it learns: torch's AdamW, with a state that is only tensors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from near import near
from torch import nn

from metanlp.core import weights
from metanlp.core.types import Weights
from metanlp.training.optimizer import OuterOptimizer, clipped

SHAPES = {"lora/a": (3, 4), "head/scale": (), "views/prior": (2,)}
LOOSE = 1e9  # a clip that touches nothing


@pytest.fixture
def theta() -> Weights:
    return next(grads(100))


def grads(seed: int) -> Iterator[Weights]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield {key: torch.randn(shape, generator=generator) for key, shape in SHAPES.items()}


def run(outer: OuterOptimizer, seed: int, steps: int, clip: float = LOOSE) -> None:
    for number, grad in zip(range(steps), grads(seed), strict=False):
        outer.step(clipped(grad, clip), rate=0.1 / (number + 1))


def test_a_step_is_torch_s_own(theta: Weights) -> None:
    outer = OuterOptimizer(theta, weight_decay=0.1)
    run(outer, seed=0, steps=4)
    plain = {key: nn.Parameter(value.clone()) for key, value in theta.items()}
    adamw = torch.optim.AdamW(plain.values(), lr=0.0, weight_decay=0.1)
    for number, grad in zip(range(4), grads(0), strict=False):
        for key, parameter in plain.items():
            parameter.grad = grad[key]
        adamw.param_groups[0]["lr"] = 0.1 / (number + 1)
        adamw.step()
    assert weights.equal(outer.theta, weights.detach(dict(plain)))


def test_a_gradient_is_shortened_to_the_clip(theta: Weights) -> None:
    grad = next(grads(0))
    length = weights.norm(grad).item()
    shorter = clipped(grad, length / 4)
    for key, value in weights.scale(grad, 0.25).items():
        near(shorter[key], value)
    assert weights.equal(clipped(grad, 2 * length), grad)


def test_a_key_without_gradient_does_not_move(theta: Weights) -> None:
    outer = OuterOptimizer(theta, weight_decay=0.5)
    outer.step(weights.drop(next(grads(0)), "views/"), 0.1)
    assert torch.equal(outer.theta["views/prior"], theta["views/prior"])
    assert not torch.equal(outer.theta["lora/a"], theta["lora/a"])


@pytest.mark.parametrize("before", [0, 3])
def test_restored_it_goes_on_as_if_it_had_never_stopped(theta: Weights, before: int) -> None:
    whole = OuterOptimizer(theta, 0.1)
    run(whole, seed=1, steps=before, clip=1.0)
    kept = whole.tensors()
    # Restored into one that has walked elsewhere, and into a fresh one.
    walked, made = OuterOptimizer(weights.zeros(theta), 0.1), OuterOptimizer(weights.zeros(theta), 0.1)
    run(walked, seed=7, steps=2)
    for outer in (walked, made):
        outer.restore(kept)
    for outer in (whole, walked, made):
        run(outer, seed=2, steps=5, clip=1.0)
    for outer in (walked, made):
        assert weights.equal(outer.tensors(), whole.tensors())


def test_tensors_are_copies_and_theta_stays(theta: Weights) -> None:
    before = weights.clone(theta)
    outer = OuterOptimizer(theta, 0.0)
    run(outer, seed=0, steps=1)
    kept, seen = outer.tensors(), outer.theta
    values, shown = weights.clone(kept), weights.clone(seen)
    run(outer, seed=1, steps=2)
    assert weights.equal(kept, values)
    assert weights.equal(seen, shown)
    assert weights.equal(theta, before)
