"""A task as a test: the same support sets and query rows for everyone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from near import LAYERS, near
from torch import Tensor

from metanlp.algorithms import Frozen, ProtoNet
from metanlp.backbone import Backbone
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Row, Task, Weights
from metanlp.episodes.chunks import CHUNK, chunks, scored
from metanlp.episodes.pool import Pool
from metanlp.evaluation.held_out import CACHED, HeldOutTask, Protocol, count_repeats
from metanlp.forms import FORMS
from metanlp.forms.base import softmax

WORDS = ("alpha", "beta", "gamma", "delta")


def rows(start: int, count: int, labels: int = 2) -> list[Row]:
    """Texts of one to six words, each of them different."""
    return [{"text": f"{n} " + " ".join(WORDS[: 1 + n % 4]), "label": n % labels} for n in range(start, start + count)]


def task(**changes: object) -> Task:
    return replace(Task("toy", {"train": rows(0, 30)}, ("even", "odd"), "test"), **changes)


def published(**changes: object) -> Task:
    """Fixed support sets, and two of their rows among the query rows."""
    sets = {4: [rows(0, 8), rows(8, 8)], 8: [rows(0, 16)]}
    return task(pools={"train": rows(0, 30), "test": [*rows(100, 20), *rows(2, 2)]}, supports=sets, **changes)


# Published support sets.


def test_published_sets_are_used_as_they_are(net: Backbone) -> None:
    held_out = HeldOutTask(published(), net, Protocol(shots=(4, 8)))
    assert [(s.shots, s.number) for s in held_out.supports] == [(4, 0), (4, 1), (8, 0)]
    assert [s.keys for s in held_out.supports] == [
        tuple(map(FORMS["classify"].identity, rows(*part))) for part in ((0, 8), (8, 8), (0, 16))
    ]
    assert held_out.supports[1].batch.targets.tolist() == [n % 2 for n in range(8)]
    assert len(held_out.rows) == 22
    assert HeldOutTask(published(), net, Protocol(shots=(4,), episodes=1)).supports[0].keys == held_out.supports[0].keys


def test_repeats_of_a_published_split_are_counted_and_left_out_on_request(net: Backbone) -> None:
    kept, left = (HeldOutTask(published(), net, Protocol(shots=(4,), drop_repeats=drop)) for drop in (False, True))
    assert count_repeats(kept) == count_repeats(left) == 2
    assert not any(support.excluded.any() for support in kept.supports)
    assert [np.flatnonzero(support.excluded).tolist() for support in left.supports] == [[20, 21], []]
    assert count_repeats(HeldOutTask(task(), net, Protocol(shots=(4,)))) == 0


def test_shots_that_are_not_published_are_listed(net: Backbone) -> None:
    held_out = HeldOutTask(published(), net, Protocol(shots=(4, 16)))
    assert held_out.skipped == {16: "its support sets are for [4, 8] shots"}


# Drawn support sets.


def test_drawn_sets_are_the_same_for_everyone(net: Backbone) -> None:
    one, other = (HeldOutTask(task(), net, Protocol(shots=(2, 4), episodes=3)) for _ in range(2))
    assert one.fingerprint() == other.fingerprint()
    assert [s.keys for s in one.supports] == [s.keys for s in other.supports]
    changed = [
        HeldOutTask(task(), net, Protocol(shots=(2, 4), episodes=3, seed=1)),
        HeldOutTask(task(name="other"), net, Protocol(shots=(2, 4), episodes=3)),
        HeldOutTask(task(), net, Protocol(shots=(2, 4), episodes=3, test_rows=9)),
        HeldOutTask(task(), net, Protocol(shots=(2,), episodes=3)),
    ]
    assert len({held_out.fingerprint() for held_out in [one, *changed]}) == 5


@pytest.mark.slow
def test_drawn_sets_are_the_same_in_another_process(net: Backbone, tiny: Path) -> None:
    """Python's own hash of a string differs there."""
    given = task()
    script = (
        "import json, sys\n"
        "from metanlp.backbone import Backbone, Lora\n"
        "from metanlp.evaluation.held_out import HeldOutTask, Protocol\n"
        "from metanlp.core.types import Task\n"
        "net = Backbone.load(sys.argv[1], Lora(rank=4), precision='fp32')\n"
        "name, rows, labels = json.loads(sys.argv[2])\n"
        "task = Task(name, {'train': rows}, tuple(labels), 'test')\n"
        "print(HeldOutTask(task, net, Protocol(shots=(2, 4))).fingerprint())\n"
    )
    told = json.dumps([given.name, given.pools["train"], given.labels])
    environment = os.environ | {"PYTHONHASHSEED": "4242"}
    run = [sys.executable, "-c", script, str(tiny), told]
    out = subprocess.run(run, capture_output=True, text=True, check=True, env=environment).stdout
    assert out.split()[-1] == HeldOutTask(given, net, Protocol(shots=(2, 4))).fingerprint()


