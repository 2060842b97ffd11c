"""Rankings from ticks: what teaches, what is refused, and that what is liked comes first."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Here
from form_tasks import BAD, GOOD, THINGS

from metanlp.algorithms import Frozen
from metanlp.backbone import Backbone
from metanlp.core.errors import InputError
from metanlp.core.types import Row
from metanlp.learner.learner import Learner
from metanlp.learner.ranking import learn_taste, log_odds, ranked, ticked
from metanlp.tasks.reading.products import read_products


def products(words: tuple[str, ...], things: tuple[str, ...]) -> list[Row]:
    return [{"text": f"{word} {word} {thing}"} for word in words for thing in things]


LIKED, DISLIKED = products(GOOD[:3], THINGS[:2]), products(BAD[:3], THINGS[:2])
LISTED = [*products(BAD, THINGS[4:7]), *products(GOOD, THINGS[4:7])]


@pytest.fixture(scope="module")
def learner(net: Backbone) -> Learner:
    return Learner(Frozen(), net, Frozen().init(net, torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def saved(learner: Learner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taste")
    learner.save(folder / "learner")
    return folder


def rows_with(label: int, rows: tuple[Row, ...]) -> set[str]:
    return {row["text"] for row in rows if row["label"] == label}


def test_ticks_are_labelled_and_counted_once() -> None:
    rng = np.random.default_rng(0)
    rows = ticked([*LIKED, {"text": LIKED[0]["text"].upper()}], DISLIKED, LISTED, rng)
    assert len(rows) == len(LIKED) + len(DISLIKED)
    assert rows_with(0, rows) == {row["text"] for row in DISLIKED}


def test_products_of_the_list_stand_for_dislikes() -> None:
    one, other, again = (ticked(LIKED, [], [*LISTED, *LIKED], np.random.default_rng(seed)) for seed in (0, 1, 0))
    assert one == again != other
    assert len(rows_with(0, one)) == len(rows_with(1, one)) == len(LIKED)
    assert rows_with(0, one) <= {row["text"] for row in LISTED}
    assert len(ticked(LIKED, [], LISTED[:2], np.random.default_rng(0))) == len(LIKED) + 2


@pytest.mark.parametrize(
    ("liked", "disliked", "listed", "said"),
    [
        ([], DISLIKED, LISTED, "nothing is liked yet; tick at least one product"),
        (LIKED, [*DISLIKED, LIKED[0]], LISTED, "is liked and disliked; leave out one of the two"),
        (LIKED, [], LIKED, "nothing is disliked and the list has no other product"),
    ],
)
def test_ticks_that_teach_nothing_are_refused(
    liked: list[Row], disliked: list[Row], listed: list[Row], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        ticked(liked, disliked, listed, np.random.default_rng(0))


@pytest.mark.parametrize("disliked", [DISLIKED, []], ids=["both", "likes alone"])
def test_what_is_liked_comes_first(learner: Learner, disliked: list[Row]) -> None:
    adapted = learn_taste(learner, LIKED, disliked, LISTED)
    order = ranked(adapted, LISTED)
    assert sorted(place.product for place in order) == list(range(len(LISTED)))
    assert [place.score for place in order] == sorted((place.score for place in order), reverse=True)
    odds = log_odds(adapted.logits(LISTED))
    good, bad = odds[len(LISTED) // 2 :], odds[: len(LISTED) // 2]
    assert np.mean(good[:, None] > bad) > 0.6  # the AUC
    one = ranked(learn_taste(learner, LIKED[:1], disliked[:1], LISTED), LISTED)
    assert len(one) == len(LISTED)


# The command.


def listed_file(folder: Path, rows: list[Row], name: str = "products.csv") -> Path:
    with (folder / name).open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "name", "details", "price"])
        writer.writerows([f"p{n}", row["text"], f"<b>{n}</b>", f"{n},50 €"] for n, row in enumerate(rows))
    return folder / name


COLUMNS = ("--columns", "text=name+details")


def test_the_command_keeps_the_columns(saved: Path, here: Here, tiny: Path, tmp_path: Path) -> None:
    listed = listed_file(tmp_path, [*LISTED, LISTED[0], {"text": " "}])
    liked, disliked = tmp_path / "liked.csv", tmp_path / "disliked.txt"
    listed_file(tmp_path, LIKED, "liked.csv")
    disliked.write_text("\n".join(row["text"] for row in DISLIKED))
    asked = ("metanlp", "rank", "--from", saved / "learner", "--base", tiny, "--liked", liked, *COLUMNS, listed)
    code, out, said = here(*asked, "--disliked", disliked, "--clean")
    assert (code, said.count("\n")) == (0, 1), said
    assert said == "cleaned, in rows of 32: markup 32\n"
    rows = list(csv.DictReader(io.StringIO(out)))
    assert list(rows[0]) == ["score", "id", "name", "details", "price"]
    assert [float(row["score"]) for row in rows] == sorted((float(row["score"]) for row in rows), reverse=True)
    assert rows[0]["details"].startswith("<b>")
    code, out, said = here(*asked, "--format", "jsonl")
    assert code == 0
    assert "nothing is disliked" in said
    assert len(out.splitlines()) == 32
    assert {*json.loads(out.splitlines()[0])} == {"score", "id", "name", "details", "price"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has no rows; give at least one text"),
        ("name\n", "has no rows; give at least one text"),
        ("name,score\na kettle,1\n", "has a column 'score', which is to hold the new one; rename it"),
        ('name\na kettle\n""\n', "products.csv:3: 'name' is empty; every row needs a text there"),
        ("title\na kettle\n", "no column 'name' for our `text`; found 'title'"),
    ],
)
def test_what_people_have_is_refused_in_a_line(here: Here, tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "products.csv").write_text(content)
    (tmp_path / "liked.txt").write_text("a cup\n")
    ended = here("metanlp", "rank", "--from", tmp_path, "--liked", tmp_path / "liked.txt", "--columns", "text=name",
                 tmp_path / "products.csv")  # fmt: skip
    assert (ended[0], ended[1], ended[2].count("\n")) == (2, "", 1)
    assert said in ended[2]


def test_products_are_cleaned_where_that_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "products.jsonl"
    path.write_text(
        '{"text": "<p>a kettle</p>", "id": 1}\n{"text": null, "id": 2}\n{"text": "A kettle!", "id": 3}\n'
        '{"text": "a cup", "kind": "new"}\n'
    )
    found = read_products(path, clean=True)
    assert [row["text"] for row in found.rows] == ["a kettle", "a cup"]
    assert found.cells == ({"text": "<p>a kettle</p>", "id": 1, "kind": ""}, {"text": "a cup", "id": "", "kind": "new"})
    assert found.cleaning
    assert {kind: n for kind, n in found.cleaning.counts.items() if n} == {
        "markup": 1, "empty": 1, "near repeats": 1
    }  # fmt: skip
    with pytest.raises(InputError, match=r"products.jsonl:2: 'text' is null"):
        read_products(path)
    path.write_text('{"text": ""}\n')
    with pytest.raises(InputError, match="none of its 1 rows has a text"):
        read_products(path, clean=True)


def test_pairs_and_single_texts_are_not_ranked_together(learner: Learner) -> None:
    pairs: list[Row] = [{"text_a": "a", "text_b": "b"}]
    with pytest.raises(InputError, match="some products are pairs of texts and some are single texts"):
        learn_taste(learner, pairs, [], LISTED)
    with pytest.raises(InputError, match="some products are pairs of texts and some are single texts"):
        learn_taste(learner, LIKED, DISLIKED, [*LISTED, *pairs])
