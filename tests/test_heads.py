"""Scores from features, in float64, against loops that follow the papers' words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from metanlp import weights
from metanlp.heads import PrototypeHead, class_means, left_out_scores, linear_scores, normalized
from metanlp.types import Batch, Weights

HEAD = PrototypeHead()
VIEWS, WIDTH = 3, 5
TASKS = ([0, 1, 0, 1, 1, 0, 0], [2, 0, 1, 4, 3, 2, 0, 1, 3, 4, 4])  # two classes, and five


def labelled(tasks: Sequence[Sequence[int]], ways: Sequence[int] | None = None) -> Batch:
    """A batch of one-token rows: a head reads no tokens."""
    counts = [len(targets) for targets in tasks]
    ways = ways or [max(targets) + 1 for targets in tasks]
    n = sum(counts)
    zeros = torch.zeros(n, dtype=torch.long)
    return Batch(
        ids=zeros,
        positions=zeros,
        types=zeros,
        segments=zeros,
        example_of=torch.arange(n),
        lengths=zeros + 1,
        task_of=torch.repeat_interleave(torch.arange(len(tasks)), torch.tensor(counts)),
        targets=torch.tensor([target for targets in tasks for target in targets]),
        group=torch.arange(n),
        ways=torch.tensor(ways),
        ends=torch.tensor(counts).cumsum(0).int(),
        runs=((n, 1),),
        max_ways=max(ways),
    )


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def start(views: int = VIEWS, seed: int = 3) -> Weights:
    """θ of a head that has learned something."""
    theta = {key: value.double() for key, value in HEAD.init(views, WIDTH).items()}
    return theta | {"views/prior": random(views, seed=seed)}


def untouched(batch: Batch, views: int = VIEWS) -> Weights:
    return {key: value.double() for key, value in HEAD.residual(views * WIDTH, batch).items()}


def moved(batch: Batch) -> Weights:
    return {key: 0.1 * random(*value.shape, seed=9) for key, value in untouched(batch).items()}


def rows_of(batch: Batch, task: int) -> list[int]:
    return torch.nonzero(batch.task_of == task).flatten().tolist()


def unit(features: Tensor) -> Tensor:
    return features / features.norm(dim=-1, keepdim=True)


def scores_against(x: Tensor, row: Tensor, rows: Sequence[int], batch: Batch, ways: int) -> Tensor:
    """2 x·c − ‖c‖² of one row against the means of `rows`: (K, V)."""
    out = []
    for k in range(ways):
        c = x[[n for n in rows if batch.targets[n] == k]].mean(0)  # (V, D)
        out.append(2 * (row * c).sum(-1) - c.square().sum(-1))
    return torch.stack(out)


def by_hand(x: Tensor, batch: Batch, task: int) -> tuple[dict[int, Tensor], list[int]]:
    """Each row of a task against prototypes without it, where its class has another row."""
    rows, ways = rows_of(batch, task), int(batch.ways[task])
    alike = {n: [m for m in rows if batch.targets[m] == batch.targets[n]] for n in rows}
    usable = [n for n in rows if len(alike[n]) > 1]
    return {n: scores_against(x, x[n], [m for m in rows if m != n], batch, ways) for n in usable}, usable


def shares_by_hand(theta: Weights, x: Tensor, batch: Batch, task: int) -> Tensor:
    """Softmax of prior − trust · √n · mean left-out loss: (V,)."""
    scores, usable = by_hand(x, batch, task)
    if not usable:
        return theta["views/prior"].softmax(0)
    scale, n = theta["head/scale"].exp(), len(usable)
    losses = [-torch.log_softmax(scale * scores[row], 0)[batch.targets[row]] for row in usable]
    return (theta["views/prior"] - theta["views/trust"].exp() * math.sqrt(n) * torch.stack(losses).mean(0)).softmax(0)


def shares(phi: Weights, features: Tensor, batch: Batch) -> Tensor:
    """The weights over views as they stand in a finished head without residual: ‖W‖ = 2 · scale · share · ‖c‖."""
    c, _ = class_means(unit(features), batch)
    weight = phi["head/weight"].view(-1, *features.shape[1:])
    found = weight.norm(dim=-1) / c.norm(dim=-1) / (2 * HEAD.scale)
    return found.view(batch.count_tasks, batch.max_ways, -1)[:, 0]


# Left out, in closed form.


@pytest.mark.parametrize("tasks", [TASKS[:1], TASKS[1:], TASKS], ids=["two", "five", "both in one pass"])
def test_left_out_scores_are_those_without_the_row(tasks: Sequence[Sequence[int]]) -> None:
    batch = labelled(tasks)
    x = unit(random(len(batch.targets), VIEWS, WIDTH))
    found, counts = left_out_scores(x, *class_means(x, batch), batch)
    for task in range(len(tasks)):
        expected, usable = by_hand(x, batch, task)
        assert [n for n in rows_of(batch, task) if counts[n]] == usable
        for n, scores in expected.items():
            torch.testing.assert_close(found[n, : int(batch.ways[task])], scores)


def test_a_row_alone_in_its_class_does_not_count() -> None:
    batch = labelled([[0, 1, 1, 2]])
    x = unit(random(4, VIEWS, WIDTH))
    _, counts = left_out_scores(x, *class_means(x, batch), batch)
    assert counts.tolist() == [0, 1, 1, 0]


def test_support_scores_are_the_views_averaged_and_the_residual() -> None:
    batch, theta = labelled(TASKS), start()
    features = random(len(batch.targets), VIEWS, WIDTH)
    residual = moved(batch)
    found, counts = HEAD.left_out(theta, residual, features, batch)
    x = unit(features)
    for task, ways in enumerate(batch.ways.tolist()):
        scores, usable = by_hand(x, batch, task)
        share = shares_by_hand(theta, x, batch, task)
        for n in usable:
            extra = residual["head/weight"][task, :ways] @ x[n].flatten() + residual["head/bias"][task, :ways]
            expected = theta["head/scale"].exp() * (scores[n] * share).sum(-1) + extra
            torch.testing.assert_close(found[n, :ways], expected)
    assert counts.sum() == len(batch.targets)
    assert (found[: len(TASKS[0]), 2:] == -math.inf).all()


# The finished head.


def test_one_view_without_residual_is_the_nearest_prototype() -> None:
    batch, theta = labelled(TASKS), start(views=1)
    features = random(len(batch.targets), 1, WIDTH)
    phi = HEAD.finish(theta, untouched(batch, views=1), features, batch)
    asked = random(len(batch.targets), 1, WIDTH, seed=1)
    found = HEAD.scores(phi, asked, batch).argmax(1)
    x, y = unit(features), unit(asked)
    for n in range(len(batch.targets)):
        task = int(batch.task_of[n])
        rows = rows_of(batch, task)
        means = [x[[m for m in rows if batch.targets[m] == k]].mean(0) for k in range(int(batch.ways[task]))]
        assert found[n] == torch.stack([(y[n] - c).square().sum() for c in means]).argmin()


def test_scores_are_the_views_averaged_with_the_evidence() -> None:
    batch, theta = labelled(TASKS), start()
    features, asked = (random(len(batch.targets), VIEWS, WIDTH, seed=seed) for seed in (0, 1))
    residual = moved(batch)
    found = HEAD.scores(HEAD.finish(theta, residual, features, batch), asked, batch)
    x, y = unit(features), unit(asked)
    for n in range(len(batch.targets)):
        task = int(batch.task_of[n])
        ways = int(batch.ways[task])
        share = shares_by_hand(theta, x, batch, task)
        scores = scores_against(x, y[n], rows_of(batch, task), batch, ways)
        extra = residual["head/weight"][task, :ways] @ y[n].flatten() + residual["head/bias"][task, :ways]
        torch.testing.assert_close(found[n, :ways], HEAD.scale * (scores * share).sum(-1) + extra)
        assert (found[n, ways:] == -math.inf).all()


def test_view_weights_sum_to_one_and_follow_the_evidence() -> None:
    batch, theta = labelled([[0, 1, 2] * 4]), start() | {"views/prior": torch.zeros(VIEWS, dtype=torch.float64)}
    features = random(12, VIEWS, WIDTH)
    features[:, 1] = 0.3 * features[:, 1] + 3 * torch.eye(WIDTH, dtype=torch.float64)[batch.targets]  # tells classes
    share = shares(HEAD.finish(theta, untouched(batch), features, batch), features, batch)[0]
    assert share.sum() == pytest.approx(1.0)
    assert share.argmax() == 1
    assert share[1] > 0.9


def test_evidence_of_before_the_steps_decides_and_not_that_of_moved_features() -> None:
    batch, theta = labelled([[0, 1, 2] * 4]), start() | {"views/prior": torch.zeros(VIEWS, dtype=torch.float64)}
    features = random(12, VIEWS, WIDTH)
    fitted = features.clone()
    fitted[:, 0] += 3 * torch.eye(WIDTH, dtype=torch.float64)[batch.targets]  # as inner steps would have it
    evidence = HEAD.evidence(theta, features, batch)
    before = shares(HEAD.finish(theta, untouched(batch), features, batch), features, batch)
    kept = shares(HEAD.finish(theta, untouched(batch) | evidence, fitted, batch), fitted, batch)
    flattered = shares(HEAD.finish(theta, untouched(batch), fitted, batch), fitted, batch)
    torch.testing.assert_close(kept, before)
    assert flattered[0, 0] > before[0, 0] + 0.3
    seen, _ = HEAD.left_out(theta, untouched(batch) | evidence, features, batch)
    torch.testing.assert_close(seen, HEAD.left_out(theta, untouched(batch), features, batch)[0])
    assert not seen.equal(HEAD.left_out(theta, untouched(batch) | evidence, fitted, batch)[0])


def test_with_one_shot_the_prior_decides() -> None:
    batch, theta = labelled([[0, 1]]), start()
    features = random(2, VIEWS, WIDTH)
    share = shares(HEAD.finish(theta, untouched(batch), features, batch), features, batch)[0]
    torch.testing.assert_close(share, theta["views/prior"].softmax(0))


def test_permuted_classes_permute_the_scores() -> None:
    theta, features, asked = start(), random(11, VIEWS, WIDTH), random(11, VIEWS, WIDTH, seed=1)
    order = torch.tensor([3, 0, 4, 1, 2])
    batch, renamed = labelled(TASKS[1:]), labelled([order[list(TASKS[1])].tolist()])
    before, after = (HEAD.scores(HEAD.finish(theta, untouched(b), features, b), asked, b) for b in (batch, renamed))
    torch.testing.assert_close(after[:, order], before)


def test_the_order_of_support_rows_does_not_matter() -> None:
    theta, features = start(), random(11, VIEWS, WIDTH)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    batch, turned = labelled(TASKS[1:]), labelled([[TASKS[1][n] for n in order.tolist()]])
    one = HEAD.finish(theta, untouched(batch), features, batch)
    other = HEAD.finish(theta, untouched(turned), features[order], turned)
    for key in one:
        torch.testing.assert_close(one[key], other[key], atol=1e-12, rtol=0)


def test_tasks_of_different_ways_in_one_pass_are_as_alone() -> None:
    """Scores and gradients: −∞ beyond a task's classes must not turn a gradient into no number."""
    theta, features = start(), random(18, VIEWS, WIDTH)
    parts = features.split([len(targets) for targets in TASKS])
    apart = [_graded(theta, part, labelled([targets])) for part, targets in zip(parts, TASKS, strict=True)]
    score, grad = _graded(theta, features, labelled(TASKS))
    torch.testing.assert_close(score, torch.cat([score for score, _ in apart]))
    assert weights.finite(grad)
    for key, value in weights.total([grad for _, grad in apart]).items():
        torch.testing.assert_close(grad[key], value)


