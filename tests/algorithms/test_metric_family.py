"""Matching and siamese networks: the laws that tell them apart from other methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from few_rows import QUERY, SUPPORT, VIEWS, batch_of, features_of, loss_of, scores_of, theta_of
from kinds import start
from near import INNER_STEPS, near
from torch import Tensor
from torch.nn.functional import cosine_similarity, logsigmoid, normalize

from metanlp.algorithms import Matching, ProtoNet, Siamese
from metanlp.algorithms.siamese import best_of
from metanlp.backbone import Backbone
from metanlp.core.types import Task
from metanlp.episodes.sampling import Episodes, Sampling, group

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
    near(matching.softmax(1), prototypes.softmax(1), INNER_STEPS)


def test_matching_is_attention_summed_by_class() -> None:
    """Eq. 1, written out, every class with as many votes; views weighed as they are for prototypes."""
    algorithm, seen, asked = Matching(), features_of(SUPPORT), features_of(QUERY, 3)
    theta = theta_of(algorithm)
    phi = algorithm.condition(theta, seen, SUPPORT)
    scores = algorithm.answer(phi, asked, QUERY)
    for n, (task, row) in enumerate(zip(QUERY.task_of.tolist(), asked, strict=True)):
        mine = SUPPORT.task_of == task
        cosines = cosine_similarity(seen[mine], row, dim=-1) @ phi["matching/share"][task]
        attention = (2 * theta["head/scale"].exp() * cosines).exp()
        by_class = torch.stack([attention[SUPPORT.targets[mine] == k].mean() for k in range(int(SUPPORT.ways[task]))])
        near(scores[n, : len(by_class)].softmax(0), by_class / by_class.sum())


def test_full_context_hears_of_every_support_row_and_plain_matching_does_not() -> None:
    """What is far away in the support set changes how the nearest rows are embedded."""
    support, query = batch_of([0, 1, 0, 1]), batch_of([0])
    seen, asked = features_of(support), features_of(query, 3)
    other = torch.cat([seen[:3], features_of(batch_of([1]), 9)])
    for algorithm, moves in ((Matching(), False), (Matching(full_context=True, hidden=8, reads=2), True)):
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
    found = loss_of(algorithm, theta, seen, asked, SUPPORT, QUERY)
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
        near(found[task], expected)


def test_siamese_scores_are_the_mean_or_the_best_of_a_class() -> None:
    seen, asked = features_of(SUPPORT), features_of(QUERY, 3)
    theta = theta_of(Siamese())
    each = replace(SUPPORT, targets=torch.tensor([0, 1, 2, 3, 4, 0, 1, 2]), ways=torch.tensor([5, 3]), max_ways=5)
    odds = scores_of(Siamese(), theta, each, seen, QUERY, asked)  # of every support row
    mean, best = (scores_of(Siamese(match=how), theta, SUPPORT, seen, QUERY, asked) for how in ("mean", "best"))
    for row in range(3):
        a, b, c, d, e = odds[row]
        near(mean[row], torch.stack([(a + c) / 2, (b + d) / 2, e]))
        near(best[row], mean[row])  # of one row each: there is a class that has no more


@pytest.mark.parametrize("sizes", [(3, 3), (2, 5, 3), (1, 4)])
def test_the_best_of_a_class_is_that_of_as_many_rows_as_the_smallest_has(sizes: Sequence[int]) -> None:
    kind = torch.tensor([[k for k, size in enumerate(sizes) for _ in range(size)] + [len(sizes)]])
    odds = torch.randn(1, kind.shape[1], generator=torch.Generator().manual_seed(0))
    m = min(sizes)
    found = best_of(odds, kind, torch.tensor([sizes]), torch.tensor([[m]]))[0]
    for k in range(len(sizes)):
        draws = [max(draw) for draw in combinations(odds[kind == k].tolist(), m)]
        assert float(found[k]) == pytest.approx(sum(draws) / len(draws), abs=1e-6)
        if sizes[k] == m:
            assert found[k] == odds[kind == k].max()
