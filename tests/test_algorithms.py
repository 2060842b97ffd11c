"""The methods: one contract for all of them, and the laws that tell them apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import pack_rows, write_tiny
from torch import Tensor
from torch.nn.functional import cross_entropy

from metanlp import weights
from metanlp.algorithms import ALGORITHMS, Algorithm, Finetune, Frozen, Maml, Multitask, ProtoNet
from metanlp.algorithms.frozen import logistic_heads
from metanlp.backbone import Backbone, Lora
from metanlp.episodes import Episodes, Sampling, group
from metanlp.errors import InputError
from metanlp.exams import Exam, Protocol
from metanlp.heads import linear_scores
from metanlp.inner import Inner
from metanlp.metrics import as_good
from metanlp.outer import Outer
from metanlp.recipe import choose, describe, score_by_step, steps_to_try
from metanlp.types import Batch, Episode, Pass, Task, Tokens, Weights

NAMES = tuple(ALGORITHMS)
LEARN = tuple(name for name in NAMES if name not in ("frozen", "finetune"))
FAST = Inner(steps=3, lr=0.5, head_lr=0.3, clip=0.3)  # the clip binds, and the steps are long enough to matter


def classes_of(tasks: tuple[Task, ...]) -> tuple[tuple[str, int], ...]:
    return tuple((task.name, len(task.labels)) for task in tasks)


def made(name: str, tasks: tuple[Task, ...]) -> Algorithm:
    algorithm = ALGORITHMS[name]()
    return replace(algorithm, classes=classes_of(tasks)) if name in LEARN else algorithm


def start(algorithm: Algorithm, net: Backbone) -> Weights:
    """θ off its beginning: a fresh B and fresh heads are zero, and hide much."""
    theta = algorithm.init(net, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    return {key: value + 0.1 * torch.randn(value.shape, generator=generator) for key, value in theta.items()}


def far(a: Weights, b: Weights) -> float:
    """Distance, as a share of the length of `b`."""
    assert a.keys() == b.keys()
    return float(weights.norm(weights.add(a, b, -1.0)) / weights.norm(b))


# The contract.


@pytest.mark.parametrize("name", NAMES)
def test_adapt_leaves_theta_and_batch_untouched_and_is_the_same_twice(
    net: Backbone, toy_tasks: tuple[Task, ...], toy_pass: Pass, name: str
) -> None:
    algorithm = made(name, toy_tasks)
    theta = start(algorithm, net)
    before, ids = weights.clone(theta), toy_pass.support.ids.clone()
    one, other = (algorithm.adapt(net, theta, toy_pass.support) for _ in range(2))
    assert weights.equal(theta, before)
    assert torch.equal(toy_pass.support.ids, ids)
    assert weights.equal(one, other)
    assert not any(value.requires_grad for value in one.values())
    assert all(value.shape[0] == toy_pass.support.count_tasks for value in one.values())


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_finite_for_a_task_s_own_classes_only(
    net: Backbone, toy_tasks: tuple[Task, ...], toy_pass: Pass, name: str
) -> None:
    algorithm, query = made(name, toy_tasks), toy_pass.query
    phi = algorithm.adapt(net, start(algorithm, net), toy_pass.support)
    scores = algorithm.scores(net, phi, query)
    assert scores.shape == (len(query.targets), max(len(e.classes) for e in toy_pass.episodes))
    own = torch.arange(scores.shape[1]) < query.ways[query.task_of][:, None]
    assert scores[own].isfinite().all()
    assert (scores[~own] == -math.inf).all()


@pytest.mark.parametrize("name", NAMES)
def test_tasks_of_other_ways_in_one_pass_are_scored_as_alone(
    net: Backbone, toy_tasks: tuple[Task, ...], toy_pass: Pass, name: str
) -> None:
    algorithm = made(name, toy_tasks)
    theta = start(algorithm, net)
    together = algorithm.scores(net, algorithm.adapt(net, theta, toy_pass.support), toy_pass.query)
    for task, episode in enumerate(toy_pass.episodes):
        alone = algorithm.scores(net, algorithm.adapt(net, theta, episode.support), episode.query)
        mine = together[toy_pass.query.task_of == task][:, : len(episode.classes)]
        torch.testing.assert_close(mine, alone, atol=1e-4, rtol=1e-4)  # five steps, in scores of about 10


@pytest.mark.parametrize("name", NAMES)
def test_left_out_rows_are_scored_among_their_own_classes(
    net: Backbone, toy_tasks: tuple[Task, ...], toy_pass: Pass, name: str
) -> None:
    algorithm, support = made(name, toy_tasks), toy_pass.support
    theta = start(algorithm, net)
    before = weights.clone(theta)
    scores, counted = algorithm.left_out(net, theta, support)
    assert weights.equal(theta, before)
    assert not scores.requires_grad
    own = torch.arange(scores.shape[1]) < support.ways[support.task_of][:, None]
    assert scores[own].isfinite().all()
    assert (scores[~own] == -math.inf).all()
    assert counted.tolist() == [1.0] * len(support.targets)  # two shots or more
    for task, episode in enumerate(toy_pass.episodes):
        alone, _ = algorithm.left_out(net, theta, episode.support)
        mine = scores[support.task_of == task][:, : len(episode.classes)]
        torch.testing.assert_close(mine, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "algorithm", [ProtoNet(), Finetune(inner=Inner(steps=0)), Frozen(), Frozen(classifier="logistic")]
)
def test_left_out_is_adapting_without_the_row(net: Backbone, toy_tasks: tuple[Task, ...], algorithm: Algorithm) -> None:
    """Where no step is taken. The evidence about views comes from all rows, so it is not to count here."""
    pool, ways = toy_tasks[0].pools["train"], 3
    classes = [[row for row in pool if row["label"] == label] for label in range(ways)]
    rows = [*classes[0][:3], *classes[1][:2], *classes[2][:1]]
    theta = start(algorithm, net) | {"views/trust": torch.tensor(-math.inf)}
    scores, counted = algorithm.left_out(net, theta, pack_rows(rows, ways, net.encode))
    assert counted.tolist() == [1, 1, 1, 1, 1, 0]  # the last is alone in its class
    for n, row in enumerate(rows[:5]):
        phi = algorithm.adapt(net, theta, pack_rows([*rows[:n], *rows[n + 1 :]], ways, net.encode))
        asked = algorithm.scores(net, phi, pack_rows([row], ways, net.encode))
        torch.testing.assert_close(scores[n], asked[0], atol=1e-4, rtol=1e-4)


def test_left_out_scores_are_those_after_the_steps(net: Backbone, toy_tasks: tuple[Task, ...], toy_pass: Pass) -> None:
    """The steps minimise just their loss."""
    losses: list[float] = []
    for steps in (0, 1, 5):
        algorithm = Finetune(inner=Inner(steps=steps, lr=0.1, head_lr=0.1))
        scores, _ = algorithm.left_out(net, start(algorithm, net), toy_pass.support)
        losses.append(float(cross_entropy(scores, toy_pass.support.targets)))
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("name", LEARN)
def test_the_meta_gradient_has_theta_s_shape_and_is_the_sum_over_episodes(
    net: Backbone, toy_tasks: tuple[Task, ...], toy_pass: Pass, name: str
) -> None:
    algorithm = made(name, toy_tasks)
    theta = start(algorithm, net)
    before = weights.clone(theta)
    together = algorithm.meta_grad(net, theta, toy_pass)
    assert weights.equal(theta, before)
    assert {k: v.shape for k, v in together.grad.items()} == {k: v.shape for k, v in theta.items()}
    assert weights.finite(together.grad)
    assert together.tokens > 0
    apart = [algorithm.meta_grad(net, theta, group([episode])) for episode in toy_pass.episodes]
    torch.testing.assert_close(together.loss, torch.cat([part.loss for part in apart]), atol=1e-5, rtol=1e-5)
    assert far(together.grad, weights.total(part.grad for part in apart)) < 1e-4  # inner steps enlarge rounding
    assert together.tokens == pytest.approx(sum(part.tokens for part in apart), abs=len(apart))


def test_without_inner_steps_passes_agree_to_rounding(net: Backbone, toy_pass: Pass) -> None:
    algorithm = ProtoNet()
    theta = start(algorithm, net)
    together = algorithm.meta_grad(net, theta, toy_pass)
    apart = [algorithm.meta_grad(net, theta, group([episode])).grad for episode in toy_pass.episodes]
    assert far(together.grad, weights.total(apart)) < 5e-6


@pytest.mark.parametrize("algorithm", [Frozen(), Finetune()])
def test_baselines_can_not_be_meta_trained(net: Backbone, toy_pass: Pass, algorithm: Algorithm) -> None:
    with pytest.raises(InputError, match="can't be meta-trained"):
        algorithm.meta_grad(net, start(algorithm, net), toy_pass)


@pytest.mark.parametrize("name", NAMES)
def test_adapting_reads_off_one_trajectory(
    net: Backbone, toy_tasks: tuple[Task, ...], toy_pass: Pass, name: str
) -> None:
    """φ after n steps does not depend on how many more are taken."""
    algorithm = made(name, toy_tasks)
    theta, support = start(algorithm, net), toy_pass.episodes[0].support
    for steps, phi in algorithm.adapting(net, theta, support, range(100)):
        fewer = replace(algorithm, inner=replace(algorithm.inner, steps=steps))
        assert weights.equal(phi, fewer.adapt(net, theta, support))


# Learning.


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


@pytest.mark.parametrize("name", LEARN)
def test_thirty_steps_on_separable_tasks_teach_new_ones(tmp_path: Path, name: str) -> None:
    """New tasks of the family: from below 70 % of the query rows to above 90 % (95 to 100 % over many seeds)."""
    write_tiny(tmp_path, WORDS)
    net = Backbone.load(str(tmp_path), Lora(rank=4, alpha=8, layers="all"), views=["adapted.4.all"], precision="fp32")
    tasks, fresh = (tuple(map(planted, numbers)) for numbers in (range(6), range(100, 106)))
    sampling = Sampling(shots=(4, 4), queries=8)
    episodes = Episodes(tasks, net.encode, sampling, seed=1)
    held = group([Episodes([task], net.encode, sampling, seed=2)[0] for task in fresh])
    algorithm = made(name, tasks)
    algorithm = replace(algorithm, inner=replace(algorithm.inner, steps=min(1, algorithm.inner.steps)))
    outer = Outer(algorithm.init(net, torch.Generator().manual_seed(0)), weight_decay=0.0)
    before = judged(algorithm, net, outer.theta, held)
    for step in range(30):
        (build,) = episodes.passes(4 * step, 4, 4)
        outer.step(weights.scale(algorithm.meta_grad(net, outer.theta, build()).grad, 1 / 4), rate=0.005, clip=1.0)
    assert before < 0.7
    assert judged(algorithm, net, outer.theta, held) > 0.9


def judged(algorithm: Algorithm, net: Backbone, theta: Weights, held: Pass) -> float:
    scores = algorithm.scores(net, algorithm.adapt(net, theta, held.support), held.query)
    return (scores.argmax(1) == held.query.targets).float().mean().item()


# First-order MAML, written out: one episode after the other, plain loops over rows and classes.


def unrolled(net: Backbone, theta: Weights, episode: Episode, inner: Inner) -> tuple[Weights, Tensor]:
    """Gradient and loss of one episode."""
    lora = {key: value.clone() for key, value in theta.items() if key.startswith("lora/")}
    ways, width = len(episode.classes), len(net.views) * net.width
    w, b = torch.zeros(ways, width), torch.zeros(ways)
    updates = {key: torch.zeros_like(value) for key, value in lora.items()}
    evidence = view_losses(theta, unit(net.features(lora, episode.support)), episode) if inner.steps else None
    for _ in range(inner.steps):
        moving = {key: (lora[key] + updates[key]).requires_grad_() for key in lora}
        w, b = w.detach().requires_grad_(), b.detach().requires_grad_()
        x = unit(net.features(moving, episode.support))
        loss = torch.stack(list(support_losses(theta, x, w, b, episode, evidence).values())).mean()
        found = torch.autograd.grad(loss, [*moving.values(), w, b])
        counted = found if inner.lr else found[-2:]  # the clip is over what moves
        length = torch.cat([part.flatten() for part in counted]).norm()
        short = min(1.0, inner.clip / length.item())
        updates = {key: updates[key] - inner.lr * short * g for key, g in zip(lora, found, strict=False)}
        w, b = w - inner.head_lr * short * found[-2], b - inner.head_lr * short * found[-1]
    leaves = {key: value.clone().requires_grad_() for key, value in theta.items()}
    adapted = {key: leaves[key] + updates[key] for key in lora}
    x, y = (unit(net.features(adapted, side)) for side in (episode.support, episode.query))
    evidence = view_losses(leaves, x, episode) if evidence is None else evidence
    scores = query_scores(leaves, x, y, w.detach(), b.detach(), episode, evidence)
    loss = cross_entropy(scores, episode.query.targets)
    grad = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    return dict(zip(leaves, grad, strict=True)), loss.detach()


def unit(features: Tensor) -> Tensor:
    return features / features.norm(dim=2, keepdim=True)


def view_scores(row: Tensor, x: Tensor, targets: list[int], without: int | None, ways: int) -> Tensor:
    """2 x·c − ‖c‖², with `without` left out of its class: (K, V)."""
    means = [x[[n for n, t in enumerate(targets) if t == k and n != without]].mean(0) for k in range(ways)]
    return torch.stack([2 * (row * c).sum(1) - (c * c).sum(1) for c in means])


def view_losses(theta: Weights, x: Tensor, episode: Episode) -> Tensor:
    """√n times each view's mean loss on the support set, rows left out: (V,)."""
    targets = episode.support.targets.tolist()
    scores = left_out(x, targets, len(episode.classes))
    losses = [-(theta["head/scale"].exp() * s).log_softmax(0)[targets[n]] for n, s in scores.items()]
    return math.sqrt(len(losses)) * torch.stack(losses).mean(0)


