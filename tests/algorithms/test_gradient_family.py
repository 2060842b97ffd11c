"""MAML of both orders, ANIL, Meta-SGD, Reptile: gradients are those of what they claim, to the last digit that counts.

Exactness is shown here in float64 on a small net of two adapted views; on the tiny BERT, and against `higher`, in
`test_second_order.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from gradients import ADAM, CLIPPED, FREE, Toy, inner_product, slopes, toy_episode
from kinds import start
from near import LAYERS, far, near
from slowly import slow_but

from metanlp.algorithms import ALGORITHMS, Algorithm, Anil, Maml, MetaSgd, ProtoNet, Reptile
from metanlp.algorithms.inner import Inner, InnerLoop, Reader, last
from metanlp.algorithms.steps import ADAM_EPSILON
from metanlp.backbone import Backbone
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Pass, Weights
from metanlp.episodes.sampling import group
from metanlp.experiment.options import Experiment
from metanlp.experiment.prepare import make, methods
from metanlp.learner.learner import Learner, algorithm_from_json, algorithm_to_json


@pytest.fixture
def toy() -> Iterator[Toy]:
    torch.set_default_dtype(torch.float64)
    yield Toy()
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def episodes() -> Pass:
    """Three tasks of 3, 2 and 4 ways; the classes of the last have one row each, so that nothing moves there."""
    return group([toy_episode(1, 3, 3), toy_episode(2, 2, 2), toy_episode(3, 4, 1)])


CLASSES = {"toy/1": 3, "toy/2": 2, "toy/3": 4}
MILD = replace(FREE, lr=0.1)  # learned rates, off their beginning, make the loss too steep for differences at more
EXACT = {
    "protonet": ProtoNet(),
    "no steps": Maml(Inner(0), second_order=True),
    "free": Maml(FREE, second_order=True),
    "clipped": Maml(CLIPPED, second_order=True),
    "adapters": Maml(replace(FREE, head_lr=0.0), second_order=True),
    "anil": Anil(FREE, second_order=True),
    "guided": Maml(CLIPPED, second_order=True, guide=0.7),
    "decorrelated": ProtoNet(decorrelate=0.3),
    "decorrelated, free": Maml(FREE, second_order=True, decorrelate=0.3),
    "many losses": Maml(CLIPPED, second_order=True, multi_step=0.6),
    "adam": Maml(ADAM, second_order=True),
    "adam, head": Anil(ADAM, second_order=True, multi_step=1.0),
    "meta_sgd": MetaSgd(MILD, second_order=True),
    "meta_sgd, clipped": MetaSgd(CLIPPED, second_order=True, multi_step=1.0),
}


@pytest.mark.parametrize("name", slow_but(["protonet", "clipped", "guided", "adam, head", "meta_sgd, clipped"], EXACT))
def test_what_claims_to_be_exact_is_the_gradient_by_finite_differences(toy: Toy, episodes: Pass, name: str) -> None:
    """Along every kind of key, in a random direction and in that of the gradient."""
    algorithm = EXACT[name]
    theta = start(algorithm, toy, CLASSES)
    grad = algorithm.meta_grad(toy, theta, episodes).grad
    generator, ways = torch.Generator().manual_seed(2), list[Weights]()
    for prefix in sorted({key.split("/")[0] for key in theta}):
        part = weights.pick(grad, f"{prefix}/")
        ways.append({key: torch.randn(value.shape, generator=generator) for key, value in part.items()})
        if weights.norm(part):
            ways.append(weights.scale(part, 1 / weights.norm(part)))
    expected = [inner_product(grad, way) for way in ways]
    assert slopes(algorithm, toy, theta, episodes, ways, 1e-4) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("inner", [FREE, ADAM], ids=["sgd", "adam"])
def test_first_order_is_something_else(toy: Toy, episodes: Pass, inner: Inner) -> None:
    """The laws above tell the two apart."""
    first, second = Maml(inner), Maml(inner, second_order=True)
    theta = start(first, toy)
    one, two = (algorithm.meta_grad(toy, theta, episodes) for algorithm in (first, second))
    near(one.loss, two.loss)
    assert far(one.grad, two.grad) > 0.05


@pytest.mark.parametrize("inner", [CLIPPED, ADAM], ids=["sgd", "adam"])
def test_first_order_is_the_gradient_where_the_steps_lead(toy: Toy, episodes: Pass, inner: Inner) -> None:
    """Finn et al. 2017, §5.2: that of the query loss at φ, whatever took the steps."""
    algorithm = Maml(inner)
    theta = start(algorithm, toy)
    moved = weights.leaves(last(algorithm.inner_loop(theta, Reader(toy, episodes.support))))
    phi = finished(algorithm, toy, theta, moved, episodes.support)
    loss = algorithm.scores_loss(algorithm.scores(toy, phi, episodes.query), episodes.query).sum()
    found = algorithm.meta_grad(toy, theta, episodes).grad
    for key, there in weights.gradient(loss, weights.pick(moved, "lora/")).items():
        assert there.any()
        near(found[key], there.sum(0), LAYERS)


@pytest.mark.parametrize("second_order", [False, True])
def test_the_multi_step_loss_is_a_mean_over_steps(toy: Toy, episodes: Pass, second_order: bool) -> None:
    algorithm = Maml(CLIPPED, multi_step=0.6, second_order=second_order)
    assert algorithm.shares() == pytest.approx((0.0, 0.2, 0.2, 0.6))
    theta = start(algorithm, toy)
    single = [Maml(replace(CLIPPED, steps=steps), second_order=second_order) for steps in range(4)]
    apart = [one.meta_grad(toy, theta, episodes) for one in single]
    expected = weights.total(
        weights.scale(part.grad, share) for part, share in zip(apart, algorithm.shares(), strict=True)
    )
    found = algorithm.meta_grad(toy, theta, episodes)
    near(found.grad, expected, LAYERS)
    near(found.loss, apart[-1].loss)


def test_adam_is_adam(toy: Toy, episodes: Pass) -> None:
    """Written out, with every task's gradient shortened on its own."""
    algorithm = Maml(ADAM)
    theta = start(algorithm, toy)
    path = list(algorithm.inner_loop(theta, Reader(toy, episodes.support)))
    moved = {key: path[0][key] for key in ("lora/down", "lora/up", "head/weight", "head/bias")}
    first, second = weights.zeros(moved), weights.zeros(moved)
    for t, expected in enumerate(path[1:], start=1):
        grad = support_gradient(algorithm, toy, theta, path[0] | moved, episodes.support)
        short = (ADAM.clip / weights.norm_per_task(grad).clamp(min=1e-12)).clamp(max=1)
        for key, g in grad.items():
            g = g * short.view(-1, *[1] * (g.dim() - 1))
            first[key] = 0.9 * first[key] + 0.1 * g
            second[key] = 0.999 * second[key] + 0.001 * g * g
            rate = (ADAM.lr if "lora" in key else ADAM.head_lr) * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            moved[key] = moved[key] - rate * first[key] / (second[key].sqrt() + ADAM_EPSILON)
            near(expected[key], moved[key], LAYERS)
    assert not torch.equal(path[0]["lora/up"][0], path[1]["lora/up"][0])


