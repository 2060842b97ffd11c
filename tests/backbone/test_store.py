"""The store of what the frozen model says of texts: nothing that is computed feels it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from conftest import on_threads
from form_tasks import FORMS, task_of
from kinds import start
from slowly import slow_but
from tiny_models import TINY, texts, tiny_model, whole
from transformers import AutoTokenizer

from metanlp.algorithms import Maml, Multitask, ProtoNet
from metanlp.algorithms.base import Algorithm
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone, Lora
from metanlp.backbone.options import Options
from metanlp.backbone.packing import FEW, join, pack
from metanlp.backbone.store import Store, is_exact
from metanlp.core import weights
from metanlp.core.types import Batch, Task, Trunk, Weights
from metanlp.episodes.pool import Pool
from metanlp.episodes.sampling import Episodes, Sampling, group
from metanlp.training.meta_train import Plan, meta_train

SAMPLING = Sampling(shots=(1, 4), queries=4, ways=3)
VIEWS = ("adapted.4.all", "frozen.4.all", "frozen.3.second", "frozen.2.cls")


@pytest.fixture(params=["fp32", "bf16"])
def storing(request: pytest.FixtureRequest, tiny: Path) -> Backbone:
    net = Backbone.load(str(tiny), Lora(rank=4), precision=request.param, views=VIEWS, store_gb=0.1)
    if net.store is None:
        pytest.skip("the kernels of this machine round a row by its neighbours")
    return net


def without(net: Backbone, batch: Batch) -> Trunk:
    """What is computed anew."""
    store, net.store = net.store, None
    found = net.with_trunk(batch).trunk
    net.store = store
    assert found is not None
    return found


def sides(net: Backbone, task: Task, count: int, size: int) -> Iterator[Batch]:
    """Of episodes, `size` of them in a pass."""
    episodes = Episodes([task], net.encode, SAMPLING, seed=0)
    for at in range(0, count, size):
        found = group([episodes[n] for n in range(at, at + size)])
        yield from (found.support, found.query)


@pytest.mark.parametrize("form", slow_but(["classify", "tag"], FORMS))
@pytest.mark.parametrize("threads", slow_but([1], [1, 2]))
def test_a_trunk_has_the_same_bits_with_a_store_and_without(storing: Backbone, form: str, threads: int) -> None:
    """Its texts were met in other passes, of one episode, of three, and alone."""
    task = task_of(form)
    pool, found = Pool(task.meaning, task.pools["train"], storing.encode), 0
    with on_threads(threads):
        alone = [pool.pack([row]) for row in range(5)]
        for batch in [*alone, *sides(storing, task, 6, 1), *sides(storing, task, 6, 3), join(alone)]:
            trunk, expected = storing.with_trunk(batch).trunk, without(storing, batch)
            assert trunk is not None
            assert torch.equal(trunk.states, expected.states)
            assert torch.equal(trunk.frozen, expected.frozen)
            found += 1
    assert found == 5 + 12 + 4 + 1


@pytest.mark.parametrize(
    "algorithm",
    slow_but(
        [Maml(Inner(steps=2))], [Multitask(), ProtoNet(), Maml(Inner(steps=2)), Maml(Inner(2), second_order=True)]
    ),
)
def test_training_learns_the_same_with_a_store_and_without(tiny: Path, algorithm: Algorithm) -> None:
    """A store that another method has filled, and the methods of one run share one."""
    tasks = [task_of("classify"), task_of("regress"), task_of("tag")]
    learned = list[Weights]()
    for store_gb, methods in ((0.0, [algorithm]), (0.1, [ProtoNet(), algorithm])):
        net = Backbone.load(str(tiny), Lora(rank=4), precision="fp32", store_gb=store_gb)
        episodes = Episodes(tasks, net.encode, SAMPLING, seed=0)
        plan = Plan(steps=4, meta_batch=2, checkpoints=0)
        learned.append([meta_train(method, net, episodes, plan).theta for method in methods][-1])
    assert weights.equal(learned[0], learned[1])


def test_no_text_is_computed_twice(storing: Backbone) -> None:
    task, computed = task_of("classify"), list[int]()

    def compute(batch: Batch) -> Trunk:
        computed.append(batch.count_tokens)
        return without(storing, batch)

    store, batches = Store(10**8), list(sides(storing, task, 8, 1))
    for batch in batches:
        store.trunk(batch, compute)
    assert FEW < sum(computed) < sum(batch.count_tokens for batch in batches)
    before = sum(computed)
    for batch in batches:
        store.trunk(batch, compute)
    assert sum(computed) == before


def test_a_store_that_is_too_small_keeps_what_came_first(storing: Backbone) -> None:
    """Epochs of more texts than it holds: every one of them finds the same part again."""
    task = task_of("classify")
    pool = Pool(task.meaning, task.pools["train"], storing.encode)
    batches, computed = [pool.pack(range(at, at + 4)) for at in range(0, 40, 4)], list[int]()

    def compute(batch: Batch) -> Trunk:
        computed.append(batch.count_tokens)
        return without(storing, batch)

    whole = Store(10**8)
    for batch in batches:
        whole.trunk(batch, compute)
    half, every, epochs = Store(whole.held // 2), sum(computed), list[int]()
    for _ in range(3):
        computed.clear()
        for batch in batches:
            half.trunk(batch, compute)
        epochs.append(sum(computed))
    assert 0.9 * half.most < half.held <= half.most
    assert epochs[0] == every
    assert epochs[1] == epochs[2] < 0.6 * every


def test_second_order_has_another_attention_and_no_store(storing: Backbone) -> None:
    task = task_of("classify")
    episodes = Episodes([task], storing.encode, SAMPLING, seed=0)
    algorithm, taken = Maml(Inner(steps=1), second_order=True), group([episodes[0]])
    algorithm.meta_grad(storing, start(algorithm, storing), taken)
    assert storing.store is not None
    assert storing.store.held == 0


def test_a_model_whose_texts_feel_their_neighbours_has_no_store() -> None:
    def compute(batch: Batch, off: float) -> Trunk:
        """A pass that shifts all of its texts by a little, as it is longer."""
        states = batch.ids[:, None].float() + off * batch.count_tokens
        return Trunk(states, torch.zeros(len(batch.task_of), 0, 4))

    assert is_exact(lambda batch: compute(batch, 0.0), 100)
    assert not is_exact(lambda batch: compute(batch, 1e-3), 100)


@pytest.mark.parametrize("kind", TINY)
def test_a_trunk_of_every_architecture_has_the_same_bits(kind: str, tiny: Path) -> None:
    """Padded ones have no store, as longer neighbours lengthen their sums; nor have decoders."""
    options = Options(Lora(rank=4), precision="fp32")
    net = Backbone(tiny_model(kind), AutoTokenizer.from_pretrained(tiny), options, base=kind, store_gb=0.1)
    assert (net.family.packed and net.family.pooling == "all") or net.store is None
    for places in ([0, 1], [2, 3], [1, 4]):
        net.with_trunk(pack(texts(), places, [0, 0], 2))
    trunk, expected = net.with_trunk(whole()).trunk, without(net, whole())
    assert trunk is not None
    assert torch.equal(trunk.states, expected.states)
    assert torch.equal(trunk.frozen, expected.frozen)


def test_a_copy_begins_empty(storing: Backbone) -> None:
    for batch in sides(storing, task_of("classify"), 2, 1):
        storing.with_trunk(batch)
    assert storing.store is not None
    copy = deepcopy(storing.store)
    assert (copy.most, copy.held) == (storing.store.most, 0) != (storing.store.most, storing.store.held)
