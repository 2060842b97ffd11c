"""Matching and siamese networks: the laws that tell them apart from other methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import pack_rows
from test_algorithms import one_token_each, start
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, logsigmoid, normalize

from metanlp import weights
from metanlp.algorithms import Matching, Memory, ProtoNet, Siamese
from metanlp.algorithms.direct import Direct
from metanlp.algorithms.sets import Sets
from metanlp.backbone import Backbone
from metanlp.backbone.packing import join
from metanlp.episodes import Episodes, Sampling, group
from metanlp.errors import InputError
from metanlp.heads import beyond
from metanlp.learner import Adapted, Learner
from metanlp.outer import Outer
from metanlp.types import Batch, Pass, Task, Weights

VIEWS, WIDTH = 2, 6
METHODS: list[Direct] = [
    Matching(),
    Matching(full_context=True, hidden=8, reads=2),
    Siamese(),
    Siamese(match="best"),
    Memory(hidden=8),
    Memory(kind="recurrent", hidden=8),
]
NAMES = ["matching", "full context", "siamese", "best", "key-value", "recurrent"]


def batch_of(*labels: Sequence[int], ways: int = 0) -> Batch:
    """A task for each list of labels."""
    rows = [[{"text": "x", "label": label} for label in each] for each in labels]
    return join([pack_rows(r, ways or max(each) + 1, one_token_each) for r, each in zip(rows, labels, strict=True)])


def features_of(batch: Batch, seed: int = 0) -> Tensor:
    drawn = torch.randn(len(batch.targets), VIEWS, WIDTH, generator=torch.Generator().manual_seed(seed))
    return drawn.double()


def theta_of(algorithm: Direct, seed: int = 1) -> Weights:
    """θ without a backbone, off its beginning, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    first = ProtoNet().head.init(VIEWS, WIDTH) | algorithm.network(VIEWS * WIDTH, generator)
    return {k: (v + 0.3 * torch.randn(v.shape, generator=generator)).double() for k, v in first.items()}


def scores_of(algorithm: Direct, theta: Weights, support: Batch, seen: Tensor, query: Batch, asked: Tensor) -> Tensor:
    return algorithm.answer(algorithm.condition(theta, seen, support), asked, query)


SUPPORT, QUERY = batch_of([0, 1, 0, 1, 2], [0, 1, 1]), batch_of([2, 1, 0], [1, 0, 0, 1])


# What all methods with a set in sight share.


def test_sets_take_turns_and_keep_the_order_of_the_batch() -> None:
    batch = batch_of([0, 0, 0, 1, 1, 1], [1, 0, 0])
    sets = Sets.of(batch)
    numbers = torch.arange(9.0)
    assert sets.stack(numbers).tolist() == [[0, 3, 1, 4, 2, 5], [7, 6, 8, 0, 0, 0]]
    assert sets.stack(numbers, sets.back).tolist() == [[5, 2, 4, 1, 3, 0], [8, 6, 7, 0, 0, 0]]
    assert sets.last(sets.stack(numbers)).tolist() == [5, 8]
    assert sets.classes(batch, numbers).sum(1).tolist() == [[3, 3], [2, 1]]


@pytest.mark.parametrize("algorithm", METHODS, ids=NAMES)
def test_a_query_row_sees_neither_its_target_nor_other_query_rows(algorithm: Direct) -> None:
    theta, seen, asked = theta_of(algorithm), features_of(SUPPORT), features_of(QUERY, 3)
    scores = scores_of(algorithm, theta, SUPPORT, seen, QUERY, asked)
    blind = replace(QUERY, targets=QUERY.targets.flip(0))
    assert torch.equal(scores_of(algorithm, theta, SUPPORT, seen, blind, asked), scores)
    others = asked.clone()
    others[1:] += 1
    torch.testing.assert_close(scores_of(algorithm, theta, SUPPORT, seen, QUERY, others)[0], scores[0])


@pytest.mark.parametrize("algorithm", METHODS, ids=NAMES)
def test_a_support_label_counts_for_its_own_task_alone(algorithm: Direct) -> None:
    theta, seen, asked = theta_of(algorithm), features_of(SUPPORT), features_of(QUERY, 3)
    scores = scores_of(algorithm, theta, SUPPORT, seen, QUERY, asked)
    targets = SUPPORT.targets.clone()
    targets[2] = 1
    other = scores_of(algorithm, theta, replace(SUPPORT, targets=targets), seen, QUERY, asked)
    first = QUERY.task_of == 0
    assert ((other - scores)[first].abs().amax(1) > 1e-3).all()
    torch.testing.assert_close(other[~first], scores[~first])