def view_shares(theta: Weights, losses: Tensor) -> Tensor:
    return (theta["views/prior"] - theta["views/trust"].exp() * losses).softmax(0)


def left_out(x: Tensor, targets: list[int], ways: int) -> dict[int, Tensor]:
    return {n: view_scores(x[n], x, targets, n, ways) for n in range(len(targets)) if targets.count(targets[n]) > 1}


def support_losses(
    theta: Weights, x: Tensor, w: Tensor, b: Tensor, episode: Episode, evidence: Tensor | None
) -> dict[int, Tensor]:
    assert evidence is not None
    targets = episode.support.targets.tolist()
    share = view_shares(theta, evidence)
    scores = left_out(x, targets, len(episode.classes))
    mixed = {n: theta["head/scale"].exp() * (s @ share) + w @ x[n].flatten() + b for n, s in scores.items()}
    return {n: cross_entropy(s[None], torch.tensor([targets[n]])) for n, s in mixed.items()}


def query_scores(
    theta: Weights, x: Tensor, y: Tensor, w: Tensor, b: Tensor, episode: Episode, evidence: Tensor
) -> Tensor:
    targets, ways = episode.support.targets.tolist(), len(episode.classes)
    share = view_shares(theta, evidence)
    scores = [theta["head/scale"].exp() * (view_scores(row, x, targets, None, ways) @ share) for row in y]
    return torch.stack([s + w @ row.flatten() + b for s, row in zip(scores, y, strict=True)])


