"""The learned optimizer: it starts as gradient descent, its gradient is true, and it learns to be better."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from near import near
from slowly import slow_but
from torch import Tensor

from metanlp.algorithms import LearnedOptimizer, Maml
from metanlp.algorithms.inner import Inner, trajectory
from metanlp.algorithms.learned_optimizer import squash, start, update
from metanlp.algorithms.steps import Update
from metanlp.backbone import Backbone
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Pass, Weights
from metanlp.training.optimizer import OuterOptimizer, clipped

SIZE, STEPS = 10, 5  # of a quadratic bowl, and taken in it
HELD = 200  # bowls that nothing was learned from


def bowls(count: int, generator: torch.Generator) -> Callable[[Weights], Tensor]:
    """½ (x − a)ᵀ H (x − a), turned at random, with curvatures from 1 to 30: the loss of each (T,)."""
    curvatures = torch.exp(torch.rand(count, SIZE, generator=generator) * math.log(30))
    axes, _ = torch.linalg.qr(torch.randn(count, SIZE, SIZE, generator=generator))
    h = axes @ torch.diag_embed(curvatures) @ axes.transpose(1, 2)
    a = torch.randn(count, SIZE, generator=generator)

    def loss(phi: Weights) -> Tensor:
        away = phi["lora/x"] - a
        return torch.einsum("ti,tij,tj->t", away, h, away) / 2

    return loss


def losses(loss: Callable[[Weights], Tensor], count: int, rate: float, step: Update | None) -> Tensor:
    """After each step from zero: (STEPS, T)."""
    inner = Inner(steps=STEPS, lr=rate, clip=1e9)
    _, *path = trajectory(loss, {"lora/x": torch.zeros(count, SIZE)}, inner, update=step)
    return torch.stack([loss(phi) for phi in path])


def trained(seed: int, outer_steps: int = 200) -> Weights:
    """The optimizer after meta-training on bowls of its own, for the loss after every step: Andrychowicz et al., eq. 3.
    For the last one alone it learns less steadily, as first-order gradients mistake overshooting for progress."""
    outer = OuterOptimizer(start(8, 8.0, torch.Generator().manual_seed(seed)), weight_decay=0.0)
    generator = torch.Generator().manual_seed(100 + seed)
    for n in range(outer_steps):
        w = weights.leaves(outer.theta)
        loss = losses(bowls(32, generator), 32, 0.05, partial(update, w)).mean()
        outer.step(clipped(weights.gradient(loss, w), 1.0), 0.005 * (1 + math.cos(math.pi * n / outer_steps)))
    return outer.theta


@pytest.mark.parametrize("seed", slow_but([0], [0, 1]))
def test_it_beats_gradient_descent_at_its_best_rate_on_new_bowls(seed: int) -> None:
    """The best of 30 rates, chosen on the very bowls that judge, leaves more than twice the loss (1.39 against 0.57 to
    0.67 over three seeds, from 43)."""
    held = bowls(HELD, torch.Generator().manual_seed(99))
    best = min(float(losses(held, HELD, 0.01 * 1.15**n, None)[-1].mean().detach()) for n in range(30))
    learned = float(losses(held, HELD, 0.05, partial(update, trained(seed)))[-1].mean().detach())
    assert best < 0.1 * float(held({"lora/x": torch.zeros(HELD, SIZE)}).mean())  # plain descent does well too
    assert learned < 0.6 * best


def test_untrained_it_is_gradient_descent(net: Backbone, toy_pass: Pass) -> None:
    """But for the forget gate, which shrinks what moves by 0.03 % a step."""
    learned, plain = LearnedOptimizer(), Maml()
    theta = learned.init(net, torch.Generator().manual_seed(0))
    assert weights.equal(weights.drop(theta, "optimizer/"), plain.init(net, torch.Generator().manual_seed(0)))
    phis = [algorithm.adapt(net, theta, toy_pass.support) for algorithm in (learned, plain)]
    unmoved = replace(plain, inner=Inner(steps=0)).adapt(net, theta, toy_pass.support)
    for prefix in ("lora/", "head/"):
        one, other, begin = (weights.pick(phi, prefix) for phi in (*phis, unmoved))
        way = weights.norm(weights.add(other, begin, -1.0))
        assert weights.norm(weights.add(one, other, -1.0)) < 0.03 * way
        assert way > 0


def test_the_start_comes_from_the_generator_alone() -> None:
    one, same, other = (start(8, 8.0, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert weights.equal(one, same)
    assert not weights.equal(one, other)


def test_the_gradient_of_one_step_is_that_of_finite_differences(net: Backbone, toy_pass: Pass) -> None:
    """The inner gradient at θ does not depend on the optimizer, so nothing is left out of one step's."""
    algorithm = LearnedOptimizer(Inner(steps=1, lr=0.5, head_lr=0.5))
    theta = algorithm.init(net, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    theta = {key: value + 0.1 * torch.randn(value.shape, generator=generator) for key, value in theta.items()}
    part = weights.pick(algorithm.meta_grad(net, theta, toy_pass).grad, "optimizer/")
    length = float(weights.norm(part))

    def slope(direction: Weights) -> float:
        ends = [weights.add(theta, direction, sign) for sign in (0.05, -0.05)]
        high, low = (float(algorithm.meta_grad(net, end, toy_pass).loss.double().sum()) for end in ends)
        return (high - low) / 0.1

    assert slope(weights.scale(part, 1 / length)) == pytest.approx(length, rel=0.03)


def test_the_gradient_of_many_steps_is_that_of_finite_differences_with_inner_gradients_fixed() -> None:
    """In double precision, for every weight of the optimizer and for the start."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    w = {key: value.double() + 0.3 * drawn(*value.shape) for key, value in start(3, 1.0, generator).items()}
    given = [({"lora/a": drawn(2, 3, 2), "head/bias": drawn(2, 4)}, drawn(2).abs()) for _ in range(4)]
    toward = {"lora/a": drawn(2, 3, 2), "head/bias": drawn(2, 4)}

    def reached(asked: Weights) -> Tensor:
        state, moving = None, {key: asked[f"start/{key}"] for key in toward}
        for grad, loss in given:
            state, moving = update(asked, state, moving, grad, loss, {"lora/a": 0.1, "head/bias": 0.4})
        return torch.stack([(moving[key] * toward[key]).sum() for key in toward]).sum()

    asked = weights.leaves(w | {f"start/{key}": drawn(*value.shape) for key, value in toward.items()})
    assert torch.autograd.gradcheck(
        lambda *values: reached(dict(zip(asked, values, strict=True))), tuple(asked.values()), fast_mode=True
    )


def test_every_coordinate_is_treated_alike() -> None:
    """Another order of the coordinates gives the same steps in that order."""
    generator = torch.Generator().manual_seed(0)
    w = {key: value + 0.5 for key, value in start(4, 2.0, generator).items()}
    grads, order = torch.randn(3, 1, 20, generator=generator), torch.randperm(20, generator=generator)

    def moved(grads: Tensor) -> Tensor:
        state, x = None, torch.zeros(1, 20)
        for grad in grads:
            state, stepped = update(w, state, {"lora/x": x}, {"lora/x": grad}, torch.ones(1), {"lora/x": 0.1})
            x = stepped["lora/x"]
        return x

    near(moved(grads[..., order]), moved(grads)[..., order])


def test_gradients_of_any_size_are_seen() -> None:
    tiny = math.exp(-10) / 2
    found = squash(torch.tensor([1.0, -math.exp(-5), 0.0, tiny, -math.exp(5)]))
    expected = torch.tensor([[0.0, 1.0], [-0.5, -1.0], [-1.0, 0.0], [-1.0, 0.5], [0.5, -1.0]])
    near(found, expected)


def test_rates_are_gates() -> None:
    with pytest.raises(InputError, match="rates of learned_optimizer are gates"):
        LearnedOptimizer(Inner(lr=0.1, head_lr=1.5))
    whole = LearnedOptimizer(Inner(lr=0.0, head_lr=1.0))
    w = start(8, 8.0, torch.Generator().manual_seed(0))
    _, moved = update(w, None, {"x": torch.zeros(1, 2)}, {"x": torch.ones(1, 2)}, torch.ones(1), {"x": 1.0})
    assert torch.equal(moved["x"], torch.full((1, 2), -1.0))
    assert whole.inner.moving({"lora/a": torch.ones(1), "head/bias": torch.ones(1)}) == {"head/bias": 1.0}
