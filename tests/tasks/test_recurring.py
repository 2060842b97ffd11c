"""Recurring spans: questions that a passage answers by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from metanlp.backbone import Backbone
from metanlp.core.errors import InputError
from metanlp.core.types import MASK
from metanlp.episodes.pool import Pool
from metanlp.episodes.sampling import Episodes, Sampling
from metanlp.forms.words import in_words
from metanlp.tasks.sources.recurring import LONGEST, RecurringSpans, recurring_spans
from metanlp.tasks.taskset import read

NAMES = ("Silver Heron", "Anna Lee", "Otter", "Green Hill Farm")
FILLER = [f"{a}{b}" for a in ("ba", "de", "fi", "go", "lu", "ny") for b in ("ran", "tel", "mis", "kor", "pun", "dax")]
COMMON = [f"z{a}{b}w" for a in "aeiou" for b in "bcdfghklmnprstvwxyzq"]  # a hundred, oftener than all others
OPTIONS = RecurringSpans(passages=16, seed=1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In each document a name stands in two sentences or three, everything else once, or it is common."""
    rng, documents = np.random.default_rng(0), list[str]()
    for number in range(40):
        name, own = NAMES[number % len(NAMES)], rng.permutation(FILLER).tolist()
        sentences = list[str]()
        for place in range(6):
            words = [
                own.pop(),
                *rng.choice(COMMON, 18),
                *([name] if place % 2 == 0 else []),
                own.pop(),
                f"n{number}.{place}x",
            ]
            sentences.append(" ".join(words) + ".")
        documents.append(" ".join(sentences))
    path = tmp_path_factory.mktemp("corpus") / "farm.txt"
    path.write_text("\n\n".join([*documents, documents[0], " ".join(COMMON * 20)]))
    return path


def test_all_places_but_one_are_masked_and_that_one_is_the_answer(corpus: Path) -> None:
    task = recurring_spans(str(corpus), OPTIONS)
    documents = corpus.read_text().split("\n\n")[:40]
    assert (task.form, task.labels, task.labelled) == ("span", (), False)
    assert len(task.pools["train"]) == 16
    for row in task.pools["train"]:
        ((start, end),) = row["answers"]
        answer = row["context"][start:end]
        assert answer in NAMES
        assert row["context"].count(MASK) == 2
        assert row["context"].count(answer) == 1
        assert row["context"].replace(MASK, answer) in documents
        assert MASK in row["question"]
        (asked,) = [part for part in row["context"].split(". ") if row["question"].rstrip(".") in part]
        assert answer not in asked
        assert in_words(row["context"])["tokens"].count(MASK) == 2


def test_the_same_seed_gives_the_same_questions_and_no_passage_twice(corpus: Path) -> None:
    first, again, other = (recurring_spans(str(corpus), replace(OPTIONS, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first.pools != other.pools
    every = recurring_spans(str(corpus), replace(OPTIONS, passages=100)).pools["train"]
    whole = {row["context"].replace(MASK, row["context"][slice(*row["answers"][0])]) for row in every}
    assert len(whole) == len(every) == 40


def test_support_and_query_share_no_passage(corpus: Path, net: Backbone) -> None:
    task = recurring_spans(str(corpus), OPTIONS)
    pool, episodes = Pool.of(task, net.encode), Episodes([task], net.encode, Sampling(shots=(2, 4), queries=3), seed=0)
    for number in range(20):
        episode = episodes[number]
        sides = [{pool.rows[n]["context"] for n in rows} for rows in (episode.support_rows, episode.query_rows)]
        assert all(sides)
        assert not sides[0] & sides[1]


def test_spans_are_as_long_as_they_recur_and_no_longer_than_ten(tmp_path: Path) -> None:
    rng, long = np.random.default_rng(0), [f"k{n}" for n in range(LONGEST + 3)]
    passages = []
    for n in range(20):
        parts = [" ".join([f"u{n}x{part}a", *rng.choice(COMMON, 20), *long, f"u{n}x{part}e."]) for part in range(2)]
        passages.append(" ".join(parts))
    (tmp_path / "long.txt").write_text("\n\n".join([*passages, " ".join(COMMON * 60)]))
    rows = recurring_spans(str(tmp_path / "long.txt"), OPTIONS).pools["train"]
    lengths = {len(row["context"][slice(*row["answers"][0])].split()) for row in rows}
    assert LONGEST in lengths
    assert max(lengths) == LONGEST


def test_they_are_data_like_other_data(corpus: Path) -> None:
    found = read(f"recurring:{corpus},mini/urgency", data_root=None)
    assert [task.name for task in found] == ["recurring/farm.txt", "mini/urgency"]


def test_what_is_too_little_is_told(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("one two three four five.\n")
    with pytest.raises(InputError, match=r"short.txt: 0 passages of 40 to 150 words hold words twice"):
        recurring_spans(str(tmp_path / "short.txt"))
    with pytest.raises(InputError, match="is not possible"):
        RecurringSpans(passages=3)