def test_drawn_sets_have_the_shots_asked_and_differ(net: Backbone) -> None:
    held_out = HeldOutTask(task(), net, Protocol(shots=(2, 4), episodes=5))
    for support in held_out.supports:
        assert Counter(support.batch.targets.tolist()) == {0: support.shots, 1: support.shots}
        by_key = {FORMS["classify"].identity(row): row["label"] for row in held_out.rows}
        assert [by_key[key] for key in support.keys] == support.batch.targets.tolist()
    assert len({support.keys for support in held_out.supports}) == 10


def test_rows_of_the_support_set_are_not_scored(net: Backbone) -> None:
    held_out = HeldOutTask(task(), net, Protocol(shots=(4,), episodes=3))
    for support in held_out.supports:
        assert [key in support.keys for key in held_out.keys] == support.excluded.tolist()
        assert support.excluded.sum() == 8


def test_a_row_of_the_test_pool_that_was_also_drawn_is_not_scored(net: Backbone) -> None:
    held_out = HeldOutTask(
        task(pools={"train": rows(0, 10), "test": [*rows(50, 5), *rows(0, 10)]}), net, Protocol(shots=(4,))
    )
    for support in held_out.supports:
        assert support.excluded.sum() == 8
        assert not support.excluded[:5].any()


def test_accuracy_is_over_the_rows_that_count(net: Backbone) -> None:
    held_out = HeldOutTask(task(), net, Protocol(shots=(4,), episodes=1))
    (support,) = held_out.supports
    right = np.eye(2)[[row["label"] for row in held_out.rows]]
    wrong_where_excluded = np.where(support.excluded[:, None], 1 - right, right)
    for said, accuracy in ((right, 1.0), (wrong_where_excluded, 1.0), (1 - wrong_where_excluded, 0.0)):
        assert held_out.score(cast(Any, Saying(held_out, said)), {}, support) == accuracy


@dataclass(frozen=True)
class Saying:
    """A method that has its scores from elsewhere, row by row."""

    held_out: HeldOutTask
    said: np.ndarray

    def features(self, net: object, phi: Weights, batch: Batch) -> Tensor:
        return torch.empty(0)

    def head_scores(self, phi: Weights, features: Tensor, batch: Batch) -> Tensor:
        (rows,) = [chunk.rows for chunk in self.held_out.chunks if chunk.batch is batch]
        return torch.tensor(self.said[rows])


@pytest.mark.parametrize(("pools", "able"), [({}, 14), ({"test": rows(50, 5)}, 15)], ids=["one pool", "two pools"])
def test_shots_that_can_not_be_given_are_listed_with_the_reason(
    net: Backbone, pools: dict[str, list[Row]], able: int
) -> None:
    """Fifteen rows a class: one pool has to leave a row of each to ask about."""
    given = task(pools={"train": rows(0, 30)} | pools)
    held_out = HeldOutTask(given, net, Protocol(shots=(able, able + 1), episodes=1))
    assert held_out.skipped == {able + 1: "its smallest class has 15 rows"}
    assert {support.shots for support in held_out.supports} == {able}


def test_shots_that_leave_nothing_to_ask_are_listed(net: Backbone) -> None:
    held_out = HeldOutTask(task(), net, Protocol(shots=(2, 14), episodes=10, test_rows=3))
    assert held_out.skipped == {14: "a support set leaves no query row"}
    assert {support.shots for support in held_out.supports} == {2}