@pytest.mark.parametrize("algorithm", METHODS, ids=NAMES)
def test_tasks_of_other_ways_and_shots_in_one_pass_are_scored_as_alone(algorithm: Direct) -> None:
    theta, seen, asked = theta_of(algorithm), features_of(SUPPORT), features_of(QUERY, 3)
    scores = scores_of(algorithm, theta, SUPPORT, seen, QUERY, asked)
    for task, labels in enumerate(([0, 1, 0, 1, 2], [0, 1, 1])):
        mine, theirs = SUPPORT.task_of == task, QUERY.task_of == task
        support, query = batch_of(labels), batch_of([0] * int(theirs.sum()), ways=max(labels) + 1)
        alone = scores_of(algorithm, theta, support, seen[mine], query, asked[theirs])
        torch.testing.assert_close(scores[theirs][:, : alone.shape[1]], alone)


@pytest.mark.parametrize("algorithm", METHODS, ids=NAMES)
def test_what_was_saved_is_what_comes_back(net: Backbone, tiny: Path, tmp_path: Path, algorithm: Direct) -> None:
    """To the bit, with weights that all tasks share; a learner's θ too."""
    rows = [("a red door", "warm"), ("a blue door", "cold"), ("an orange sun", "warm"), ("the deep sea", "cold")]
    learner = Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(1)))
    adapted = learner.adapt(rows)
    adapted.save(tmp_path / "one")
    learner.save(tmp_path / "all")
    loaded, again = Adapted.load(tmp_path / "one", base=str(tiny)), Learner.load(tmp_path / "all", base=str(tiny))
    assert loaded.algorithm == again.algorithm == algorithm
    for phi in (loaded.phi, again.adapt(rows).phi):
        assert weights.equal(phi, adapted.phi)
    assert (loaded.scores(["a green hill"]) == adapted.scores(["a green hill"])).all()


