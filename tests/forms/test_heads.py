"""Scores from features, in float64, against loops that follow the papers' words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from head_inputs import labelled, random
from near import LAYERS, near
from slowly import slow_but
from torch import Tensor

from metanlp.core import weights
from metanlp.core.types import Batch, Weights
from metanlp.forms.heads import PrototypeHead, class_means, left_out_scores, linear_scores, normalized
from metanlp.forms.heads.base import balanced, votes
from metanlp.forms.heads.prototypes import size_correction, variance_within

HEAD = PrototypeHead()
VIEWS, WIDTH = 3, 5
TASKS = ([0, 1, 0, 1, 1, 0, 0], [2, 0, 1, 4, 3, 2, 0, 1, 3, 4, 4])  # two classes, and five


def start(views: int = VIEWS, seed: int = 3) -> Weights:
    """θ of a head that has learned something."""
    theta = {key: value.double() for key, value in HEAD.init(views, WIDTH).items()}
    return theta | {"views/prior": random(views, seed=seed), "head/scale": torch.tensor(HEAD.scale).double().log()}


def untouched(batch: Batch, views: int = VIEWS) -> Weights:
    return {key: value.double() for key, value in HEAD.residual(views * WIDTH, batch).items()}


def moved(batch: Batch) -> Weights:
    return {key: 0.1 * random(*value.shape, seed=9) for key, value in untouched(batch).items()}


def rows_of(batch: Batch, task: int) -> list[int]:
    return torch.nonzero(batch.task_of == task).flatten().tolist()


def unit(features: Tensor) -> Tensor:
    return features / features.norm(dim=-1, keepdim=True)


def scores_against(x: Tensor, row: Tensor, rows: Sequence[int], batch: Batch, ways: int) -> Tensor:
    """2 x·c − ‖c‖² of one row against the means of `rows`, with the variance within classes over the rows of each, less
    what it is for as many rows as the largest class has: (K, V). Where a row is missing, it is missing everywhere."""
    everyone = rows_of(batch, int(batch.task_of[rows[0]]))
    classes = [[n for n in everyone if batch.targets[n] == k] for k in range(ways)]
    within = torch.stack([(x[c] - x[c].mean(0)).square().sum((0, 2)) for c in classes]).sum(0)
    variance = within / max(1, len(everyone) - ways)
    largest, out = max(map(len, classes)), []
    for k in range(ways):
        mine = [n for n in rows if batch.targets[n] == k]
        gone = len(classes[k]) - len(mine)
        c = x[mine].mean(0)  # (V, D)
        excess = variance * (1 / len(mine) - 1 / (largest - gone))
        out.append(2 * (row * c).sum(-1) - c.square().sum(-1) + excess)
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
    sizes = [sum(int(batch.targets[m] == batch.targets[n]) for m in usable) for n in usable]
    w = torch.tensor([n / len({*batch.targets[usable].tolist()}) / size for size in sizes], dtype=torch.float64)
    doubt = (torch.stack(losses) * w[:, None]).sum(0) / w.square().sum().sqrt()
    return (theta["views/prior"] - theta["views/trust"].exp() * doubt).softmax(0)


def shares(phi: Weights, features: Tensor, batch: Batch) -> Tensor:
    """The weights over views as they stand in a finished head without residual: ‖W‖ = 2 · scale · share · ‖c‖."""
    c = class_means(unit(features), batch)
    weight = phi["head/weight"].view(-1, *features.shape[1:])
    found = weight.norm(dim=-1) / c.flatten(0, 1).norm(dim=-1) / (2 * HEAD.scale)
    return found.view(batch.count_tasks, batch.max_ways, -1)[:, 0]


# Left out, in closed form.


@pytest.mark.parametrize("tasks", [TASKS[:1], TASKS[1:], TASKS], ids=["two", "five", "both in one pass"])
def test_left_out_scores_are_those_without_the_row(tasks: Sequence[Sequence[int]]) -> None:
    batch = labelled(tasks)
    x = unit(random(len(batch.targets), VIEWS, WIDTH))
    found, counts = left_out_scores(x, class_means(x, batch), batch)
    for task in range(len(tasks)):
        expected, usable = by_hand(x, batch, task)
        assert [n for n in rows_of(batch, task) if counts[n]] == usable
        for n, scores in expected.items():
            near(found[n, : int(batch.ways[task])], scores)


def test_a_row_alone_in_its_class_does_not_count() -> None:
    batch = labelled([[0, 1, 1, 2]])
    x = unit(random(4, VIEWS, WIDTH))
    _, counts = left_out_scores(x, class_means(x, batch), batch)
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
            near(found[n, :ways], expected)
    assert counts.sum() == len(batch.targets)
    assert (found[: len(TASKS[0]), 2:] == -math.inf).all()


# Class sizes.


def test_equal_classes_are_corrected_by_nothing_and_count_alike() -> None:
    for task in ([0, 1], [0, 1, 2] * 4):
        batch, x = labelled([task]), unit(random(len(task), VIEWS, WIDTH))
        for gone in (0, 1):
            assert (size_correction(variance_within(x, class_means(x, batch), batch), batch, gone) == 0).all()
        scores, usable = left_out_scores(x, class_means(x, batch), batch)
        seen, weight = balanced(scores, usable, batch)
        assert seen.equal(scores)
        assert weight.equal(usable)


@pytest.mark.parametrize(("few", "many"), slow_but([(1, 4)], [(1, 4), (1, 16), (4, 12)]))
def test_scores_of_a_small_class_are_right_on_average(few: int, many: int) -> None:
    """Rows around centres that differ along the first axis: a row between the two is as near to both, however many rows
    each has. Without the correction it is farther from the small one by the variance × (1 / few − 1 / many)."""
    batch, draws = labelled([[0] * few + [1] * many]), 4000
    centre = torch.eye(2, 16, dtype=torch.float64)
    between, gaps, bare = centre.mean(0)[None], list[Tensor](), list[Tensor]()
    for noise in random(draws, few + many, 1, 16):
        x = centre[batch.targets][:, None] + 0.3 * noise
        c = class_means(x, batch)
        score = (2 * c[0, :, 0] @ between.T).flatten() - c[0, :, 0].square().sum(-1)
        bare.append(score[0] - score[1])
        gaps.append(bare[-1] + size_correction(variance_within(x, c, batch), batch)[0, :, 0].diff().neg().squeeze())
    found = torch.stack(gaps)
    assert found.mean().abs() < 4 * found.std() / draws**0.5
    expected = -(0.3**2) * 16 * (1 / few - 1 / many)
    assert torch.stack(bare).mean() == pytest.approx(expected, abs=4 * float(found.std()) / draws**0.5)


def test_more_rows_of_one_class_take_no_score_from_the_others() -> None:
    """Its rows three times over: the mean is the same, and the others must not be farther off beside it."""
    targets, theta = [0, 0, 0, 1, 1, 1, 2, 2, 2], start()
    features, asked = random(9, VIEWS, WIDTH), random(20, VIEWS, WIDTH, seed=1)
    rows = [*range(9), *[0, 1, 2] * 2]
    batch, more, query = labelled([targets]), labelled([[targets[n] for n in rows]]), labelled([[0, 1, 2] * 6 + [0, 1]])
    evidence = HEAD.evidence(theta, features, batch)
    before, after = (
        HEAD.scores(HEAD.finish(theta, untouched(b) | evidence, x, b), asked, query)
        for b, x in ((batch, features), (more, features[rows]))
    )
    margins = [scores[:, 1:] - scores[:, :1] for scores in (before, after)]
    assert (margins[1] > margins[0]).all()


def test_in_a_loss_every_class_counts_alike_and_one_without_a_voice_takes_no_part() -> None:
    batch = labelled([[0, 0, 1, 1, 1, 1, 2], [0, 1]])
    scores, usable = left_out_scores(x := unit(random(9, VIEWS, WIDTH)), class_means(x, batch), batch)
    seen, weight = balanced(scores, usable, batch)
    assert weight.tolist() == [1.5, 1.5, 0.75, 0.75, 0.75, 0.75, 0, 0, 0]
    assert (seen[:6, 2] == -math.inf).all()
    assert seen[:6, :2].equal(scores[:6, :2])
    assert seen[6:].equal(scores[6:])


def test_words_in_no_entity_stay_as_common_as_they_are() -> None:
    """Entities as often as each other are corrected by nothing, however many words are outside of all."""
    batch = replace(labelled([[0] * 9 + [1, 1, 2, 2]]), form="tag", background=True)
    x = unit(random(13, VIEWS, WIDTH))
    c = class_means(x, batch)
    assert (size_correction(variance_within(x, c, batch), batch) == 0).all()
    assert balanced(*left_out_scores(x, c, batch), batch)[1].tolist() == votes(batch).tolist() == [1.0] * 13
    batch = replace(labelled([[0] * 9 + [1, 1, 1, 2]]), form="tag", background=True)
    assert votes(batch).tolist() == [1.0] * 12 + [3.0]


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
        assert found[n] == scores_against(x, y[n], rows, batch, int(batch.ways[task]))[:, 0].argmax()


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
        near(found[n, :ways], theta["head/scale"].exp() * (scores * share).sum(-1) + extra)
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
    near(kept, before)
    assert flattered[0, 0] > before[0, 0] + 0.3
    seen, _ = HEAD.left_out(theta, untouched(batch) | evidence, features, batch)
    near(seen, HEAD.left_out(theta, untouched(batch), features, batch)[0])
    assert not seen.equal(HEAD.left_out(theta, untouched(batch) | evidence, fitted, batch)[0])


def test_with_one_shot_the_prior_decides() -> None:
    batch, theta = labelled([[0, 1]]), start()
    features = random(2, VIEWS, WIDTH)
    share = shares(HEAD.finish(theta, untouched(batch), features, batch), features, batch)[0]
    near(share, theta["views/prior"].softmax(0))


def test_permuted_classes_permute_the_scores() -> None:
    theta, features, asked = start(), random(11, VIEWS, WIDTH), random(11, VIEWS, WIDTH, seed=1)
    order = torch.tensor([3, 0, 4, 1, 2])
    batch, renamed = labelled(TASKS[1:]), labelled([order[list(TASKS[1])].tolist()])
    before, after = (HEAD.scores(HEAD.finish(theta, untouched(b), features, b), asked, b) for b in (batch, renamed))
    near(after[:, order], before)


def test_the_order_of_support_rows_does_not_matter() -> None:
    theta, features = start(), random(11, VIEWS, WIDTH)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    batch, turned = labelled(TASKS[1:]), labelled([[TASKS[1][n] for n in order.tolist()]])
    one = HEAD.finish(theta, untouched(batch), features, batch)
    other = HEAD.finish(theta, untouched(turned), features[order], turned)
    for key in one:
        near(one[key], other[key], LAYERS)


def test_tasks_of_different_ways_in_one_pass_are_as_alone() -> None:
    """Scores and gradients: −∞ beyond a task's classes must not turn a gradient into no number."""
    theta, features = start(), random(18, VIEWS, WIDTH)
    parts = features.split([len(targets) for targets in TASKS])
    apart = [_graded(theta, part, labelled([targets])) for part, targets in zip(parts, TASKS, strict=True)]
    score, grad = _graded(theta, features, labelled(TASKS))
    near(score, torch.cat([score for score, _ in apart]))
    assert weights.finite(grad)
    for key, value in weights.total([grad for _, grad in apart]).items():
        near(grad[key], value)


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
    near(one, other)
    near(normalized(features), normalized(longer))


