"""Networks that read a support set: it is a set, its classes have no numbers, queries are strangers to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import pack_rows
from head_inputs import labelled
from kinds import start
from near import INNER_STEPS, LAYERS, far, near
from torch import Tensor
from torch.nn.functional import cross_entropy

from metanlp.algorithms import Algorithm, Hypernet, Mapping, ProtoNet
from metanlp.algorithms.networks.set_attention import alike, rows, set_weights
from metanlp.backbone import Backbone
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Pass, Row, Task, Weights
from metanlp.training.optimizer import OuterOptimizer, clipped

MADE = [Mapping(kind="cnp"), Mapping(kind="transformer"), Hypernet()]
KINDS = MADE[:2]
NAMES = ["cnp", "transformer", "hypernet"]
every = pytest.mark.parametrize("algorithm", MADE, ids=NAMES)
both = pytest.mark.parametrize("algorithm", KINDS, ids=NAMES[:2])

WAYS = 3


def chosen(task: Task, counts: Sequence[int]) -> list[Row]:
    """So many rows of each class, as its pool has them."""
    return [
        row
        for label, count in enumerate(counts)
        for row in [row for row in task.pools["train"] if row["label"] == label][:count]
    ]


def asked(algorithm: Algorithm, net: Backbone, theta: Weights, support: Batch, query: Batch) -> Tensor:
    return algorithm.scores(net, algorithm.adapt(net, theta, support), query)


@every
def test_the_order_of_the_support_set_says_nothing(
    net: Backbone, toy_tasks: tuple[Task, ...], algorithm: Algorithm
) -> None:
    support, query = chosen(toy_tasks[0], (4, 2, 3)), chosen(toy_tasks[0], (6, 6, 6))
    theta, order = start(algorithm, net), np.random.default_rng(0).permutation(len(support))
    one, other = (
        asked(algorithm, net, theta, pack_rows(side, WAYS, net.encode), pack_rows(query, WAYS, net.encode))
        for side in (support, [support[n] for n in order])
    )
    near(one, other, INNER_STEPS)
    assert far({"": one}, {"": asked_of_protonet(net, theta, support, query)}) > 0.01  # the network has its say


def asked_of_protonet(net: Backbone, theta: Weights, support: Sequence[Row], query: Sequence[Row]) -> Tensor:
    return asked(ProtoNet(), net, theta, *(pack_rows(side, WAYS, net.encode) for side in (support, query)))


@every
def test_permuting_the_classes_permutes_the_scores(
    net: Backbone, toy_tasks: tuple[Task, ...], algorithm: Algorithm
) -> None:
    theta, numbers = start(algorithm, net), [2, 0, 1]
    sides = [chosen(toy_tasks[0], (4, 2, 3)), chosen(toy_tasks[0], (6, 6, 6))]
    others = [[{**row, "label": numbers[row["label"]]} for row in side] for side in sides]
    one, other = (
        asked(algorithm, net, theta, *(pack_rows(side, WAYS, net.encode) for side in pair)) for pair in (sides, others)
    )
    near(other[:, numbers], one, INNER_STEPS)
    assert not torch.allclose(other, one, atol=0.1)


@every
def test_queries_do_not_see_each_other(net: Backbone, toy_tasks: tuple[Task, ...], algorithm: Algorithm) -> None:
    theta, pool = start(algorithm, net), [{**row, "label": 0} for row in toy_tasks[0].pools["train"]]
    phi = algorithm.adapt(net, theta, pack_rows(chosen(toy_tasks[0], (4, 2, 3)), WAYS, net.encode))
    beside = [[pool[0]], [pool[0], pool[7]], [pool[0], pool[20], pool[21], pool[22]]]
    alone, *together = (algorithm.scores(net, phi, pack_rows(side, WAYS, net.encode))[0] for side in beside)
    for scores in together:
        near(scores, alone, LAYERS)


@both
def test_a_query_s_features_reach_its_own_scores_only(algorithm: Mapping) -> None:
    theta, ((x, support), (y, query)) = algorithm.init(Plane(), torch.Generator().manual_seed(0)), quadrants(0)
    theta = {key: value + 0.1 for key, value in theta.items()}
    y.requires_grad_()
    scores = algorithm.answer(algorithm.condition(theta, x, support), y, query)
    (reached,) = torch.autograd.grad(scores[5].square().sum(), y)
    assert reached.flatten(1).any(1).nonzero().flatten().tolist() == [5]


@every
def test_the_gradient_is_that_of_finite_differences(net: Backbone, toy_pass: Pass, algorithm: Algorithm) -> None:
    """Central differences along the gradient itself, in fp32: to 2 % of the slope."""
    theta = start(algorithm, net)
    found = algorithm.meta_grad(net, theta, toy_pass).grad
    for prefix in ("lora/", "views/", "head/", "hypernet/" if isinstance(algorithm, Hypernet) else "mapping/"):
        part = weights.pick(found, prefix)
        length = float(weights.norm(part))
        assert length > 1e-3
        ends = [weights.add(theta, part, by / length) for by in (3e-3, -3e-3)]
        high, low = (float(algorithm.meta_grad(net, end, toy_pass).loss.double().sum()) for end in ends)
        assert (high - low) / 6e-3 == pytest.approx(length, rel=2e-2)


@every
def test_a_class_without_rows_gets_finite_scores(
    net: Backbone, toy_tasks: tuple[Task, ...], algorithm: Algorithm
) -> None:
    support, query = (pack_rows(chosen(toy_tasks[0], counts), WAYS, net.encode) for counts in ((4, 0, 1), (6, 6, 6)))
    assert asked(algorithm, net, start(algorithm, net), support, query).isfinite().all()


@every
def test_the_start_is_a_prototypical_network(net: Backbone, toy_pass: Pass, algorithm: Algorithm) -> None:
    theta = algorithm.init(net, torch.Generator().manual_seed(3))
    again = algorithm.init(net, torch.Generator().manual_seed(3))
    assert weights.equal(theta, again)
    one, other = (asked(a, net, theta, toy_pass.support, toy_pass.query) for a in (algorithm, ProtoNet()))
    near(one, other, LAYERS)


@pytest.mark.parametrize("settings", [{"kind": "oracle"}, {"width": 30}, {"width": 0}])
def test_settings_that_are_not_possible(settings: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"choose from|multiple of 4"):
        Mapping(**settings)  # pyright: ignore[reportArgumentType]


@both
def test_tasks_share_the_network_without_a_copy(net: Backbone, toy_pass: Pass, algorithm: Mapping) -> None:
    theta = start(algorithm, net)
    phi = algorithm.adapt(net, theta, toy_pass.support)
    for key, value in weights.pick(theta, "mapping/").items():
        assert phi[key].data_ptr() == value.data_ptr()
        assert torch.equal(phi[key], value.expand(toy_pass.support.count_tasks, *value.shape))


# Learning.


class Plane:
    """No model: features are given."""

    width, view_names = 16, ("given",)

    def init(self, _: torch.Generator) -> Weights:
        return {"lora/none": torch.zeros(1)}


def quadrants(seed: int, tasks: int = 8, shots: int = 8, queries: int = 8) -> list[tuple[Tensor, Batch]]:
    """Two of sixteen numbers have the same sign in one class, and opposite signs in the other; which class is which
    changes from task to task. Both classes have the same mean."""
    generator, sides = torch.Generator().manual_seed(seed), list[tuple[Tensor, Batch]]()
    flipped = torch.randint(2, (tasks,), generator=generator)
    for each in (shots, queries):
        batch = labelled([[0, 1] * each] * tasks)
        x = torch.randn(len(batch.targets), 16, generator=generator)
        sign = 4.0 * torch.randint(2, (len(x),), generator=generator) - 2
        x[:, 0], x[:, 1] = sign, sign * (2 * (batch.targets ^ flipped[batch.task_of]) - 1)
        sides.append((x[:, None], batch))
    return sides


@both
def test_the_network_learns_what_prototypes_can_not_say(algorithm: Mapping) -> None:
    """From guessing to 97 % in 60 steps on tasks that are as many as steps, by the network alone."""
    outer = OuterOptimizer(algorithm.init(Plane(), torch.Generator().manual_seed(0)), weight_decay=0.0)
    held = quadrants(10**6, tasks=32)

    def scores(theta: Weights, sides: list[tuple[Tensor, Batch]]) -> Tensor:
        (x, support), (y, query) = sides
        return algorithm.answer(algorithm.condition(theta, x, support), y, query)

    def share_right(theta: Weights) -> float:
        return float((scores(theta, held).argmax(1) == held[1][1].targets).float().mean())

    before = share_right(outer.theta)
    for step in range(60):
        theta, sides = weights.leaves(outer.theta), quadrants(step)
        loss = cross_entropy(scores(theta, sides), sides[1][1].targets)
        outer.step(clipped(weights.pick(weights.gradient(loss, theta), "mapping/"), 1.0), rate=0.003)
    assert before < 0.65
    assert share_right(outer.theta) > 0.95


# What a row is told of the others.


def test_rows_know_where_they_agree_with_their_class() -> None:
    support = labelled([[0, 1, 0, 0], [1, 1, 0]])
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
    w = set_weights(6, 8, (), torch.Generator().manual_seed(1))
    found, e = rows(w, x, support), x @ w["embed"].T
    others = {0: [2, 3], 1: [], 2: [0, 3], 3: [0, 2], 4: [5], 5: [4], 6: []}
    for n, mine in others.items():
        rest = e[mine].mean(0) if mine else torch.zeros(8)
        near(found[n], e[n] + w["agree"] @ (e[n] * rest))


def test_answers_that_are_numbers_are_alike_by_degrees() -> None:
    scores = replace(labelled([[0, 0, 0]], [1]), targets=torch.tensor([0.0, 0.25, 1.0]), form="regress")
    near(alike(scores), torch.tensor([[1, 0.75, 0], [0.75, 1, 0.25], [0, 0.25, 1]]))
    sets = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 0]])  # two labels, padded to the most of a pass
    labels = replace(labelled([[0, 0, 0]], [2]), targets=sets, form="multilabel", max_ways=3)
    near(alike(labels), torch.tensor([[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]]))