@pytest.mark.parametrize(
    "inner",
    [FAST, replace(FAST, lr=0.1, clip=1e9), replace(FAST, lr=0.0), Inner(0)],
    ids=["clipped", "free", "head", "none"],
)
def test_the_gradient_of_maml_is_the_unrolled_one(net: Backbone, toy_pass: Pass, inner: Inner) -> None:
    """To 1e-4 of its length: three steps in fp32, summed in another order."""
    algorithm = Maml(inner)
    theta = start(algorithm, net)
    found = algorithm.meta_grad(net, theta, toy_pass)
    expected = [unrolled(net, theta, episode, inner) for episode in toy_pass.episodes]
    torch.testing.assert_close(found.loss, torch.stack([loss for _, loss in expected]), atol=1e-5, rtol=1e-5)
    assert far(found.grad, weights.total(grad for grad, _ in expected)) < 1e-4
    if inner.steps and inner.lr:
        unmoved = Maml(Inner(0)).meta_grad(net, theta, toy_pass)
        assert far(found.grad, unmoved.grad) > 0.05  # the steps are seen in it


def test_the_cost_of_maml_is_what_runs(net: Backbone, toy_pass: Pass) -> None:
    """Forward and backward for every inner step, after one look at the support set for the evidence about views; a head
    that moves alone needs no more than that look."""
    theta = start(Maml(), net)
    for algorithm, inside in ((Maml(FAST), 7), (Maml(FAST, head_only=True), 1), (ProtoNet(), 0)):
        tokens = algorithm.meta_grad(net, theta, toy_pass).tokens
        assert tokens == net.work(toy_pass.support, 2 + inside) + net.work(toy_pass.query, 2)