def _graded(theta: Weights, features: Tensor, batch: Batch) -> tuple[Tensor, Weights]:
    """Each row's loss while adapting and after, and what their sum says about θ."""
    theta = weights.leaves(theta)
    residual = untouched(batch)
    seen, _ = HEAD.left_out(theta, residual, features, batch)
    after = HEAD.scores(HEAD.finish(theta, residual, features, batch), features, batch)
    losses = [-torch.log_softmax(scores, 1).gather(1, batch.targets[:, None]) for scores in (seen, after)]
    loss = torch.cat(losses, 1)
    return loss.detach(), weights.gradient(loss.sum(), theta)


def test_gradients_through_the_head_are_those_of_finite_differences() -> None:
    batch, theta = labelled(TASKS), start()
    features = random(len(batch.targets), VIEWS, WIDTH).requires_grad_()
    prior, trust, scale = (theta[key].requires_grad_() for key in ("views/prior", "views/trust", "head/scale"))

    def loss(prior: Tensor, trust: Tensor, scale: Tensor, features: Tensor) -> Tensor:
        given = {"views/prior": prior, "views/trust": trust, "head/scale": scale}
        phi = HEAD.finish(given, untouched(batch), features, batch)
        scores = HEAD.scores(phi, features, batch)
        return torch.log_softmax(scores, 1).gather(1, batch.targets[:, None]).sum()

    assert torch.autograd.gradcheck(loss, (prior, trust, scale, features))


def test_features_count_by_their_direction_alone() -> None:
    batch, theta = labelled(TASKS), start()
    features = random(len(batch.targets), VIEWS, WIDTH)
    longer = features * torch.tensor([0.1, 1.0, 7.0], dtype=torch.float64)[:, None]
    one, other = (HEAD.finish(theta, untouched(batch), x, batch) for x in (features, longer))
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(normalized(features), normalized(longer))


def test_linear_scores_use_each_task_s_own_head() -> None:
    batch = labelled(TASKS)
    features = random(len(batch.targets), VIEWS, WIDTH)
    weight, bias = random(2, 5, VIEWS * WIDTH), random(2, 5, seed=1)
    found = linear_scores(weight, bias, features, batch)
    for n, row in enumerate(normalized(features)):
        task = int(batch.task_of[n])
        ways = int(batch.ways[task])
        torch.testing.assert_close(found[n, :ways], (weight[task] @ row + bias[task])[:ways])