# Query rows.


@pytest.mark.parametrize(("asked", "found"), [(None, 30), (7, 7), (99, 30)])
def test_query_rows_are_drawn_once(net: Backbone, asked: int | None, found: int) -> None:
    held_out = HeldOutTask(task(), net, Protocol(shots=(2,), test_rows=asked))
    assert len(held_out.rows) == len(set(held_out.keys)) == found
    labels = {key: row["label"] for row in rows(0, 30) for key in [FORMS["classify"].identity(row)]}
    assert [row["label"] for row in held_out.rows] == [labels[key] for key in held_out.keys]


def test_probabilities_sum_to_one_and_stand_in_the_order_of_the_rows(net: Backbone) -> None:
    held_out = HeldOutTask(task(), net, Protocol(shots=(4,), episodes=1))
    algorithm = Frozen()
    theta = algorithm.init(net, torch.Generator().manual_seed(0))
    phi = algorithm.adapt(net, theta, held_out.supports[0].batch)
    found = softmax(held_out.scores(algorithm, phi).values)
    assert found.shape == (30, 2)
    near(found.sum(1), np.ones(30))
    alone = replace(task(), pools={"train": rows(0, 30), "test": [held_out.rows[11]]})
    single = softmax(HeldOutTask(alone, net, Protocol(shots=(4,), episodes=1)).scores(algorithm, phi).values)
    near(single[0], found[11], LAYERS)


def test_chunks_hold_every_row_once_shortest_first(net: Backbone) -> None:
    many = rows(0, 1500)
    targets = np.array([row["label"] for row in many])
    parts = chunks(Pool(task().meaning, many, net.encode))
    assert len(parts) > 1
    assert sorted(n for part in parts for n in part.rows) == list(range(1500))
    assert all(part.batch.count_tokens <= CHUNK + part.batch.max_length for part in parts)
    assert all(part.batch.targets.tolist() == targets[part.rows].tolist() for part in parts)
    longest = [part.batch.max_length for part in parts]
    assert longest == sorted(longest)
    back = scored(parts, [part.batch.targets[:, None] for part in parts])
    assert back.values[:, 0].tolist() == targets.tolist()


def test_a_support_set_does_not_depend_on_the_rest_of_the_protocol(net: Backbone, toy_tasks: tuple[Task, ...]) -> None:
    one = HeldOutTask(toy_tasks[0], net, Protocol(shots=(4, 8), episodes=2))
    other = HeldOutTask(toy_tasks[0], net, Protocol(shots=(2, 4), episodes=3))
    sets = [{s.number: s.keys for s in held_out.supports if s.shots == 4} for held_out in (one, other)]
    assert all(sets[1][number] == keys for number, keys in sets[0].items())


def test_query_rows_run_once_through_the_same_adapters(net: Backbone, toy_tasks: tuple[Task, ...]) -> None:
    held_out = HeldOutTask(toy_tasks[0], net, Protocol(shots=(2,), episodes=2))
    algorithm = ProtoNet()
    theta = algorithm.init(net, torch.Generator().manual_seed(0))
    one, two = (algorithm.adapt(net, theta, support.batch) for support in held_out.supports)
    held_out.scores(algorithm, one)
    (before,) = held_out._features
    features = dict(held_out._features[before])
    found = held_out.scores(algorithm, two).values
    assert list(held_out._features) == [before]
    assert all(held_out._features[before][number] is value for number, value in features.items())
    afresh = HeldOutTask(toy_tasks[0], net, Protocol(shots=(2,), episodes=2))
    np.testing.assert_array_equal(found, afresh.scores(algorithm, two).values)
    for seed in range(CACHED):
        other = algorithm.init(net, torch.Generator().manual_seed(seed + 1))
        held_out.scores(algorithm, algorithm.adapt(net, other, held_out.supports[0].batch))
    assert len(held_out._features) == CACHED
    assert before not in held_out._features, "the oldest made room"


@pytest.mark.parametrize("wrong", [{"shots": (0, 4)}, {"episodes": 0}, {"test_rows": 0}, {"seed": -1}])
def test_a_protocol_that_can_not_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"from 1 up, --seed -?\d from 0 up"):
        Protocol(**wrong)