@pytest.mark.parametrize("algorithm", METHODS, ids=NAMES)
def test_theta_begins_as_the_generator_says_and_nothing_else_is_drawn(net: Backbone, algorithm: Direct) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (algorithm.init(net, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert weights.equal(one, same)
    assert not weights.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


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
            return algorithm.loss(w, w["seen"], asked, SUPPORT, QUERY).sum()
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
def test_left_out_is_adapting_without_the_row(net: Backbone, toy_pass: Pass, algorithm: Direct) -> None:
    support, theta = toy_pass.episodes[1].support, start(algorithm, net)
    scores, counted = algorithm.left_out(net, theta, support)
    assert counted.all()
    features = net.features(weights.pick(theta, "lora/"), support)
    for row in (0, len(scores) - 1):
        others = [n for n in range(len(scores)) if n != row]
        rest = replace(
            support, task_of=support.task_of[others], targets=support.targets[others], group=support.group[others]
        )
        phi = algorithm.condition(theta, features[others], rest)
        one = replace(support, task_of=support.task_of[:1])
        torch.testing.assert_close(scores[row], algorithm.answer(phi, features[row : row + 1], one)[0])


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


# Matching networks.


def test_one_shot_matching_is_the_nearest_neighbour_by_cosine() -> None:
    support, query = batch_of(list(range(7))), batch_of([0] * 40)
    algorithm, seen, asked = Matching(), features_of(support), features_of(query, 3)
    theta = theta_of(algorithm) | {"views/prior": torch.zeros(VIEWS)}
    scores = scores_of(algorithm, theta, support, seen, query, asked)
    x, y = (normalize(side, dim=-1).flatten(1) for side in (seen, asked))  # views count alike
    nearest = cosine_similarity(y[:, None], x, dim=-1).argmax(1)
    assert torch.equal(scores.argmax(1), nearest)
    assert len(nearest.unique()) > 3


def test_one_shot_matching_is_a_prototypical_network(net: Backbone, toy_tasks: tuple[Task, ...]) -> None:
    theta = start(ProtoNet(), net)
    one = group([Episodes([task], net.encode, Sampling(shots=(1, 1)), seed=5)[0] for task in toy_tasks])
    matching, prototypes = (
        a.scores(net, a.adapt(net, theta, one.support), one.query) for a in (Matching(), ProtoNet())
    )
    torch.testing.assert_close(matching.softmax(1), prototypes.softmax(1), atol=1e-5, rtol=1e-4)


def test_matching_is_attention_summed_by_class() -> None:
    """Eq. 1, written out; views weighed as they are for prototypes."""
    algorithm, seen, asked = Matching(), features_of(SUPPORT), features_of(QUERY, 3)
    theta = theta_of(algorithm)
    phi = algorithm.condition(theta, seen, SUPPORT)
    scores = algorithm.answer(phi, asked, QUERY)
    for n, (task, row) in enumerate(zip(QUERY.task_of.tolist(), asked, strict=True)):
        mine = SUPPORT.task_of == task
        cosines = cosine_similarity(seen[mine], row, dim=-1) @ phi["matching/share"][task]
        attention = (2 * theta["head/scale"].exp() * cosines).softmax(0)
        summed = torch.stack([attention[SUPPORT.targets[mine] == k].sum() for k in range(int(SUPPORT.ways[task]))])
        torch.testing.assert_close(scores[n, : len(summed)].softmax(0), summed)


def test_full_context_hears_of_every_support_row_and_plain_matching_does_not() -> None:
    """What is far away in the support set changes how the nearest rows are embedded."""
    support, query = batch_of([0, 1, 0, 1]), batch_of([0])
    seen, asked = features_of(support), features_of(query, 3)
    other = torch.cat([seen[:3], features_of(batch_of([1]), 9)])
    for algorithm, moves in ((METHODS[0], False), (METHODS[1], True)):
        theta = theta_of(algorithm) | {"views/trust": torch.tensor(-torch.inf)}  # rows tell nothing of views here
        scores = [scores_of(algorithm, theta, support, x, query, asked)[0, 0] for x in (seen, other)]
        assert bool((scores[0] - scores[1]).abs() > 1e-6) == moves


# Siamese networks.


def test_swapping_the_rows_of_a_pair_changes_nothing() -> None:
    """With one row a class, scores are the log-odds of pairs."""
    one, algorithm = batch_of([0, 1, 2, 3]), Siamese()
    x, y = features_of(one), features_of(one, 3)
    theta = theta_of(algorithm)
    there = scores_of(algorithm, theta, one, x, one, y)
    back = scores_of(algorithm, theta, one, y, one, x)
    assert torch.equal(there, back.T)
    assert not torch.allclose(there, back)


def test_the_loss_of_siamese_networks_is_that_of_all_pairs() -> None:
    """Pair by pair in plain loops."""
    algorithm, seen, asked = Siamese(), features_of(SUPPORT), features_of(QUERY, 3)
    theta = theta_of(algorithm)
    alpha, bias = theta["siamese/weight"].exp(), theta["siamese/bias"]
    found = algorithm.loss(theta, seen, asked, SUPPORT, QUERY)
    for task in range(2):
        mine, theirs = SUPPORT.task_of == task, QUERY.task_of == task
        x = normalize(torch.cat([seen[mine], asked[theirs]]), dim=-1).flatten(1)
        target = torch.cat([SUPPORT.targets[mine], QUERY.targets[theirs]]).tolist()
        losses: dict[bool, list[Tensor]] = {True: [], False: []}
        for i in range(int(mine.sum())):
            for j in range(i + 1, len(x)):
                odds, same = bias - (alpha * (x[i] - x[j]).abs()).sum(), target[i] == target[j]
                losses[same].append(-logsigmoid(odds if same else -odds))
        expected = torch.stack([torch.stack(each).mean() for each in losses.values()]).mean()
        torch.testing.assert_close(found[task], expected)


def test_siamese_scores_are_the_mean_or_the_best_of_a_class() -> None:
    seen, asked = features_of(SUPPORT), features_of(QUERY, 3)
    theta = theta_of(Siamese())
    each = replace(SUPPORT, targets=torch.tensor([0, 1, 2, 3, 4, 0, 1, 2]), ways=torch.tensor([5, 3]), max_ways=5)
    odds = scores_of(Siamese(), theta, each, seen, QUERY, asked)  # of every support row
    mean, best = (scores_of(Siamese(match=how), theta, SUPPORT, seen, QUERY, asked) for how in ("mean", "best"))
    for row in range(3):
        a, b, c, d, e = odds[row]
        torch.testing.assert_close(mean[row], torch.stack([(a + c) / 2, (b + d) / 2, e]))
        torch.testing.assert_close(best[row], torch.stack([a.maximum(c), b.maximum(d), e]))


# Learning.


@pytest.mark.parametrize(
    ("algorithm", "steps"), [*zip(METHODS[:5], [40] * 5, strict=True), (METHODS[5], 200)], ids=NAMES
)
def test_new_classes_are_told_apart_after_learning(algorithm: Direct, steps: int) -> None:
    """Three of twelve numbers tell ever new classes, nine are noise; a learned matrix stands for the encoder. A state
    to be filled by what is read takes longest."""
    theta = {key: value.float() for key, value in theta_of(algorithm).items()}
    outer = Outer(theta | {"encoder": torch.eye(VIEWS * WIDTH)}, weight_decay=0.0)
    support, query = (join([batch_of([0, 1] * 4)] * 16) for _ in range(2))
    first = judged(algorithm, outer.theta, support, query)
    for step in range(steps):
        w = weights.leaves(outer.theta)
        loss = algorithm.loss(w, *new_classes(w, support, query, step), support, query).mean()
        outer.step(weights.gradient(loss, w), rate=0.02, clip=1.0)
    last = judged(algorithm, outer.theta, support, query)
    assert last[0] < 0.5 * first[0]
    assert last[1] > max(0.85, first[1])


def judged(algorithm: Direct, w: Weights, support: Batch, query: Batch) -> tuple[float, float]:
    """Loss and accuracy on classes that were never trained on."""
    seen, asked = new_classes(w, support, query, 10_000)
    loss = algorithm.loss(w, seen, asked, support, query).mean()
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
