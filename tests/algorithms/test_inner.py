"""Gradient steps on a support set: each task on its own, bounded, by the rates given."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier, Event

import pytest
import torch
from near import INNER_STEPS, near
from stacks import take
from torch import Tensor

from metanlp.algorithms import Finetune, Maml
from metanlp.algorithms.inner import Inner, Reader, trajectory
from metanlp.algorithms.steps import twice_differentiable
from metanlp.backbone import Backbone
from metanlp.backbone.packing import join, pack
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Task, Weights
from metanlp.episodes.sampling import Episodes, Sampling

CURVATURES = torch.tensor([0.5, 2.0], dtype=torch.float64)  # of the two tasks of the bowl


def bowl(phi: Weights) -> Tensor:
    """Half the squared length of what moves, times each task's curvature: (T,)."""
    return CURVATURES * (phi["lora/a"].square().sum((1, 2)) + phi["head/bias"].square().sum(1)) / 2


@pytest.fixture
def phi() -> Weights:
    generator = torch.Generator().manual_seed(0)
    shapes = {"lora/a": (2, 3, 4), "head/bias": (2, 5), "views/prior": (2, 2)}
    return {key: torch.randn(shape, generator=generator, dtype=torch.float64) for key, shape in shapes.items()}


def learned(net: Backbone, inner: Inner) -> tuple[Finetune, Weights]:
    algorithm = Finetune(inner)
    return algorithm, algorithm.init(net, torch.Generator().manual_seed(0))


def test_a_trajectory_is_the_start_and_one_set_a_step(phi: Weights) -> None:
    path = list(trajectory(bowl, phi, Inner(steps=4)))
    assert len(path) == 5
    assert weights.equal(path[0], phi)
    losses = torch.stack([bowl(point) for point in path])
    assert (losses.diff(dim=0) < 0).all()
    assert all(point["lora/a"].is_leaf and point["lora/a"].requires_grad for point in path[:-1])  # of the next step
    assert not any(value.requires_grad for value in path[-1].values())


def test_no_steps_is_the_start_alone(phi: Weights) -> None:
    (only,) = trajectory(bowl, phi, Inner(steps=0))
    assert weights.equal(only, phi)


def test_a_step_is_the_gradient_times_the_rate_of_its_key(phi: Weights) -> None:
    _, stepped = trajectory(bowl, phi, Inner(steps=1, lr=0.1, head_lr=0.01, clip=1e9))
    near(stepped["lora/a"], phi["lora/a"] * (1 - 0.1 * CURVATURES[:, None, None]))
    near(stepped["head/bias"], phi["head/bias"] * (1 - 0.01 * CURVATURES[:, None]))
    assert torch.equal(stepped["views/prior"], phi["views/prior"])


def test_clipping_bounds_the_update_of_each_task_over_all_that_moves(phi: Weights) -> None:
    inner = Inner(steps=1, lr=1.0, head_lr=1.0, clip=0.2)
    phi["lora/a"][0] *= 0.01
    phi["head/bias"][0] *= 0.01
    start, stepped = map(weights.detach, trajectory(bowl, phi, inner))
    update = weights.pick(weights.add(stepped, start, -1.0), "lora/", "head/")
    length = weights.norm_per_task(update)
    near(length[1], torch.tensor(0.2))  # shortened
    gentle = CURVATURES[0] * weights.norm_per_task(weights.pick(start, "lora/", "head/"))[0]
    near(length[0], gentle)  # short enough: left as it was
    assert length[0] < 0.2


@pytest.mark.parametrize(("lr", "head_lr", "still"), [(0.0, 0.1, "lora/a"), (0.1, 0.0, "head/bias")])
def test_rate_zero_leaves_weights_bitwise_alone(phi: Weights, lr: float, head_lr: float, still: str) -> None:
    *_, last = trajectory(bowl, phi, Inner(steps=3, lr=lr, head_lr=head_lr))
    assert weights.equal(weights.pick(last, still), weights.pick(phi, still))
    assert not weights.equal(last, phi)


