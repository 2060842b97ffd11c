"""The methods: one contract for all of them, and the laws that tell them apart."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import pack_rows, write_tiny
from kinds import ADAPT, KINDS, LEARN, USUAL, WORDS, classes_of, judged, made, planted, start
from near import INNER_STEPS, LAYERS, near
from slowly import slow_but
from tiny_models import frozen_tensors
from torch.nn.functional import cross_entropy

from metanlp.algorithms import (
    ALGORITHMS,
    Algorithm,
    Finetune,
    Frozen,
    Maml,
    Mapping,
    Matching,
    Memory,
    ProtoNet,
    Siamese,
)
from metanlp.algorithms.check import LAWS, Case
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone, Lora
from metanlp.core import weights
from metanlp.core.types import Pass, Task
from metanlp.episodes.sampling import Episodes, Sampling, group
from metanlp.learner.learner import Adapted, Learner
from metanlp.training.optimizer import OuterOptimizer, clipped
from metanlp.training.task_heads import TaskHeads

# The contract.


def test_every_method_is_among_the_kinds() -> None:
    """As it is by default, and in each of the ways that an option names."""
    assert {type(algorithm) for algorithm in KINDS.values()} == set(ALGORITHMS.values())
    assert all(KINDS[name] == method() for name, method in ALGORITHMS.items())
    for method, option in ((Matching, "full_context"), (Siamese, "match"), (Memory, "kind"), (Mapping, "kind"),
                           (Frozen, "classifier"), (Maml, "second_order")):  # fmt: skip
        found = {getattr(algorithm, option) for algorithm in KINDS.values() if type(algorithm) is method}
        assert len(found) == 2, (method, option)


LAW_KINDS = [
    (law, kind)
    for law in LAWS
    for kind in (KINDS if law in ("settings", "recipes") else LEARN if law == "meta-gradient" else ADAPT)
]
FAST_KINDS = [(law, kind) for law, kind in LAW_KINDS if kind in USUAL]


@pytest.mark.parametrize(("law", "kind"), slow_but(FAST_KINDS, LAW_KINDS))
def test_every_method_keeps_the_law(
    net: Backbone, toy_tasks: tuple[Task, ...], toy_pass: Pass, law: str, kind: str
) -> None:
    algorithm = made(kind)
    case = Case(algorithm, net, start(algorithm, net, classes_of(toy_tasks)), toy_pass)
    assert [otherwise for holds, otherwise in LAWS[law](case) if not holds] == []


@pytest.mark.parametrize("kind", slow_but(USUAL, KINDS))
def test_a_learner_and_what_it_became_come_back_to_the_bit(
    net: Backbone, tiny: Path, tmp_path: Path, kind: str
) -> None:
    algorithm = KINDS[kind]
    rows = [("a red door", "warm"), ("an orange sun", "warm"), ("a blue door", "cold"), ("the deep sea", "cold")]
    learner = Learner(algorithm, net, start(algorithm, net))
    adapted = learner.adapt(rows)
    learner.save(tmp_path / "all")
    adapted.save(tmp_path / "one")
    again, loaded = Learner.load(tmp_path / "all", base=str(tiny)), Adapted.load(tmp_path / "one", base=str(tiny))
    assert again.algorithm == loaded.algorithm == algorithm
    assert type(again.algorithm) is type(algorithm)
    assert weights.equal(again.theta, learner.theta)
    there = {key: loaded.phi[key] for key in adapted.phi}  # frozen is saved with adapters that do nothing
    assert weights.equal(there, adapted.phi)
    assert weights.equal(again.adapt(rows).phi, adapted.phi)
    held = (*again.theta.values(), *loaded.phi.values(), *adapted.phi.values(), *frozen_tensors(again.net._plain))
    assert not any(value.data_ptr() % weights.ALIGNMENT for value in held)  # at other addresses sums differ
    assert np.array_equal(loaded.logits(["a green hill"]), adapted.logits(["a green hill"]))


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
        # The variance within classes, by which class sizes are corrected, is estimated with the row.
        assert float((scores[n] - asked[0]).abs().max()) < 0.03 * float(asked.abs().max())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "frozen, mixture"])  # it is fitted to fewer rows
def test_a_left_out_row_scores_as_a_new_one_where_the_rows_of_a_class_are_alike(net: Backbone, kind: str) -> None:
    """Before any step. That a row is left out is no reason to score its class lower than others."""
    algorithm = replace(KINDS[kind], inner=replace(KINDS[kind].inner, steps=0))
    texts = ["how are you", "the parcel is late", "call me"]
    support = pack_rows([{"text": text, "label": k} for k, text in enumerate(texts) for _ in range(3)], 3, net.encode)
    theta = start(algorithm, net)
    scores, counted = algorithm.left_out(net, theta, support)
    assert counted.all()
    expected = algorithm.scores(net, algorithm.adapt(net, theta, support), support)
    near(scores, expected, INNER_STEPS)


def test_left_out_scores_are_those_after_the_steps(net: Backbone, toy_tasks: tuple[Task, ...], toy_pass: Pass) -> None:
    """The steps minimise just their loss."""
    losses: list[float] = []
    for steps in (0, 1, 5):
        algorithm = Finetune(inner=Inner(steps=steps, lr=0.1, head_lr=0.1))
        scores, _ = algorithm.left_out(net, start(algorithm, net), toy_pass.support)
        losses.append(float(cross_entropy(scores, toy_pass.support.targets)))
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("kind", slow_but(["multitask", "maml", "memory"], KINDS))
def test_on_two_threads_too_the_same_is_the_same_twice(
    net: Backbone, toy_tasks: tuple[Task, ...], toy_pass: Pass, two_threads: None, kind: str
) -> None:
    """Backward, indexing (x[rows]) adds in the order in which threads come; `index_select` in that of the rows."""
    algorithm = made(kind)
    theta = start(algorithm, net, classes_of(toy_tasks))
    if kind in ADAPT:
        assert len({weights.checksum(algorithm.adapt(net, theta, toy_pass.support)) for _ in range(2)}) == 1
    if kind in LEARN:
        # Second order has thousands of small operations, whose threads wait for each other: three tasks will do.
        given = toy_pass if kind in ADAPT else group(toy_pass.episodes[:3])
        assert len({weights.checksum(algorithm.meta_grad(net, theta, given).grad) for _ in range(2)}) == 1


def test_without_inner_steps_passes_agree_to_rounding(net: Backbone, toy_pass: Pass) -> None:
    algorithm = ProtoNet()
    theta = start(algorithm, net)
    together = algorithm.meta_grad(net, theta, toy_pass)
    apart = [algorithm.meta_grad(net, theta, group([episode])).grad for episode in toy_pass.episodes]
    near(together.grad, weights.total(apart), LAYERS)


# Learning.

STEPS = {"memory": 30, "memory, recurrent": 70}  # a reader learns only once the features tell classes apart


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Backbone, Episodes, Pass]:
    """A model with adapters in each of two layers, tasks that teach it, and new ones of their family."""
    folder = tmp_path_factory.mktemp("words")
    write_tiny(folder, WORDS, layers=2)
    net = Backbone.load(str(folder), Lora(rank=4, alpha=8, layers="all"), views=["adapted.2.all"], precision="fp32")
    tasks, fresh = (tuple(map(planted, numbers)) for numbers in (range(6), range(100, 106)))
    sampling = Sampling(shots=(4, 4), queries=8)
    held = group([Episodes([task], net.encode, sampling, seed=2)[0] for task in fresh])
    return net, Episodes(tasks, net.encode, sampling, seed=1), held


@pytest.mark.parametrize("kind", slow_but(["protonet", "maml", "memory"], LEARN))
def test_twenty_steps_on_separable_tasks_teach_new_ones(taught: tuple[Backbone, Episodes, Pass], kind: str) -> None:
    """New tasks of the family: from below 70 % of the query rows to above 90 %. The loss falls on the way."""
    net, episodes, held = taught
    algorithm = made(kind)
    algorithm = replace(algorithm, inner=replace(algorithm.inner, steps=min(1, algorithm.inner.steps)))
    outer = OuterOptimizer(algorithm.init(net, torch.Generator().manual_seed(0)), weight_decay=0.0)
    heads = TaskHeads(algorithm, net, 0.0, net.device)
    before = judged(algorithm, net, outer.theta, held)
    losses: list[float] = []
    for step in range(STEPS.get(kind, 20)):
        (build,) = episodes.passes(4 * step, 4, 4)
        found = algorithm.meta_grad(net, outer.theta | heads.of(episodes.drawn(4 * step, 4)), build())
        losses.append(float(found.loss.mean()))
        grad = clipped(weights.scale(found.grad, 1 / 4), 1.0)
        outer.step(grad, rate=0.005)
        heads.step(grad, rate=0.005)
    assert before < 0.7
    assert judged(algorithm, net, outer.theta, held) > 0.9
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
