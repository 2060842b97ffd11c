"""The verdict: right where there is enough data, withheld where there is not, the same wherever it is said."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import scored

from metanlp.algorithms import Frozen, ProtoNet
from metanlp.backbone import Backbone
from metanlp.evaluation.answers import answers
from metanlp.evaluation.held_out import Protocol
from metanlp.evaluation.meta_test import meta_test
from metanlp.evaluation.results import TOO_LITTLE
from metanlp.learner.learner import Learner
from metanlp.report import advice
from metanlp.report import tables as report
from metanlp.tasks.reading.build import task_from_rows

SIMULATED = runpy.run_path(str(Path(__file__).parents[2] / "recipes/bench/null_verdict.py"), run_name="null_verdict")


@pytest.mark.parametrize(("episodes", "sizes"), [(2, "FEW"), (4, "FEW"), (5, "FEW"), (10, "FEW"), (10, "MANY")])
def test_of_methods_that_are_equal_few_tests_say_yes_or_no(episodes: int, sizes: str) -> None:
    """At most 5 % to each question, though the best of three or four methods is taken, with 1 to 6 tasks, 20 to 200
    query rows, and support sets that overlap; and with 12 to 25 tasks of 4 to 9 rows."""
    rng, runs = np.random.default_rng(episodes), 120 if episodes >= 5 else 20
    for words in zip(*(SIMULATED["said"](rng, episodes, 0.0, SIMULATED[sizes]) for _ in range(runs)), strict=True):
        assert sum(word in ("Yes", "No") for word in words) <= (0.05 * runs if episodes >= 5 else 0)


def test_a_real_difference_is_found() -> None:
    rng = np.random.default_rng(0)
    for words in zip(*(SIMULATED["said"](rng, 10, 0.1) for _ in range(30)), strict=True):
        assert words.count("Yes") > 10
        assert "No" not in words


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"episodes": 4}, "use --episodes 5"),
        ({"distinct": 1, "possible": 1}, "give task a 8 rows a class or ask for fewer --shots"),
        ({"distinct": 4, "possible": 3, "form": "span"}, "give task a 8 rows or ask for fewer --shots"),
        ({"distinct": 4, "possible": 4, "form": "tag"}, "give task a 8 entities of each class or ask for fewer"),
        ({"distinct": 4, "possible": 9}, "use --episodes 20"),  # some were drawn twice
        ({"distinct": 4, "possible": 0}, "give task a 5 different support sets of 4 shots, as it brings 4"),
        ({"rows": 49}, "use --test-rows 50"),
        ({"episodes": 2, "rows": 20}, "use --episodes 5 and use --test-rows 50"),
    ],
)
def test_too_little_data_is_said_everywhere_with_what_to_do(change: dict[str, Any], said: str) -> None:
    found = scored({"frozen": 0.5, "multitask": 0.6, "maml": 0.7}, ["a", "b"], (4, 8), **change)
    for answer in answers(found):
        assert (answer.word, said in answer.then) == ("Too little data", True)
    assert {row["verdict"] for row in found.paired if row["task"] is None} == {TOO_LITTLE}
    text = "\n".join(advice.lines(found, {}))
    assert said in text
    assert "better" not in text
    for table in (report.paired_table(found), report.overview_table(found, "frozen")):
        assert not any("*" in str(cell) for column in table.columns for cell in column.cells)


def test_a_task_alone_needs_as_much_for_a_star() -> None:
    found = scored({"frozen": 0.5, "maml": 0.7}, ["a", "b"], (4,))
    assert {row["task"]: row["verdict"] for row in found.paired} == {"a": TOO_LITTLE, "b": TOO_LITTLE, None: "better"}
    assert found.compare("maml", "frozen", task="a").lacking == "give 20 more rows to judge by, in all 100"
    own = replace(found, protocol=found.protocol | {"episodes": 12}, counts={
        task: count | {"shots": {"4": {"support_sets": 3, "distinct": 3, "overlap": 0.0}}}
        for task, count in found.counts.items()
    })  # fmt: skip
    assert own.lacking() == "give task a 5 different support sets of 4 shots, as it brings 3"


def test_each_task_needs_rows_enough_to_spread() -> None:
    """Of three rows nobody can say how far others would lie, however many such tasks there are."""
    names = [f"task {number}" for number in range(40)]
    found = scored({"frozen": 0.5, "maml": 0.7}, names, (4,), rows=3)
    assert found.lacking() == "use --test-rows 4"
    few = {name: count | {"available": 3} for name, count in found.counts.items()}
    assert replace(found, counts=few).lacking() == "give task task 0 4 rows to judge by, as it has 3"
    assert not scored({"frozen": 0.5, "maml": 0.7}, names, (4,), rows=4).lacking()


def test_the_same_support_set_again_and_again_is_one(net: Backbone) -> None:
    """Five rows a class and five shots: however often they are drawn, nothing is known of others."""
    rows = [{"text": f"{word} {n}", "label": word} for word in ("good", "bad", "fine") for n in range(5)]
    task = task_from_rows("small", rows)
    judged = task_from_rows("judged", [{"text": f"{r['text']} once more", "label": r["label"]} for r in rows] * 1)
    small = replace(task, pools={"train": task.pools["train"], "test": judged.pools["train"]})
    generator = torch.Generator().manual_seed(0)
    learners = {type(a).__name__: Learner(a, net, a.init(net, generator)) for a in (Frozen(), ProtoNet())}
    found = meta_test(learners, [small], Protocol(shots=(4, 5), episodes=10))
    counts = found.counts["small"]
    assert counts["query_rows"] == counts["available"] == 15
    assert counts["shots"]["5"] == {"support_sets": 10, "distinct": 1, "overlap": 1.0, "possible": 1}
    assert counts["shots"]["4"]["possible"] == 5**3
    assert counts["shots"]["4"]["distinct"] > 5
    assert 0.6 < counts["shots"]["4"]["overlap"] < 1
    assert found.score("Frozen", shots=5).low is None
    assert "only 1 different support set of 5 shots" in found.lacking(shots=5)
    assert found.lacking() == f"{found.lacking(shots=5)}"
    assert "support set" not in found.lacking(shots=4)
