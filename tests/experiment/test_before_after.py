"""Questions by domains, from the recipe's command to the scores before adaptation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Here
from form_tasks import task_of, write_tasks
from near import INNER_STEPS, near

from metanlp.algorithms import Finetune, Maml
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone
from metanlp.core.errors import InputError
from metanlp.evaluation.before import before
from metanlp.evaluation.held_out import HeldOutTask, Protocol
from metanlp.evaluation.results import read_report
from metanlp.learner.learner import Learner

RECIPE = Path(__file__).parents[2] / "recipes" / "qa_domains.py"


@pytest.fixture
def domains(tmp_path: Path) -> Path:
    return write_tasks(tmp_path / "domains", "span", range(4), count=24)


def test_the_recipe_tells_exact_match_and_f1_before_and_after(here: Here, tiny: Path, domains: Path) -> None:
    out = domains.parent / "out"
    text = domains.parent / "plain.txt"
    filler = "Ships come and go. " * 9
    lines = [f"The harbour of Port{n}x is old. {filler}Many like Port{n}x." for n in range(200)]
    text.write_text("\n\n".join(lines))
    taught = ",".join([str(domains / "span_0.jsonl"), f"recurring:{text}"])
    code, said, wrong = here(
        "python", RECIPE, "--model", tiny, "--data", taught, "--validation", domains / "span_1.jsonl", "--test",
        domains / "span_2.jsonl", "--steps", 2, "--rank", 4, "--shots", 2, 3, "--episodes", 2, "--out", out,
        "--test-rows", 12, "--precision", "fp32",
    )  # fmt: skip
    assert code == 0, wrong
    for word in ("Before and after adaptation", "exact match", "f1", "reptile", "2 shots", "forecast"):
        assert word in said
    found, told = read_report(out / "results.json"), json.loads((out / "before.json").read_text())["before"]
    assert list(told) == list(found.methods) == ["frozen", "finetune", "multitask", "reptile", "maml"]
    for by_task in told.values():
        assert {"f1", "exact_match"} <= by_task["span_2"].keys()
        assert 0 <= by_task["span_2"]["exact_match"]["mean"] <= by_task["span_2"]["f1"]["mean"] <= 1
    assert found.shown("span_2") == ("f1", "exact_match")
    assert (out / "report.html").is_file()


def test_what_theta_says_before_is_what_it_says_after_nothing_was_learned(net: Backbone) -> None:
    """With a penalty beyond all bounds a support set moves no vector: before and after are one, but for the views."""
    algorithm = Finetune(inner=Inner(steps=0))
    theta = algorithm.init(net, torch.Generator().manual_seed(0))
    vector = torch.randn(theta["span/head/vector"].shape, generator=torch.Generator().manual_seed(1))
    still = {"span/head/penalty": torch.tensor(30.0), "span/views/trust": torch.tensor(-60.0)}
    learner = Learner(algorithm, net, theta | still | {"span/head/vector": vector})
    held_out = HeldOutTask(task_of("span", count=30), net, Protocol((4,), 1))
    phi = algorithm.adapt(net, learner.theta, held_out.supports[0].batch)
    support = held_out.supports[0]
    after = held_out.form.metrics(held_out.scores(algorithm, phi), held_out.rows, held_out.task.meaning)
    told = before(learner, held_out)
    near([told[m].mean for m in ("f1", "exact_match")], [after[m] for m in ("f1", "exact_match")], INNER_STEPS)
    assert support.excluded.any(), "rows of the support set count too: nothing was learned from them"


def test_too_few_rows_for_blocks_have_no_interval(net: Backbone) -> None:
    algorithm = Maml()
    learner = Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0)))
    few, many = (HeldOutTask(task_of("span", count=n), net, Protocol((2,), 1)) for n in (3, 40))
    assert [before(learner, held_out)["f1"].low is None for held_out in (few, many)] == [True, False]


def test_classes_are_not_known_before_their_rows(net: Backbone) -> None:
    algorithm = Maml()
    learner = Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0)))
    held_out = HeldOutTask(task_of("classify", count=20), net, Protocol((2,), 1))
    with pytest.raises(InputError, match="nothing is known of its answers before the first row"):
        before(learner, held_out)
    assert np.isfinite(before(learner, HeldOutTask(task_of("regress", count=20), net, Protocol((2,), 1)))["rmse"].mean)
