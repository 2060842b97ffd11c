"""First-order MAML and what it is made of: prototypes, the guide, multi-task heads."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from kinds import classes_of, start
from near import INNER_STEPS, LAYERS, far, near
from torch import Tensor
from torch.nn.functional import cross_entropy

from metanlp.algorithms import Maml, Multitask, ProtoNet
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone
from metanlp.core import weights
from metanlp.core.types import Batch, Episode, Pass, Task, Weights

FAST = Inner(steps=3, lr=0.5, head_lr=0.3, clip=0.3)  # the clip binds, and the steps are long enough to matter


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
    """To the roundings of three steps in fp32, summed in another order."""
    algorithm = Maml(inner)
    theta = start(algorithm, net)
    found = algorithm.meta_grad(net, theta, toy_pass)
    expected = [unrolled(net, theta, episode, inner) for episode in toy_pass.episodes]
    near(found.loss, torch.stack([loss for _, loss in expected]), LAYERS)
    near(found.grad, weights.total(grad for grad, _ in expected), INNER_STEPS)
    if inner.steps and inner.lr:
        unmoved = Maml(Inner(0)).meta_grad(net, theta, toy_pass)
        assert far(found.grad, unmoved.grad) > 0.05  # the steps are seen in it


def test_the_cost_of_maml_is_what_runs(net: Backbone, toy_pass: Pass) -> None:
    """Forward and backward for every inner step, after one look at the support set for the evidence about views; a head
    that moves alone needs no more than that look."""
    theta = start(Maml(), net)
    for algorithm, inside in ((Maml(FAST), 6), (Maml(FAST, head_only=True), 0), (ProtoNet(), 0)):
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
    guided, multitask = Maml(Inner(steps=0), guide=0.5), Multitask()
    theta = start(guided, net, classes_of(toy_tasks))
    plain, many = (a.meta_grad(net, theta, toy_pass).grad for a in (replace(guided, guide=0.0), multitask))
    found = guided.meta_grad(net, theta, toy_pass)
    near(found.grad, weights.add(plain, many, 0.5), LAYERS)


def test_multitask_is_a_linear_classifier_of_each_task_s_own(
    net: Backbone, toy_tasks: tuple[Task, ...], toy_pass: Pass
) -> None:
    algorithm = Multitask()
    theta = start(algorithm, net, classes_of(toy_tasks))
    found = algorithm.meta_grad(net, theta, toy_pass)
    for loss, episode in zip(found.loss, toy_pass.episodes, strict=True):
        sides = [_task_loss(net, theta, episode, side) for side in (episode.support, episode.query)]
        near(loss, torch.stack(sides).mean(), LAYERS)


def _task_loss(net: Backbone, theta: Weights, episode: Episode, side: Batch) -> Tensor:
    picked = list(episode.classes)
    w, b = theta[f"tasks/{episode.task}/weight"][picked], theta[f"tasks/{episode.task}/bias"][picked]
    x = unit(net.features(theta, side)).flatten(1)
    return cross_entropy(theta["head/scale"].exp() * (x @ w.T + b), side.targets)
