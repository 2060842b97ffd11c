"""Methods whose φ is a function of the support set: the laws that all of them keep."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from few_rows import QUERY, SUPPORT, VIEWS, WIDTH, batch_of, features_of, loss_of, scores_of, theta_of
from kinds import start
from near import near
from slowly import slow_but
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from metanlp.algorithms import Matching, Memory, Siamese
from metanlp.algorithms.direct import Direct
from metanlp.algorithms.networks.sets import Sets
from metanlp.backbone import Backbone
from metanlp.backbone.packing import join
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Pass, Weights
from metanlp.forms.heads import beyond
from metanlp.training.optimizer import OuterOptimizer, clipped

METHODS: list[Direct] = [
    Matching(),
    Matching(full_context=True, hidden=8, reads=2),
    Siamese(),
    Siamese(match="best"),
    Memory(hidden=8),
    Memory(kind="recurrent", hidden=8),
]
NAMES = ["matching", "full context", "siamese", "best", "key-value", "recurrent"]


# What all methods with a set in sight share.


def test_sets_take_turns_and_keep_the_order_of_the_batch() -> None:
    batch = batch_of([0, 0, 0, 1, 1, 1], [1, 0, 0])
    sets = Sets.of(replace(batch, max_units=6))
    numbers = torch.arange(9.0)
    assert sets.stack(numbers).tolist() == [[0, 3, 1, 4, 2, 5], [7, 6, 8, 0, 0, 0]]
    assert sets.stack(numbers, sets.back).tolist() == [[5, 2, 4, 1, 3, 0], [8, 6, 7, 0, 0, 0]]
    assert sets.last(sets.stack(numbers)).tolist() == [5, 8]
    assert sets.classes(batch, numbers).sum(1).tolist() == [[3, 3], [2, 2]]  # votes, as many for each class
    assert Sets.of(batch).longest == 9  # where nobody said how long the lines are, none is longer than the pass


def test_a_pass_knows_how_many_units_a_task_has_at_most(toy_pass: Pass) -> None:
    for side in (toy_pass.support, toy_pass.query):
        assert side.max_units == max(side.task_of.tolist().count(task) for task in range(side.count_tasks))


@pytest.mark.parametrize("algorithm", METHODS, ids=NAMES)
def test_a_query_row_sees_neither_its_target_nor_other_query_rows(algorithm: Direct) -> None:
    theta, seen, asked = theta_of(algorithm), features_of(SUPPORT), features_of(QUERY, 3)
    scores = scores_of(algorithm, theta, SUPPORT, seen, QUERY, asked)
    blind = replace(QUERY, targets=QUERY.targets.flip(0))
    assert torch.equal(scores_of(algorithm, theta, SUPPORT, seen, blind, asked), scores)
    others = asked.clone()
    others[1:] += 1
    near(scores_of(algorithm, theta, SUPPORT, seen, QUERY, others)[0], scores[0])


@pytest.mark.parametrize("algorithm", METHODS, ids=NAMES)
def test_a_support_label_counts_for_its_own_task_alone(algorithm: Direct) -> None:
    theta, seen, asked = theta_of(algorithm), features_of(SUPPORT), features_of(QUERY, 3)
    scores = scores_of(algorithm, theta, SUPPORT, seen, QUERY, asked)
    targets = SUPPORT.targets.clone()
    targets[2] = 1
    other = scores_of(algorithm, theta, replace(SUPPORT, targets=targets), seen, QUERY, asked)
    first = QUERY.task_of == 0
    assert ((other - scores)[first].abs().amax(1) > 1e-3).all()
    near(other[~first], scores[~first])


@pytest.mark.parametrize("algorithm", METHODS, ids=NAMES)
def test_tasks_of_other_ways_and_shots_in_one_pass_are_scored_as_alone(algorithm: Direct) -> None:
    theta, seen, asked = theta_of(algorithm), features_of(SUPPORT), features_of(QUERY, 3)
    scores = scores_of(algorithm, theta, SUPPORT, seen, QUERY, asked)
    for task, labels in enumerate(([0, 1, 0, 1, 2], [0, 1, 1])):
        mine, theirs = SUPPORT.task_of == task, QUERY.task_of == task
        support, query = batch_of(labels), batch_of([0] * int(theirs.sum()), ways=max(labels) + 1)
        alone = scores_of(algorithm, theta, support, seen[mine], query, asked[theirs])
        near(scores[theirs][:, : alone.shape[1]], alone)


VOTES = [Matching(), Siamese(), Siamese(match="best"), Memory(hidden=8)]


@pytest.mark.parametrize("algorithm", VOTES, ids=["matching", "siamese", "best", "key-value"])
def test_more_rows_of_one_class_take_no_score_from_the_others(algorithm: Direct) -> None:
    """Every row of it three times over: all scores stay, but that the best of some of these rows is no longer sure to
    be the best of them."""
    targets, query = [0, 0, 1, 1, 1, 2, 2], batch_of([0, 1, 2, 0, 1, 2])
    rows = [*range(7), *[2, 3, 4] * 2]
    seen, asked = features_of(batch_of(targets)), features_of(query, 3)
    theta = theta_of(algorithm) | {"views/trust": torch.tensor(-torch.inf)}  # more rows are more evidence about views
    before, after = (
        scores_of(algorithm, theta, batch_of([targets[n] for n in chosen]), seen[chosen], query, asked)
        for chosen in ([*range(7)], rows)
    )
    gain = (after - after[:, 1:2]) - (before - before[:, 1:2])
    assert gain.min() > -1e-5
    assert algorithm == Siamese(match="best") or gain.max() < 1e-5


@pytest.mark.parametrize("algorithm", METHODS, ids=NAMES)
def test_a_class_without_support_rows_has_a_score_and_a_gradient(algorithm: Direct) -> None:
    support, query = batch_of([0, 2, 0, 2], ways=3), batch_of([0, 1, 2])
    theta = weights.leaves(theta_of(algorithm))
    scores = scores_of(algorithm, theta, support, features_of(support), query, features_of(query, 3))
    assert scores.isfinite().all()
    assert weights.finite(weights.gradient(scores.log_softmax(1)[:, 1].sum(), theta))


@pytest.mark.parametrize("algorithm", METHODS, ids=NAMES)
def test_the_loss_has_the_gradient_of_finite_differences(algorithm: Direct) -> None:
    """Along random directions, in double precision."""
    theta, seen, asked = theta_of(algorithm), features_of(SUPPORT), features_of(QUERY, 3)

    def loss(w: Weights) -> Tensor:
        if isinstance(algorithm, Siamese):
            return loss_of(algorithm, w, w["seen"], asked, SUPPORT, QUERY).sum()
        scores = scores_of(algorithm, w, SUPPORT, w["seen"], QUERY, asked)  # the loss of a form would be in fp32
        return cross_entropy(scores.masked_fill(beyond(QUERY), -torch.inf), QUERY.targets)

    w = weights.leaves(theta | {"seen": seen})
    grad = weights.gradient(loss(w), w)
    generator = torch.Generator().manual_seed(4)
    for key in w:
        way = {key: torch.randn(w[key].shape, generator=generator).double()}
        ends = [loss(weights.add(weights.detach(w), way, by)) for by in (1e-6, -1e-6)]
        assert float((ends[0] - ends[1]) / 2e-6) == pytest.approx(
            float((grad[key] * way[key]).sum()), rel=1e-4, abs=1e-7
        )


@pytest.mark.parametrize("algorithm", METHODS, ids=NAMES)
def test_the_meta_gradient_is_that_of_finite_differences(net: Backbone, toy_pass: Pass, algorithm: Direct) -> None:
    """Through the model, in fp32, along the gradient itself: to 2 % of the slope."""
    theta = start(algorithm, net)
    grad = algorithm.meta_grad(net, theta, toy_pass).grad
    for part in (weights.pick(grad, "lora/"), weights.drop(grad, "lora/")):
        length = float(weights.norm(part))
        ends = [
            algorithm.meta_grad(net, weights.add(theta, part, sign * 3e-3 / length), toy_pass).loss.double().sum()
            for sign in (1, -1)
        ]
        assert float(ends[0] - ends[1]) / 6e-3 == pytest.approx(length, rel=2e-2)


@pytest.mark.parametrize("algorithm", METHODS, ids=NAMES)
def test_left_out_is_adapting_with_the_next_row_of_its_class_in_its_place(
    net: Backbone, toy_pass: Pass, algorithm: Direct
) -> None:
    support, theta = toy_pass.episodes[1].support, start(algorithm, net)
    scores, counted = algorithm.left_out(net, theta, support)
    assert counted.all()
    features, targets = net.features(weights.pick(theta, "lora/"), support), support.targets.tolist()
    for row in (0, len(scores) - 1):
        mine = [n for n, target in enumerate(targets) if target == targets[row]]
        others = list(range(len(scores)))
        others[row] = mine[(mine.index(row) + 1) % len(mine)]
        assert others[row] != row
        phi = algorithm.condition(theta, features[others], support)
        one = replace(support, task_of=support.task_of[:1])
        near(scores[row], algorithm.answer(phi, features[row : row + 1], one)[0])


@pytest.mark.parametrize("algorithm", [Matching(), Memory()], ids=["matching", "key-value"])
def test_left_out_scores_of_votes_favour_no_class_where_the_rows_say_nothing(algorithm: Direct) -> None:
    """Were the row's class one vote short, it would lose by log 3/4 everywhere."""
    support = batch_of([0, 1] * 4)
    theta = theta_of(algorithm)
    scores, _ = algorithm.left_out(Given(torch.ones(8, VIEWS, WIDTH).double()), theta, support)
    near(scores[:, 0], scores[:, 1])