def test_protonet_is_maml_without_steps(net: Backbone, toy_pass: Pass) -> None:
    theta = start(ProtoNet(), net)
    one, other = (algorithm.meta_grad(net, theta, toy_pass) for algorithm in (ProtoNet(), Maml(Inner(steps=0))))
    assert weights.equal(one.grad, other.grad)
    assert weights.equal(*(a.adapt(net, theta, toy_pass.support) for a in (ProtoNet(), Maml(Inner(steps=0)))))


def test_the_gradient_of_protonet_is_that_of_finite_differences(net: Backbone, toy_pass: Pass) -> None:
    """Central differences along the gradient itself and along single entries, in fp32: to 1 % of the steepest slope."""
    algorithm = ProtoNet()
    theta = start(algorithm, net)
    grad = algorithm.meta_grad(net, theta, toy_pass).grad

    def slope(direction: Weights, size: float) -> float:
        ends = [weights.add(theta, direction, sign * size) for sign in (1.0, -1.0)]
        high, low = (float(algorithm.meta_grad(net, end, toy_pass).loss.double().sum()) for end in ends)
        return (high - low) / (2 * size)

    for prefix in ("lora/", "views/", "head/"):
        part = weights.pick(grad, prefix)
        length = float(weights.norm(part))
        assert slope(weights.scale(part, 1 / length), 1e-2) == pytest.approx(length, rel=1e-2)
    for key in list(grad)[:3]:
        steepest = int(grad[key].abs().argmax())
        entry = {key: torch.zeros(grad[key].numel()).index_fill(0, torch.tensor(steepest), 1.0).view_as(grad[key])}
        assert slope(entry, 1e-2) == pytest.approx(float(grad[key].flatten()[steepest]), rel=2e-2)


