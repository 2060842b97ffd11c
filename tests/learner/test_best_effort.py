"""`effort="best"`: steps where rows that they have not seen say that they pay, and else the recipe to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from form_tasks import FORMS as KINDS
from form_tasks import THINGS, rows_of, task_of
from slowly import slow_but

from metanlp.algorithms import ALGORITHMS
from metanlp.backbone import Backbone, Lora
from metanlp.core import weights
from metanlp.core.types import Task
from metanlp.episodes.pool import Pool
from metanlp.forms import FORMS
from metanlp.forms.base import softmax
from metanlp.learner.best_effort import FOLDS, LEAST, dealt, said
from metanlp.learner.learner import Adapted, Learner
from metanlp.tasks.reading.build import task_from_rows


def learner_of(name: str, net: Backbone) -> Learner:
    algorithm = ALGORITHMS[name]()
    return Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0)))


def steps_of(adapted: Adapted) -> int:
    return adapted.record["best_effort"]["steps"]


def right(adapted: Adapted, task: Task) -> float:
    """The metric of the form on all rows of a task."""
    rows, form = task.pools["train"], FORMS[task.form]
    said = adapted.predict([form.question(row) for row in rows])
    return float(np.mean([task.labels[row["label"]] == label for row, label in zip(rows, said, strict=True)]))


def noise(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows whose labels say nothing of their texts."""
    rng = np.random.default_rng(seed)
    rows = rows_of("classify", count, seed)
    return [row | {"label": str(label)} for row, label in zip(rows, rng.permutation(count) % 2, strict=True)]