def finished(algorithm: Algorithm, net: Any, theta: Weights, moved: Weights, support: Batch) -> Weights:
    """φ: the moved adapters, and the head that the support set gives through them."""
    features = algorithm.features(net, moved, support)
    return weights.pick(moved, "lora/") | algorithm.head.finish(theta, moved, features, support)


def support_gradient(algorithm: Algorithm, net: Any, theta: Weights, moved: Weights, side: Batch) -> Weights:
    """Of the support loss with regard to what moves, each task's in its slice."""
    leaves = weights.leaves(weights.pick(moved, "lora/", "head/"))
    loss = algorithm.support_loss(theta, moved | leaves, net.features(leaves, side), side)
    return weights.gradient(loss.sum(), leaves)


# Meta-SGD.


def test_first_order_rates_follow_the_agreement_of_support_and_query(toy: Toy, episodes: Pass) -> None:
    """−α⟨g_query, g_support⟩ for every matrix and step; exact for the last step, as finite differences say."""
    algorithm = MetaSgd(CLIPPED)
    theta = start(algorithm, toy)
    path = list(algorithm.inner_loop(theta, Reader(toy, episodes.support)))
    last = weights.leaves(path[-1])
    phi = finished(algorithm, toy, theta, last, episodes.support)
    loss = algorithm.scores_loss(algorithm.scores(toy, phi, episodes.query), episodes.query).sum()
    query = weights.gradient(loss, weights.pick(last, "lora/", "head/"))
    grad = algorithm.meta_grad(toy, theta, episodes).grad
    exact = replace(algorithm, second_order=True).meta_grad(toy, theta, episodes).grad
    for key, g in query.items():
        taken = torch.stack([((after[key] - before[key]) * g).sum() for before, after in pairwise(path)])
        near(grad[f"rates/{key}"], taken, LAYERS)
        near(grad[f"rates/{key}"][-1], exact[f"rates/{key}"][-1], LAYERS)
    rates = (weights.pick(each, "rates/lora") for each in (grad, exact))
    assert far(*({key: value[:-1] for key, value in each.items()} for each in rates)) > 0.01
    ways = [{key: torch.eye(3)[2]} for key in weights.pick(theta, "rates/")]
    expected = [float(grad[key][2]) for (key,) in ways]
    assert slopes(algorithm, toy, theta, episodes, ways, 1e-4) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("second_order", [False, True])