def test_the_guide_adds_the_gradient_of_multitask(net: Backbone, toy_tasks: tuple[Task, ...], toy_pass: Pass) -> None:
    """Without inner steps features are the same in both, so the parts add up."""
    guided = Maml(Inner(steps=0), classes=classes_of(toy_tasks), guide=0.5)
    multitask, theta = Multitask(classes=guided.classes), start(guided, net)
    plain, many = (a.meta_grad(net, theta, toy_pass).grad for a in (replace(guided, guide=0.0), multitask))
    found = guided.meta_grad(net, theta, toy_pass)
    assert far(found.grad, weights.add(plain, many, 0.5)) < 1e-5


def test_multitask_is_a_linear_classifier_of_each_task_s_own(
    net: Backbone, toy_tasks: tuple[Task, ...], toy_pass: Pass
) -> None:
    algorithm = Multitask(classes=classes_of(toy_tasks))
    theta = start(algorithm, net)
    found = algorithm.meta_grad(net, theta, toy_pass)
    for loss, episode in zip(found.loss, toy_pass.episodes, strict=True):
        sides = [_task_loss(net, theta, episode, side) for side in (episode.support, episode.query)]
        torch.testing.assert_close(loss, torch.stack(sides).mean(), atol=1e-5, rtol=1e-5)


def _task_loss(net: Backbone, theta: Weights, episode: Episode, side: Batch) -> Tensor:
    picked = list(episode.classes)
    w, b = theta[f"tasks/{episode.task}/weight"][picked], theta[f"tasks/{episode.task}/bias"][picked]
    x = unit(net.features(theta, side)).flatten(1)
    return cross_entropy(theta["head/scale"].exp() * (x @ w.T + b), side.targets)


# Frozen features.