def buried(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows of whose nine words the first one tells the label."""
    rng = np.random.default_rng(seed)
    words = [[("good", "bad")[n % 2], *map(str, rng.choice(THINGS, 8)), str(n)] for n in range(count)]
    return [{"text": " ".join(each), "label": ("praise", "complaint")[n % 2]} for n, each in enumerate(words)]


@pytest.fixture(scope="module")
def protonet(net: Backbone) -> Learner:
    return learner_of("protonet", net)


@pytest.fixture(scope="module")
def eager(tiny: Path) -> Learner:
    """Adapters that move far in a step, as those of a tiny model have to."""
    return learner_of("protonet", Backbone.load(str(tiny), Lora(rank=4, alpha=64), precision="fp32"))


@pytest.fixture(scope="module")
def paid(eager: Learner) -> Adapted:
    return eager.adapt(buried(40, 0), effort="best", label_names=False)


def test_a_task_on_which_steps_pay_is_won_by_them(eager: Learner, paid: Adapted) -> None:
    losses, other = paid.record["best_effort"]["losses"], task_from_rows("other", buried(100, 9))
    assert steps_of(paid) > 0
    assert losses[str(steps_of(paid))] < 0.8 * losses["0"]
    assert right(paid, other) > right(eager.adapt(buried(40, 0)), other)


def test_it_is_the_same_each_time(eager: Learner, paid: Adapted) -> None:
    again = eager.adapt(buried(40, 0), effort="best", label_names=False)
    assert weights.equal(again.phi, paid.phi)
    assert again.record == paid.record


def test_without_steps_it_is_the_recipe_to_the_bit(protonet: Learner) -> None:
    rows = noise(16)
    best, recipe = protonet.adapt(rows, effort="best"), protonet.adapt(rows)
    assert steps_of(best) == 0
    assert best.algorithm == recipe.algorithm
    assert weights.equal(best.phi, recipe.phi)


@pytest.mark.parametrize("name", slow_but(["maml", "matching"], ["frozen", "maml", "meta_sgd", "matching", "hypernet"]))
def test_every_kind_of_method_has_it(name: str, net: Backbone) -> None:
    learner, task = learner_of(name, net), task_of("classify", 8)
    best = learner.adapt_to(task, effort="best")
    if not steps_of(best):
        assert weights.equal(best.phi, learner.adapt_to(task).phi)
    assert set(best.record["best_effort"]["losses"]) >= {"0", "3"}


@pytest.mark.parametrize("kind", slow_but(["tag", "regress"], KINDS))
def test_every_form_has_it(kind: str, protonet: Learner) -> None:
    task = task_of(kind, 8)
    best = protonet.adapt_to(task, effort="best")
    assert all(map(np.isfinite, best.record["best_effort"]["losses"].values()))
    asked = [FORMS[kind].question(row) for row in task.pools["train"]]
    assert len(best.predict(asked)) == len(asked)


@pytest.mark.slow
def test_on_average_it_is_not_below_the_recipe(protonet: Learner) -> None:
    """Over small tasks with and without anything to learn."""
    gains = list[float]()
    for seed in range(2):
        for rows in (noise(8, seed), rows_of("classify", 8, seed)):
            other = task_from_rows("asked", noise(40, 9) if rows[0]["label"] in "01" else rows_of("classify", 40, 9))
            best, recipe = protonet.adapt(rows, effort="best"), protonet.adapt(rows)
            gains.append(right(best, other) - right(recipe, other))
    assert np.mean(gains) > -2 * np.std(gains) / len(gains) ** 0.5 - 1e-9


def test_few_rows_leave_the_recipe_and_it_says_so(protonet: Learner) -> None:
    rows = rows_of("classify", 2, 0)
    best = protonet.adapt(rows, effort="best")
    assert best.record["best_effort"] == {"steps": 0, "losses": {}}
    assert weights.equal(best.phi, protonet.adapt(rows).phi)
    assert said(best.record["best_effort"]).startswith("best: the learner's recipe, as no class has 3 different")


def test_what_was_chosen_is_saved(paid: Adapted, tmp_path: Path, tiny: Path) -> None:
    paid.save(tmp_path / "kept")
    kept = Adapted.load(tmp_path / "kept", base=str(tiny))
    assert kept.algorithm == paid.algorithm
    assert kept.record["best_effort"] == paid.record["best_effort"]
    texts = [row["text"] for row in rows_of("classify", 8, 3)]
    assert np.array_equal(kept.scores(texts), paid.scores(texts))


def test_what_is_said_of_it() -> None:
    few: Mapping[str, Any] = {"steps": 0, "losses": {"0": 0.5, "3": 0.6}}
    assert (
        said(few) == "best: the learner's recipe, as no number of steps is surely better on examples that are left out"
    )
    won: Mapping[str, Any] = {"steps": 3, "losses": {"0": 0.5, "3": 0.25}}
    assert said(won) == "best: 3 steps of Adam: 0.25 nats an example that is left out, 0.50 by the learner's recipe"


def test_folds_hold_out_no_row_twice_nor_a_small_class(net: Backbone) -> None:
    rows = [{"text": f"one {n}", "label": "a"} for n in range(9)] + [{"text": f"two {n}", "label": "b"} for n in "xy"]
    rows += [{"text": text, "label": "c"} for text in ("three", "four", "Three", "five")]
    task = task_from_rows("folds", rows)
    fold = dealt(Pool(task.meaning, task.pools["train"], net.encode))
    labels = np.array([row["label"] for row in rows])
    assert (fold[labels == "b"] == -1).all()
    assert fold[11] == fold[13] >= 0  # one text but for its case
    for number in range(FOLDS):
        for label in "ac":
            texts = {row["text"].lower() for row, at in zip(rows, fold, strict=True) if row["label"] == label != at}
            kept = {
                row["text"].lower()
                for row, at in zip(rows, fold, strict=True)
                if row["label"] == label and at != number
            }
            assert len(kept) >= LEAST - 1, texts


def test_rows_are_scored_by_steps_that_have_not_seen_them(eager: Learner, paid: Adapted) -> None:
    left_out = eager.left_out(buried(40, 0), effort="best")
    truth = np.array([paid.labels.index(row["label"]) for row in buried(40, 0)])
    chances = softmax(left_out)[np.arange(40), truth]
    assert -np.log(chances).mean() == pytest.approx(paid.record["best_effort"]["losses"][str(steps_of(paid))], abs=1e-3)
    assert chances.mean() < paid.scores([row["text"] for row in buried(40, 0)])[np.arange(40), truth].mean()