def test_meta_sgd_with_rates_as_they_begin_is_maml(net: Backbone, toy_pass: Pass, second_order: bool) -> None:
    inner = Inner(steps=2, lr=0.5, head_lr=0.3, clip=0.3)
    maml, learned = (kind(inner, second_order=second_order) for kind in (Maml, MetaSgd))
    theta = start(maml, net)
    rates = weights.pick(learned.init(net, torch.Generator()), "rates/")
    assert {value.shape for value in rates.values()} == {(2,)}
    one, other = maml.meta_grad(net, theta, toy_pass), learned.meta_grad(net, theta | rates, toy_pass)
    assert weights.equal(weights.drop(other.grad, "rates/"), one.grad)
    assert all(value.any() for value in weights.pick(other.grad, "rates/").values())
    assert weights.equal(maml.adapt(net, theta, toy_pass.support), learned.adapt(net, theta | rates, toy_pass.support))


def test_rates_stay_positive_each_for_its_matrix_and_step_and_the_last_goes_on(toy: Toy, episodes: Pass) -> None:
    algorithm = MetaSgd(FREE)
    theta = start(algorithm, toy) | {"rates/lora/up": torch.tensor([-3.0, 0.0, 2.0])}
    rates = replace(algorithm, inner=replace(FREE, steps=5)).rates(theta, ("lora/up", "head/bias", "views/loss"))
    assert [float(rate["lora/up"]) for rate in rates] == pytest.approx(
        [FREE.lr * math.exp(n) for n in (-3, 0, 2, 2, 2)]
    )
    assert all(rate.keys() == {"lora/up", "head/bias"} for rate in rates)
    assert min(float(value) for rate in rates for value in rate.values()) > 0
    assert "rates/lora/up" not in algorithm.adapt(toy, theta, episodes.support)


# Reptile.


def test_one_step_of_reptile_is_the_gradient_of_the_support_loss(toy: Toy, episodes: Pass) -> None:
    for lr in (0.1, 0.5):
        algorithm = Reptile(Inner(steps=1, lr=lr, clip=1e9))
        theta = start(algorithm, toy)
        begin = next(algorithm.inner_loop(theta, Reader(toy, episodes.support)))
        expected = support_gradient(algorithm, toy, theta, begin, episodes.support)
        found = algorithm.meta_grad(toy, theta, episodes).grad
        for key in ("lora/down", "lora/up"):
            near(found[key], expected[key].sum(0), LAYERS)


def test_more_steps_of_reptile_add_the_gradients_of_rows_in_turn(toy: Toy, episodes: Pass) -> None:
    algorithm = Reptile(replace(FREE, head_lr=0.0))
    theta = start(algorithm, toy)
    moved = weights.detach(next(algorithm.inner_loop(theta, Reader(toy, episodes.support))))
    expected = weights.zeros(weights.pick(theta, "lora/"))
    for side in (episodes.support, episodes.query, episodes.support):
        grad = weights.pick(support_gradient(algorithm, toy, theta, moved, side), "lora/")
        expected = weights.add(expected, {key: g.sum(0) for key, g in grad.items()})
        moved = moved | weights.add(weights.pick(moved, "lora/"), grad, -FREE.lr)
    found = algorithm.meta_grad(toy, theta, episodes).grad
    near(weights.pick(found, "lora/"), expected, LAYERS)
    assert found.keys() == theta.keys()

    def loss(heads: Weights) -> float:
        phi = finished(algorithm, toy, theta | heads, moved, episodes.support)
        return float(algorithm.scores_loss(algorithm.scores(toy, phi, episodes.query), episodes.query).sum())

    for key in ("head/scale", "views/trust"):  # of the query loss, adapters and evidence held fixed
        ends = [loss({key: theta[key] + by}) for by in (1e-5, -1e-5)]
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float(found[key]), rel=1e-5)