@pytest.mark.parametrize("ways", [2, 3])
def test_logistic_regression_separates_what_is_separable(ways: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [{"text": "x", "label": n % ways} for n in range(24)]
    batch = pack_rows(rows, ways, one_token_each)
    features = torch.eye(6)[batch.targets][:, None] + 0.1 * torch.randn(24, 1, 6, generator=generator)
    heads = logistic_heads(features, batch, 10.0)
    scores = linear_scores(heads["head/weight"], heads["head/bias"], features, batch)
    assert (scores.argmax(1) == batch.targets).all()
    assert (scores.softmax(1).max(1).values > 0.6).all()


def one_token_each(texts: Sequence[tuple[str, ...]]) -> Tokens:
    ones = np.ones(len(texts), np.int64)
    return Tokens(ones, 0 * ones, ones, np.arange(len(texts) + 1))


def test_logistic_regression_with_a_class_that_the_support_set_lacks() -> None:
    batch = pack_rows([{"text": "x", "label": n} for n in (0, 2, 0, 2)], 3, one_token_each)
    features = torch.eye(4)[batch.targets][:, None]
    heads = logistic_heads(features, batch, 10.0)
    scores = linear_scores(heads["head/weight"], heads["head/bias"], features, batch)
    assert (scores.argmax(1) == batch.targets).all()


def test_frozen_asks_for_a_frozen_view_and_reads_nothing_else(tiny: Path, net: Backbone, toy_pass: Pass) -> None:
    adapted = Backbone.load(str(tiny), Lora(rank=4), views=["adapted.4.all"], precision="fp32")
    with pytest.raises(InputError, match="needs a frozen view"):
        Frozen().init(adapted, torch.Generator())
    theta = Frozen().init(net, torch.Generator().manual_seed(0))
    other = theta | weights.scale(weights.pick(theta, "lora/"), 9.0)
    for algorithm in (Frozen(), Frozen(classifier="logistic")):
        one, two = (algorithm.adapt(net, w, toy_pass.support) for w in (theta, other))
        assert weights.equal(one, two)
        assert not weights.pick(one, "lora/")


# The recipe search.


def test_a_recipe_is_one_of_those_tried(net: Backbone, toy_tasks: tuple[Task, ...]) -> None:
    exam = Exam(toy_tasks[4], net, Protocol(shots=(4,), episodes=2))
    trials = [(exam, support) for support in exam.supports]
    ticks: list[int] = []
    for algorithm in (Finetune(), ProtoNet(), Frozen()):
        theta = algorithm.init(net, torch.Generator().manual_seed(0))
        search = choose(algorithm, net, theta, trials, lambda: ticks.append(1))
        assert search.tried <= 12
        assert search.score == search.curve[search.algorithm.inner.steps] <= max(search.curve.values())
        steps = steps_to_try(algorithm)
        again = score_by_step(search.algorithm, net, theta, trials, steps)[search.algorithm.inner.steps]
        assert np.mean(again) == search.score
        assert set(search.curve) <= steps
        assert describe(search.algorithm)["inner"]
    assert len(ticks) == sum(len(a.recipes()) for a in (Finetune(), ProtoNet(), Frozen())) * len(trials)


def test_the_own_setting_stays_unless_another_is_better(net: Backbone, toy_tasks: tuple[Task, ...]) -> None:
    exam = Exam(toy_tasks[4], net, Protocol(shots=(4,), episodes=3))
    trials = [(exam, support) for support in exam.supports]
    own = Finetune(inner=Inner(steps=3, lr=0.01, head_lr=0.02))
    theta = own.init(net, torch.Generator().manual_seed(0))
    found = {
        (setting.inner.lr, step): np.array(each)
        for setting in own.recipes()
        for step, each in score_by_step(setting, net, theta, trials, steps_to_try(own)).items()
    }
    assert {step for _, step in found} == {0, 1, 3, 5}
    best = max(found.values(), key=lambda each: float(each.mean()))
    search = choose(own, net, theta, trials)
    assert (search.algorithm == own) == as_good(found[0.01, 3], best)
    hopeless = replace(own, inner=Inner(steps=3, lr=50.0, head_lr=50.0))  # one that is worse must give way
    other = choose(hopeless, net, theta, trials)
    assert other.algorithm != hopeless
    assert other.score > 0.5