class Given(Backbone):
    """No model: features are given."""

    def __init__(self, features: Tensor) -> None:
        self.given = features

    def with_trunk(self, batch: Batch) -> Batch:
        return batch

    def features(self, w: Weights, batch: Batch) -> Tensor:
        return self.given


@pytest.mark.parametrize(
    "make",
    [
        lambda: Matching(hidden=0),
        lambda: Matching(reads=0),
        lambda: Memory(hidden=0),
        lambda: Memory(hops=0),
        lambda: Memory(kind="heap"),  # type: ignore[arg-type]
        lambda: Siamese(match="worst"),  # type: ignore[arg-type]
    ],
)
def test_settings_that_can_not_be(make: type[Direct]) -> None:
    with pytest.raises(InputError, match="is not possible"):
        make()


# Learning.


@pytest.mark.parametrize(
    ("algorithm", "steps"),
    slow_but([(METHODS[0], 40), (METHODS[4], 40)], [*zip(METHODS[:5], [40] * 5, strict=True), (METHODS[5], 200)]),
    ids=NAMES,
)
def test_new_classes_are_told_apart_after_learning(algorithm: Direct, steps: int) -> None:
    """Three of twelve numbers tell ever new classes, nine are noise; a learned matrix stands for the encoder. A state
    to be filled by what is read takes longest."""
    theta = {key: value.float() for key, value in theta_of(algorithm).items()}
    outer = OuterOptimizer(theta | {"encoder": torch.eye(VIEWS * WIDTH)}, weight_decay=0.0)
    support, query = (join([batch_of([0, 1] * 4)] * 16) for _ in range(2))
    first = judged(algorithm, outer.theta, support, query)
    for step in range(steps):
        w = weights.leaves(outer.theta)
        loss = loss_of(algorithm, w, *new_classes(w, support, query, step), support, query).mean()
        outer.step(clipped(weights.gradient(loss, w), 1.0), rate=0.02)
    last = judged(algorithm, outer.theta, support, query)
    assert last[0] < 0.5 * first[0]
    assert last[1] > max(0.85, first[1])


def judged(algorithm: Direct, w: Weights, support: Batch, query: Batch) -> tuple[float, float]:
    """Loss and accuracy on classes that were never trained on."""
    seen, asked = new_classes(w, support, query, 10_000)
    loss = loss_of(algorithm, w, seen, asked, support, query).mean()
    scores = scores_of(algorithm, w, support, seen, query, asked)
    return float(loss), float((scores.argmax(1) == query.targets).float().mean())


def new_classes(w: Weights, support: Batch, query: Batch, seed: int) -> list[Tensor]:
    """Features of both sides."""
    generator = torch.Generator().manual_seed(seed)
    means = normalize(torch.randn(support.count_tasks, 1, 3, generator=generator), dim=-1) * torch.tensor(
        [[1.0], [-1.0]]
    )
    drawn: list[Tensor] = []
    for side in (support, query):
        rows = 1.5 * torch.randn(len(side.targets), VIEWS * WIDTH, generator=generator)
        rows[:, :3] = means[side.task_of, side.targets] + 0.2 * rows[:, :3]
        drawn.append((rows @ w["encoder"]).view(-1, VIEWS, WIDTH))
    return drawn
