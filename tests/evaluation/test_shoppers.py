"""Simulated shoppers, plain regressions, and what is counted on their rankings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import mini_tasks
from form_tasks import task_of

from metanlp.algorithms import Frozen
from metanlp.backbone import Backbone
from metanlp.core.errors import InputError
from metanlp.core.types import Task
from metanlp.evaluation.external import Logistic, Tfidf
from metanlp.evaluation.held_out import HeldOutTask, Protocol
from metanlp.evaluation.shoppers import (
    ALONE,
    BOTH,
    CHANCE,
    METRICS,
    SIDES,
    Market,
    Rankings,
    Shopper,
    cells_of,
    judged,
    rank_for,
    shoppers_of,
)
from metanlp.forms import DEFAULT
from metanlp.learner.learner import Learner
from metanlp.learner.ranking import LIKES
from metanlp.report.rankings import rankings_json, tables_of

MARKET = Market(ticks=(4,), draws=2, listed=20, praise="praise")


@pytest.fixture(scope="module")
def tasks() -> tuple[Task, ...]:
    """Topics, and reviews of two categories, one with test rows of its own."""
    reviews = task_of("classify", 60, 1, "cups")
    rows = reviews.pools["train"]
    return (
        mini_tasks()["mini/commit_types"],
        replace(reviews, pools={"train": rows[:40], "test": rows[40:]}),
        task_of("classify", 60, 2, "pots"),
    )


@pytest.fixture(scope="module")
def shoppers(tasks: tuple[Task, ...]) -> list[Shopper]:
    return shoppers_of(tasks, MARKET)


def test_a_shopper_a_class_and_one_a_reviewed_category(tasks: tuple[Task, ...], shoppers: list[Shopper]) -> None:
    names = [f"mini/commit_types, {label}" for label in tasks[0].labels] + [
        "cups, well-reviewed",
        "pots, well-reviewed",
    ]
    assert [each.name for each in shoppers] == names
    for each in shoppers:
        listed, supports = each.task.pools["test"], each.task.supports[4]
        assert 4 <= sum(row["label"] for row in listed) <= round(0.2 * 20)
        assert len(listed) <= 20
        assert len(supports) == 4
        for ticks, alone in zip(supports, (False, False, True, True), strict=True):
            assert [row["label"] for row in ticks].count(1) == (4 if alone else 2)
            known = {DEFAULT.key(row) for row in listed}
            assert all((DEFAULT.key(row) in known) == alone for row in ticks if not row["label"])
            assert not any(DEFAULT.key(row) in known for row in ticks if row["label"])


def test_what_is_disliked_is_of_the_same_and_of_other_categories(shoppers: list[Shopper]) -> None:
    cups = next(each for each in shoppers if each.name.startswith("cups")).task.pools["test"]
    assert {row["label"] for row in cups} == {0, 1}
    assert shoppers_of([task_of("classify", 60, 1, "cups")], MARKET)


def test_nobody_shops_for_pairs_or_for_two_classes() -> None:
    tasks = [mini_tasks()[name] for name in ("mini/answer_match", "mini/formality")]
    with pytest.raises(InputError, match="no shopper can be made of mini/answer_match, mini/formality"):
        shoppers_of(tasks, MARKET)
    with pytest.raises(InputError, match=r"has 98 products to tick .* the largest \d+; lower --ticks"):
        shoppers_of([mini_tasks()["mini/commit_types"]], replace(MARKET, ticks=(98,)))
    for wrong in ({"ticks": (3,)}, {"ticks": ()}, {"draws": 0}, {"listed": 9}):
        with pytest.raises(InputError, match="--ticks"):
            replace(MARKET, **wrong)


def test_what_is_counted() -> None:
    liked = np.array([1, 0, 0, 1, 0])
    assert judged(liked, np.array([5.0, 1, 1, 4, 0])) == (1.0, 1.0)
    ndcg, auc = judged(liked, np.array([0.0, 3, 2, 1, 4]))
    assert auc == 0
    assert ndcg == pytest.approx((1 / np.log2(5) + 1 / np.log2(6)) / (1 + 1 / np.log2(3)))
    assert judged(liked, np.zeros(5))[1] == 0.5


def test_a_list_of_which_all_that_is_liked_was_ticked_has_no_order(net: Backbone) -> None:
    good, bad = ([{"text": f"{word} {thing}", "label": label} for thing in "abcdefgh"]
                 for label, word in ((1, "fine"), (0, "poor")))  # fmt: skip
    listed = (*good[:2], *bad[:6])
    supports = {4: ((*good[:2], *bad[6:]), (*good[2:4], *bad[6:]))}
    task = Task("s", {"train": supports[4][0], "test": listed}, LIKES, "simulated", supports=supports)
    held_out = HeldOutTask(task, net, Protocol((4,), 2, drop_repeats=True))
    frozen = Learner(Frozen(), net, Frozen().init(net, torch.Generator().manual_seed(0)))
    (cell,) = cells_of("frozen", Shopper("s", task), frozen, held_out)
    assert cell.sides == SIDES[1]
    assert all(np.isfinite(values).all() for values in cell.values.values())


@pytest.fixture(scope="module")
def found(net: Backbone, tiny: Path, shoppers: list[Shopper]) -> Rankings:
    frozen = Learner(Frozen(), net, Frozen().init(net, torch.Generator().manual_seed(0)))
    ticks = list[int]()
    methods = {"tfidf": Tfidf(), "logistic": Logistic(str(tiny)), "frozen": frozen}
    return rank_for(shoppers, methods, MARKET, lambda: ticks.append(1))


def test_ticks_rank_better_than_chance(found: Rankings, shoppers: list[Shopper]) -> None:
    assert found.names("method") == ("tfidf", "logistic", "frozen", CHANCE)
    assert len(found.cells) == len(shoppers) * 4 * 2
    chance = found.score(CHANCE, BOTH, 4, "auc")
    assert chance.mean == chance.low == 0.5
    for name in ("tfidf", "logistic", "frozen"):
        score = found.score(name, BOTH, 4, "auc")
        assert score.low is not None
        assert score.low <= score.mean
        assert score.mean > 0.55
        assert found.score(name, BOTH, 4, "ndcg@10").mean > found.score(CHANCE, BOTH, 4, "ndcg@10").mean
    same = found.difference("frozen", "frozen", ALONE, 4, "auc")
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_the_same_ticks_give_the_same_ranking(tiny: Path, net: Backbone, shoppers: list[Shopper]) -> None:
    frozen = Learner(Frozen(), net, Frozen().init(net, torch.Generator().manual_seed(0)))
    one, other = (rank_for(shoppers[:2], {"frozen": frozen, "tfidf": Tfidf()}, MARKET) for _ in range(2))
    assert one == other


def test_the_tables_hold_every_method_and_the_draws_are_kept(found: Rankings) -> None:
    tables = tables_of(found, "logistic")
    assert [len(rows) for rows in tables.values()] == [4, 2 * len(METRICS)] * 2
    stored = rankings_json(found, "logistic", {"draws": 2})
    assert {row["a"] for row in stored["paired"]} == {"tfidf", "frozen"}
    assert all(len(cell["values"][metric]) == 2 for cell in stored["cells"] for metric in METRICS)
    assert stored["draws"] == 2