def test_with_all_rates_zero_nothing_happens(phi: Weights) -> None:
    path = list(trajectory(bowl, phi, Inner(steps=3, lr=0.0, head_lr=0.0)))
    assert len(path) == 4
    assert all(weights.equal(point, phi) for point in path)


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"lr": -0.1}, {"head_lr": -0.1}, {"clip": 0.0}])
def test_settings_that_are_not_possible(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="is not possible"):
        Inner(**wrong)


# On the model.


def test_lr_zero_adapts_the_head_alone(net: Backbone, toy_tasks: tuple[Task, ...]) -> None:
    support = Episodes(toy_tasks[:1], net.encode, Sampling(), seed=0)[0].support
    algorithm, theta = learned(net, Inner(steps=3, lr=0.0, head_lr=0.3))
    phi, start = (algorithm.adapt(net, theta, support) for algorithm in (algorithm, replace(algorithm, inner=Inner(0))))
    assert weights.equal(weights.pick(phi, "lora/"), weights.expand(weights.pick(theta, "lora/"), 1))
    assert not torch.equal(phi["head/weight"], start["head/weight"])


def test_head_only_is_the_same_as_lr_zero(net: Backbone, toy_tasks: tuple[Task, ...]) -> None:
    support = Episodes(toy_tasks[:1], net.encode, Sampling(), seed=0)[0].support
    anil, slow = Maml(Inner(steps=3), head_only=True), Maml(Inner(steps=3, lr=0.0))
    theta = anil.init(net, torch.Generator().manual_seed(0))
    assert weights.equal(anil.adapt(net, theta, support), slow.adapt(net, theta, support))


def test_one_shot_a_class_moves_nothing(net: Backbone, toy_tasks: tuple[Task, ...]) -> None:
    """Every row is alone in its class, so none can be scored without itself."""
    support = Episodes(toy_tasks[:1], net.encode, Sampling(shots=(1, 1)), seed=0)[0].support
    algorithm, theta = learned(net, Inner(steps=3, lr=0.5, head_lr=0.5))
    *_, moved = algorithm.inner_loop(theta, Reader(net, support))
    assert weights.equal(weights.pick(moved, "lora/"), weights.expand(weights.pick(theta, "lora/"), 1))
    assert not any(moved[key].any() for key in ("head/weight", "head/bias"))


def test_tasks_of_a_stack_never_mix(net: Backbone, toy_tasks: tuple[Task, ...]) -> None:
    """Other rows for the second task leave the first task's φ where it was, to rounding of a longer pass."""
    rows = toy_tasks[0].pools["train"]
    tokens = net.encode([(row["text"],) for row in rows])
    first = pack(tokens, [0, 1, 2, 3], [0, 0, 1, 1], 2)
    others = [pack(tokens, range(10, 16), [0, 1] * 3, 2), pack(tokens, range(30, 39), [0, 1, 2] * 3, 3)]
    algorithm, theta = learned(net, Inner(steps=3, lr=0.3, head_lr=0.3))
    alone = algorithm.adapt(net, theta, first)
    for other in others:
        both = algorithm.adapt(net, theta, join([first, other]))
        for key, value in take(both, 0).items():
            part = value[:, :2] if key.startswith("head/") else value
            near(part, alone[key], INNER_STEPS)


def test_attention_is_twice_differentiable_until_the_last_thread_is_done() -> None:
    """torch has one choice of kernels for all threads; each that puts back what it found would end the others'."""
    entered, left = Barrier(2), Event()

    def longer() -> tuple[bool, bool]:
        with twice_differentiable():
            entered.wait()
            left.wait()
            return torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()

    with ThreadPoolExecutor(1) as pool:
        with twice_differentiable():
            found = pool.submit(longer)
            entered.wait()
        left.set()
        assert found.result() == (False, True)
    assert torch.backends.cuda.flash_sdp_enabled()