@pytest.mark.parametrize("inner", [Inner(steps=0), Inner(lr=0.0)])
def test_reptile_needs_steps_of_the_adapters(toy: Toy, episodes: Pass, inner: Inner) -> None:
    algorithm = Reptile(inner)
    with pytest.raises(InputError, match="--inner-steps, --inner-lr"):
        algorithm.meta_grad(toy, start(algorithm, toy), episodes)


# As methods among others.


def test_anil_is_maml_of_the_head(net: Backbone, toy_pass: Pass) -> None:
    one, other = Anil(Inner(steps=2)), Maml(Inner(steps=2), head_only=True)
    theta = start(one, net)
    assert weights.equal(one.meta_grad(net, theta, toy_pass).grad, other.meta_grad(net, theta, toy_pass).grad)
    assert weights.equal(one.adapt(net, theta, toy_pass.support), other.adapt(net, theta, toy_pass.support))


LEARNED = (
    Maml(ADAM, second_order=True, multi_step=0.25),
    Anil(second_order=True),
    MetaSgd(Inner(steps=2, lr=0.05)),
    Reptile(Inner(steps=3)),
)


@pytest.mark.parametrize("algorithm", LEARNED, ids=lambda algorithm: type(algorithm).__name__)
def test_a_learner_comes_back(net: Backbone, tiny: Path, tmp_path: Path, algorithm: Algorithm) -> None:
    written = json.loads(json.dumps(algorithm_to_json(algorithm)))
    assert algorithm_from_json(written) == algorithm
    assert type(algorithm) is ALGORITHMS[written["name"]]
    learner = Learner(algorithm, net, start(algorithm, net))
    learner.save(tmp_path)
    loaded = Learner.load(tmp_path, base=str(tiny))
    assert loaded.algorithm == algorithm
    assert weights.equal(loaded.theta, learner.theta)
    rows = [("it came late", "post"), ("charged twice", "bill"), ("never came", "post"), ("a wrong bill", "bill")]
    assert weights.equal(loaded.adapt(rows).phi, learner.adapt(rows).phi)


@pytest.mark.parametrize("algorithm", LEARNED, ids=lambda algorithm: type(algorithm).__name__)
def test_recipes_differ_and_come_with_the_method_s_own_rates_first(algorithm: InnerLoop) -> None:
    found = algorithm.recipes()
    assert len(set(found)) == len(found) > 1
    assert {type(setting) for setting in found} == {type(algorithm)}
    own = [(setting.inner.lr, setting.inner.head_lr) for setting in (found[0], algorithm)]
    assert own[0] == own[1]
    *mixtures, as_trained = found
    assert all(setting.classifier == "mixture" for setting in mixtures)
    assert as_trained == replace(mixtures[0], classifier=algorithm.classifier)
    assert all(setting.inner.steps >= 5 for setting in found)
    largest = max(setting.inner.head_lr for setting in found)
    assert largest <= (0.01 if algorithm.inner.optimiser == "adam" else 1.0)


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (Maml, {"multi_step": 1.5}, "multi_step is 1.5; it is a share, from 0 to 1"),
        (MetaSgd, {"inner": ADAM}, "meta_sgd learns the rates of 'sgd', but inner.optimiser is 'adam'"),
    ],
)
def test_settings_that_are_not_possible(kind: type[Algorithm], settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        kind(**settings)


def test_second_order_is_an_option_of_an_experiment() -> None:
    asked = Experiment(method="meta_sgd", second_order=True, baselines=("multitask", "maml"))
    assert methods(asked) == ("multitask", "maml", "meta_sgd")
    found = make("meta_sgd", asked)
    assert isinstance(found, MetaSgd)
    assert found.second_order
    assert not Maml.second_order
    assert make("maml", asked) == make("maml", replace(asked, second_order=False))
    for method in ("reptile", "multitask"):
        with pytest.raises(InputError, match=f"--second-order is not for {method}"):
            methods(replace(asked, method=method))
