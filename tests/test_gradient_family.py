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
from itertools import pairwise
from pathlib import Path
from typing import Any

import higher
import numpy as np
import pytest
import torch
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
from metanlp.inner import ADAM_EPSILON, Inner, last, twice_differentiable
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
        total = (
            total + share * algorithm.guide * torch.as_tensor(algorithm.tasks_loss(theta, sides, given.episodes)).sum()
        )
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


@pytest.mark.parametrize("inner", [FREE, ADAM], ids=["sgd", "adam"])
def test_first_order_is_something_else(toy: Toy, episodes: Pass, inner: Inner) -> None:
    """The laws above tell the two apart."""
    first, second = Maml(inner), Maml(inner, second_order=True)
    theta = stirred(first, toy)
    one, two = (algorithm.meta_grad(toy, theta, episodes) for algorithm in (first, second))
    torch.testing.assert_close(one.loss, two.loss)
    assert far(one.grad, two.grad) > 0.05


@pytest.mark.parametrize("inner", [CLIPPED, ADAM], ids=["sgd", "adam"])
def test_first_order_is_the_gradient_where_the_steps_lead(toy: Toy, episodes: Pass, inner: Inner) -> None:
    """Finn et al. 2017, §5.2: that of the query loss at φ, whatever took the steps."""
    algorithm = Maml(inner)
    theta = stirred(algorithm, toy)
    moved = weights.leaves(last(algorithm.inner_loop(toy, theta, episodes.support)))
    phi = algorithm.finish(toy, theta, moved, episodes.support)
    loss = algorithm.scores_loss(algorithm.scores(toy, phi, episodes.query), episodes.query).sum()
    found = algorithm.meta_grad(toy, theta, episodes).grad
    for key, there in weights.gradient(loss, weights.pick(moved, "lora/")).items():
        assert there.any()
        torch.testing.assert_close(found[key], there.sum(0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("second_order", [False, True])
def test_the_multi_step_loss_is_a_mean_over_steps(toy: Toy, episodes: Pass, second_order: bool) -> None:
    algorithm = Maml(CLIPPED, multi_step=0.6, second_order=second_order)
    assert algorithm.shares() == pytest.approx((0.0, 0.2, 0.2, 0.6))
    theta = stirred(algorithm, toy)
    single = [Maml(replace(CLIPPED, steps=steps), second_order=second_order) for steps in range(4)]
    apart = [one.meta_grad(toy, theta, episodes) for one in single]
    expected = weights.total(
        weights.scale(part.grad, share) for part, share in zip(apart, algorithm.shares(), strict=True)
    )
    found = algorithm.meta_grad(toy, theta, episodes)
    assert far(found.grad, expected) < 1e-12
    torch.testing.assert_close(found.loss, apart[-1].loss)


def test_adam_is_adam(toy: Toy, episodes: Pass) -> None:
    """Written out, with every task's gradient shortened on its own."""
    algorithm = Maml(ADAM)
    theta = stirred(algorithm, toy)
    path = list(algorithm.inner_loop(toy, theta, episodes.support))
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
            torch.testing.assert_close(expected[key], moved[key], rtol=1e-9, atol=1e-12)
    assert not torch.equal(path[0]["lora/up"][0], path[1]["lora/up"][0])


def support_gradient(algorithm: Algorithm, net: Any, theta: Weights, moved: Weights, side: Batch) -> Weights:
    """Of the support loss with regard to what moves, each task's in its slice."""
    leaves = weights.leaves(weights.pick(moved, "lora/", "head/"))
    loss = algorithm.support_loss(theta, moved | leaves, net.features(leaves, side), side)
    return weights.gradient(loss.sum(), leaves)


# Meta-SGD.


def test_first_order_rates_follow_the_agreement_of_support_and_query(toy: Toy, episodes: Pass) -> None:
    """−α⟨g_query, g_support⟩ for every matrix and step; exact for the last step, as finite differences say."""
    algorithm = MetaSgd(CLIPPED)
    theta = stirred(algorithm, toy)
    path = list(algorithm.inner_loop(toy, theta, episodes.support))
    last = weights.leaves(path[-1])
    phi = algorithm.finish(toy, theta, last, episodes.support)
    loss = algorithm.scores_loss(algorithm.scores(toy, phi, episodes.query), episodes.query).sum()
    query = weights.gradient(loss, weights.pick(last, "lora/", "head/"))
    grad = algorithm.meta_grad(toy, theta, episodes).grad
    exact = replace(algorithm, second_order=True).meta_grad(toy, theta, episodes).grad
    for key, g in query.items():
        taken = torch.stack([((after[key] - before[key]) * g).sum() for before, after in pairwise(path)])
        torch.testing.assert_close(grad[f"rates/{key}"], taken, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(grad[f"rates/{key}"][-1], exact[f"rates/{key}"][-1], rtol=1e-9, atol=1e-12)
    rates = (weights.pick(each, "rates/lora") for each in (grad, exact))
    assert far(*({key: value[:-1] for key, value in each.items()} for each in rates)) > 0.01
    ways = [{key: torch.eye(3)[2]} for key in weights.pick(theta, "rates/")]
    expected = [float(grad[key][2]) for (key,) in ways]
    assert slopes(algorithm, toy, theta, episodes, ways, 1e-4) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("second_order", [False, True])
def test_meta_sgd_with_rates_as_they_begin_is_maml(net: Backbone, toy_pass: Pass, second_order: bool) -> None:
    inner = Inner(steps=2, lr=0.5, head_lr=0.3, clip=0.3)
    maml, learned = (kind(inner, second_order=second_order) for kind in (Maml, MetaSgd))
    theta = stirred(maml, net)
    rates = weights.pick(learned.init(net, torch.Generator()), "rates/")
    assert {value.shape for value in rates.values()} == {(2,)}
    one, other = maml.meta_grad(net, theta, toy_pass), learned.meta_grad(net, theta | rates, toy_pass)
    assert weights.equal(weights.drop(other.grad, "rates/"), one.grad)
    assert all(value.any() for value in weights.pick(other.grad, "rates/").values())
    assert weights.equal(maml.adapt(net, theta, toy_pass.support), learned.adapt(net, theta | rates, toy_pass.support))


def test_rates_stay_positive_each_for_its_matrix_and_step_and_the_last_goes_on(toy: Toy, episodes: Pass) -> None:
    algorithm = MetaSgd(FREE)
    theta = stirred(algorithm, toy) | {"rates/lora/up": torch.tensor([-3.0, 0.0, 2.0])}
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
        theta = stirred(algorithm, toy)
        begin = next(algorithm.inner_loop(toy, theta, episodes.support))
        expected = support_gradient(algorithm, toy, theta, begin, episodes.support)
        found = algorithm.meta_grad(toy, theta, episodes).grad
        for key in ("lora/down", "lora/up"):
            torch.testing.assert_close(found[key], expected[key].sum(0), rtol=1e-12, atol=1e-14)


def test_more_steps_of_reptile_add_the_gradients_of_rows_in_turn(toy: Toy, episodes: Pass) -> None:
    algorithm = Reptile(replace(FREE, head_lr=0.0))
    theta = stirred(algorithm, toy)
    moved = next(algorithm.inner_loop(toy, theta, episodes.support))
    expected = weights.zeros(weights.pick(theta, "lora/"))
    for side in (episodes.support, episodes.query, episodes.support):
        grad = weights.pick(support_gradient(algorithm, toy, theta, moved, side), "lora/")
        expected = weights.add(expected, {key: g.sum(0) for key, g in grad.items()})
        moved = moved | weights.add(weights.pick(moved, "lora/"), grad, -FREE.lr)
    found = algorithm.meta_grad(toy, theta, episodes).grad
    assert far(weights.pick(found, "lora/"), expected) < 1e-12
    assert found.keys() == theta.keys()

    def loss(heads: Weights) -> float:
        phi = algorithm.finish(toy, theta | heads, moved, episodes.support)
        return float(algorithm.scores_loss(algorithm.scores(toy, phi, episodes.query), episodes.query).sum())

    for key in ("head/scale", "views/trust"):  # of the query loss, adapters and evidence held fixed
        ends = [loss({key: theta[key] + by}) for by in (1e-5, -1e-5)]
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float(found[key]), rel=1e-5)


@pytest.mark.parametrize("inner", [Inner(steps=0), Inner(lr=0.0)])
def test_reptile_needs_steps_of_the_adapters(toy: Toy, episodes: Pass, inner: Inner) -> None:
    algorithm = Reptile(inner)
    with pytest.raises(InputError, match="--inner-steps, --inner-lr"):
        algorithm.meta_grad(toy, stirred(algorithm, toy), episodes)


# On the tiny BERT.


@pytest.fixture(scope="module")
def plain(tiny: Path) -> Backbone:
    """Two adapted views of the last layer."""
    views = ["adapted.4.all", "adapted.4.cls"]
    return Backbone.load(str(tiny), Lora(rank=4, alpha=8), views=views, precision="fp32")


def test_second_order_without_steps_is_the_plain_gradient(net: Backbone, toy_pass: Pass) -> None:
    theta = stirred(ProtoNet(), net)
    one, other = (Maml(Inner(0), second_order=order).meta_grad(net, theta, toy_pass) for order in (False, True))
    assert weights.equal(one.grad, other.grad)
    assert (one.tokens, torch.equal(one.loss, other.loss)) == (other.tokens, True)


def test_second_order_is_that_of_finite_differences(net: Backbone, toy_pass: Pass) -> None:
    """In fp32, along the gradient: first order is far off."""
    inner = Inner(steps=2, lr=0.1, head_lr=0.3, clip=1e9)
    first, second = Maml(inner), Maml(inner, second_order=True)
    theta, few = stirred(first, net), group(toy_pass.episodes[:2])
    one, two = (algorithm.meta_grad(net, theta, few).grad for algorithm in (first, second))
    length = float(weights.norm(two))
    way = weights.scale(two, 1 / length)
    (slope,) = slopes(second, net, theta, few, [way], 1e-2)
    assert slope == pytest.approx(length, rel=1e-4)
    assert inner_product(one, way) < 0.9 * length


@pytest.mark.parametrize("clip", [0.2, 1e9])
def test_second_order_is_that_of_higher(
    plain: Backbone, tiny: Path, tmp_path: Path, toy_pass: Pass, monkeypatch: pytest.MonkeyPatch, clip: float
) -> None:
    """Plain transformers and plain peft, padded and with eager attention, patched and stepped by `higher`."""
    swap_bases(monkeypatch)
    algorithm = Maml(Inner(steps=2, lr=0.02, head_lr=0.1, clip=clip), second_order=True)
    theta = stirred(algorithm, plain)
    plain.save_adapter_config(tmp_path)
    for episode in toy_pass.episodes[:2]:
        found = algorithm.meta_grad(plain, theta, group([episode]))
        expected, loss = by_higher(Learnt(tiny, tmp_path, theta, episode), algorithm, theta, episode)
        torch.testing.assert_close(found.loss, loss, atol=1e-5, rtol=1e-5)
        assert far(weights.drop(found.grad, "regress/", "choose/", "multilabel/", "tag/"), expected) < 1e-5
        first = replace(algorithm, second_order=False).meta_grad(plain, theta, group([episode])).grad
        assert far(weights.pick(first, "lora/"), weights.pick(expected, "lora/")) > 0.01


def swap_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    """`higher` declares (ABC, Module), peft (Module, ABC): no class can inherit from both."""
    theirs: Any = higher.patch._MonkeyPatchBase
    body = {key: value for key, value in vars(theirs).items() if key not in ("__dict__", "__weakref__", "_abc_impl")}
    monkeypatch.setattr(higher.patch, "_MonkeyPatchBase", type(theirs)("Swapped", (nn.Module, ABC), body))


class Learnt(nn.Module):
    """peft's model at θ, and a linear head of zeros for the classes of an episode."""

    def __init__(self, base: Path, config: Path, theta: Weights, episode: Episode) -> None:
        super().__init__()
        model: Any = AutoModel.from_pretrained(base, attn_implementation="eager")
        adapters = LoraConfig.from_pretrained(config)
        adapters.base_model_name_or_path = model.name_or_path
        self.peft: Any = get_peft_model(model, adapters).eval()
        self.named = {name.replace(".default", ""): p for name, p in self.peft.named_parameters() if ".lora_" in name}
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(theta[f"lora/{name}"])
        self.weight = nn.Parameter(torch.zeros(len(episode.classes), 2 * model.config.hidden_size))
        self.bias = nn.Parameter(torch.zeros(len(episode.classes)))

    def forward(self, batch: Batch) -> tuple[Tensor, Weights]:
        """Features of the views (N, 2, D), and the head with an axis for its one task."""
        mine = [batch.example_of == text for text in range(len(batch.lengths))]
        ids, kinds = (nn.utils.rnn.pad_sequence([flat[text] for text in mine], batch_first=True)
                      for flat in (batch.ids, batch.types))  # fmt: skip
        mask = torch.arange(ids.shape[1]) < batch.lengths[:, None]
        x = self.peft(input_ids=ids, token_type_ids=kinds, attention_mask=mask.long()).last_hidden_state
        mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return torch.stack([mean, x[:, 0]], 1), {"head/weight": self.weight[None], "head/bias": self.bias[None]}


def by_higher(model: Learnt, algorithm: Maml, theta: Weights, episode: Episode) -> tuple[Weights, Tensor]:
    """Gradient and loss of one episode."""
    inner, heads = algorithm.inner, weights.leaves(weights.pick(theta, "head/", "views/"))
    lora, head = list(model.named.values()), [model.weight, model.bias]
    sgd = torch.optim.SGD([{"params": lora, "lr": inner.lr}, {"params": head, "lr": inner.head_lr}])

    def shortened(grads: list[Tensor | None]) -> list[Tensor | None]:
        length = torch.cat([g.flatten() for g in grads if g is not None]).norm()
        return [None if g is None else g * (inner.clip / length).clamp(max=1) for g in grads]

    # At θ and not at `fast`, which starts there: the steps go down the support loss at given evidence.
    evidence = algorithm.head.evidence(heads, model(episode.support)[0], episode.support)
    with higher.innerloop_ctx(model, sgd, copy_initial_weights=False) as (fast, steps):
        for _ in range(inner.steps):
            features, residual = fast(episode.support)
            scores, counted = algorithm.head.left_out(heads, evidence | residual, features, episode.support)
            loss = FORMS["classify"].loss(scores, episode.support, counted).sum()
            steps.step(loss, grad_callback=shortened)
        features, residual = fast(episode.support)
        phi = algorithm.head.finish(heads, evidence | residual, features, episode.support)
        scores = linear_scores(phi["head/weight"], phi["head/bias"], fast(episode.query)[0], episode.query)
        loss = nn.functional.cross_entropy(scores, episode.query.targets)
        keys = [*(f"lora/{name}" for name in model.named), *heads]
        grads = torch.autograd.grad(loss, [*lora, *heads.values()])
    return dict(zip(keys, grads, strict=True)), loss.detach()[None]


@pytest.mark.parametrize(
    "algorithm",
    [kind(inner, second_order=True) for kind, inner in ((Maml, FREE), (Maml, ADAM), (MetaSgd, CLIPPED))],
    ids=["sgd", "adam", "meta_sgd"],
)
def test_where_no_row_counts_second_order_is_finite(
    net: Backbone, toy_tasks: tuple[Task, ...], algorithm: Algorithm
) -> None:
    """One shot a class: no support gradient, and the slope of its length would be 0 / 0."""
    given = group([Episodes(toy_tasks[:1], net.encode, Sampling(shots=(1, 1)), seed=0)[0]])
    theta = algorithm.init(net, torch.Generator().manual_seed(0))
    grad = algorithm.meta_grad(net, theta, given).grad
    assert weights.finite(grad)
    assert weights.norm(weights.pick(grad, "lora/"))


def test_gradient_checkpoints_change_no_second_order_gradient(
    tiny: Path, net: Backbone, toy_pass: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metanlp.backbone.encoder.PART", 64)
    saving = Backbone.load(str(tiny), net.options.adapt, precision="fp32", gradient_checkpoint=True)
    algorithm = Maml(Inner(steps=2), second_order=True)
    theta = stirred(algorithm, net)
    plainly, saved = (algorithm.meta_grad(backbone, theta, toy_pass).grad for backbone in (net, saving))
    assert far(saved, plainly) < 1e-4


def test_the_cost_is_what_runs(net: Backbone, toy_tasks: tuple[Task, ...]) -> None:
    """Operations a token, by torch's own count, are those of first order, to a fifth: attention and adapters weigh much
    in so small a model. The fused attention is not in that count, so all run with the other."""
    given = group([Episodes(toy_tasks[:1], net.encode, Sampling(shots=(4, 8)), seed=5)[0]])
    inner = Inner(steps=3)

    def operations(algorithm: Algorithm) -> float:
        theta = stirred(algorithm, net)
        with twice_differentiable(), FlopCounterMode(display=False) as counter:
            found = algorithm.meta_grad(net, theta, given)
        return counter.get_total_flops() / found.tokens

    usual = operations(Maml(inner))
    for algorithm in (
        ProtoNet(), Anil(inner), Anil(inner, second_order=True), Maml(inner, second_order=True),
        Maml(inner, multi_step=0.5), Maml(inner, second_order=True, multi_step=0.5), Reptile(inner),
        MetaSgd(inner, second_order=True), Maml(replace(ADAM, steps=2), second_order=True),
    ):  # fmt: skip
        assert operations(algorithm) == pytest.approx(usual, rel=0.2)


# As methods among others.


def test_anil_is_maml_of_the_head(net: Backbone, toy_pass: Pass) -> None:
    one, other = Anil(Inner(steps=2)), Maml(Inner(steps=2), head_only=True)
    theta = stirred(one, net)
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
    learner = Learner(algorithm, net, stirred(algorithm, net))
    learner.save(tmp_path)
    loaded = Learner.load(tmp_path, base=str(tiny))
    assert loaded.algorithm == algorithm
    assert weights.equal(loaded.theta, learner.theta)
    rows = [("it came late", "post"), ("charged twice", "bill"), ("never came", "post"), ("a wrong bill", "bill")]
    assert weights.equal(loaded.adapt(rows).phi, learner.adapt(rows).phi)


@pytest.mark.parametrize("algorithm", LEARNED, ids=lambda algorithm: type(algorithm).__name__)
def test_recipes_differ_and_come_with_the_method_s_own_rates_first(algorithm: Algorithm) -> None:
    found = algorithm.recipes()
    assert len(set(found)) == len(found) > 1
    assert {type(setting) for setting in found} == {type(algorithm)}
    own = [(setting.inner.lr, setting.inner.head_lr) for setting in (found[0], algorithm)]
    assert own[0] == own[1]
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
    found = make("meta_sgd", asked, ())
    assert isinstance(found, MetaSgd)
    assert found.second_order
    assert not Maml.second_order
    assert make("maml", asked, ()) == make("maml", replace(asked, second_order=False), ())
    for method in ("reptile", "multitask"):
        with pytest.raises(InputError, match=f"--second-order is not for {method}"):
            methods(replace(asked, method=method))
