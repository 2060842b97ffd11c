"""The shopping guide from messy files to a page, as recipes/shopping_guide.py runs it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Here, mini_tasks
from form_tasks import rows_of

from metanlp.core.errors import InputError
from metanlp.evaluation.results import Report, read_report
from metanlp.evaluation.shoppers import CHANCE
from metanlp.experiment.options import ShoppingGuide
from metanlp.experiment.shopping_guide import shopping_guide

RECIPE = Path(__file__).parents[2] / "recipes" / "shopping_guide.py"
METHODS = ("tfidf", "logistic", "frozen", "reptile")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Messy reviews by category, and titles by shop."""
    folder = tmp_path_factory.mktemp("shop")
    for number, name in enumerate(("cups", "pots", "pans")):
        rows = rows_of("classify", 48, number)
        messy = [row | {"text": f"<p>{row['text']}</p> $ {n}"} for n, row in enumerate(rows)]
        lines = (json.dumps(row) + "\n" for row in [*messy, messy[0]])
        (folder / f"{name}.jsonl").write_text("".join(lines))
    titles = mini_tasks()["mini/commit_types"]
    rows = [{"text": row["text"], "label": titles.labels[row["label"]], "shop": f"shop {n % 2}"}
            for n, row in enumerate(titles.pools["train"])]  # fmt: skip
    (folder / "titles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def asked(shop: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> ShoppingGuide:
    return ShoppingGuide(
        model=str(tiny), data=f"{shop / 'cups.jsonl'},by:shop:{shop / 'titles.jsonl'}", validation="mini/politeness",
        test=f"{shop / 'pots.jsonl'},{shop / 'pans.jsonl'}", method="reptile", baselines=METHODS[:3], inner_steps=2,
        clean=True, steps=2, meta_batch=1, shots=(4,), episodes=1, test_rows=20, validation_trials=1, search_trials=1,
        praise="praise", ticks=(4,), draws=1, listed=20, threads=1, out=tmp_path_factory.mktemp("guide") / "out",
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(asked: ShoppingGuide) -> Report:
    made = shopping_guide(asked)
    assert made
    return made


def test_every_method_classifies_and_ranks(found: Report) -> None:
    assert tuple(found.methods) == METHODS
    assert found.tasks == ("pots", "pans")
    guide = found.protocol["guide"]
    assert guide["reference"] == "logistic"
    assert guide["shoppers"] == ["pots, well-reviewed", "pans, well-reviewed"]
    assert {cell["method"] for cell in guide["cells"]} == {*METHODS, CHANCE}
    assert all(0 <= row["low"] <= row["mean"] <= row["high"] <= 1 for row in guide["means"])


def test_what_was_cleaned_is_said_and_texts_stay_here(found: Report, asked: ShoppingGuide) -> None:
    by_task = {row["task"]: row for row in found.protocol["cleaned"]}
    assert by_task["pots"] == {"task": "pots", "rows": 49, "markup": 49, "prices": 49, "repeats": 1}
    local = json.loads((asked.out / "local.json").read_text())
    assert local["changes"][0]["before"].startswith("<p>")
    assert "<p>" not in (asked.out / "results.json").read_text()
    page = (asked.out / "report.html").read_text()
    assert "Ranking from likes and dislikes" in page
    assert "What was cleaned" in page
    assert read_report(asked.out / "results.json").protocol["guide"] == json.loads(json.dumps(found.protocol["guide"]))


def test_a_guide_without_shoppers_is_refused_before_it_trains(asked: ShoppingGuide, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="no shopper can be made of mini/formality"):
        shopping_guide(replace(asked, test="mini/formality", out=out))
    with pytest.raises(InputError, match="--ticks 3 are even numbers"):
        shopping_guide(replace(asked, ticks=(3,), out=out))
    assert not out.exists()


def test_one_review_is_too_little(asked: ShoppingGuide, here: Here, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("text,label\na fine cup,praise\n")
    code, out, said = here(
        "python", RECIPE, "--data", "mini", "--test", tmp_path / "one.csv", "--out", tmp_path / "out"
    )
    assert (code, out, said.count("\n")) == (2, "", 1)
    assert "one.csv:2: task 'one' has only the class 'praise' to train on; give rows of two classes or more" in said