def test_linear_scores_use_each_task_s_own_head() -> None:
    batch = labelled(TASKS)
    features = random(len(batch.targets), VIEWS, WIDTH)
    weight, bias = random(2, 5, VIEWS * WIDTH), random(2, 5, seed=1)
    found = linear_scores(weight, bias, features, batch)
    for n, row in enumerate(normalized(features)):
        task = int(batch.task_of[n])
        ways = int(batch.ways[task])
        near(found[n, :ways], (weight[task] @ row + bias[task])[:ways])


def test_entities_of_one_word_each_leave_numbers() -> None:
    """No word of an entity can then be left out; those outside of all say nothing against any view."""
    batch = replace(labelled([[0] * 3 + [1, 2]]), form="tag", background=True)
    x, head = unit(random(5, VIEWS, WIDTH)), PrototypeHead()
    theta = head.init(VIEWS, WIDTH)
    scores, weight = balanced(*left_out_scores(x, class_means(x, batch), batch), batch)
    assert scores[:3, 0].isfinite().all()
    assert weight[3:].tolist() == [0.0, 0.0]
    made = head.evidence(theta, x, batch) | head.residual(VIEWS * WIDTH, batch)
    assert all(value.isfinite().all() for value in (made | head.finish(theta, made, x, batch)).values())
