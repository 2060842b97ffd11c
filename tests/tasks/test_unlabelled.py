"""Tasks from plain text: what they ask, and what they never do."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers_of import roberta

from metanlp.backbone import Backbone
from metanlp.backbone.tokens import columns_of
from metanlp.core.errors import InputError
from metanlp.core.types import MASK
from metanlp.episodes.pool import Pool
from metanlp.episodes.sampling import Episodes, Sampling
from metanlp.tasks.sources.unlabelled import MaskedWords, adjacent_sentences, masked_words
from metanlp.tasks.taskset import TaskSet, read

ANIMALS, TOOLS = ["otter", "badger", "heron", "lynx", "weasel", "viper"], ["hammer", "chisel", "pliers", "ladder"]
FILLER = [f"{a}{b}" for a in ("ba", "de", "fi", "go", "lu", "ny") for b in ("ran", "tel", "mis", "kor", "pun", "dax")]
OPTIONS = MaskedWords(tasks=30, words=3, rows=8, bands=2, similar=0.5, seed=1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Animals stand beside the words of animals, tools beside those of tools."""
    rng, documents = np.random.default_rng(0), list[str]()
    common = [f"z{a}{b}w" for a in "aeiou" for b in "bcdfghklmnprstvwxyzq"]  # a hundred, in nearly every sentence
    for _ in range(150):
        sentences = list[str]()
        for _ in range(6):
            kind, beside = (ANIMALS, FILLER[:18]) if rng.random() < 0.5 else (TOOLS, FILLER[18:])
            around = rng.choice(beside, 4).tolist()
            words = [*around[:2], str(rng.choice(kind)), *around[2:], *rng.choice(common, 20, replace=False)]
            sentences.append(" ".join(words).capitalize() + ".")
        documents.append(" ".join(sentences))
    path = tmp_path_factory.mktemp("corpus") / "nature.txt"
    path.write_text("\n\n".join(documents))
    return path


def test_a_task_asks_which_word_was_masked(corpus: Path) -> None:
    found = masked_words(str(corpus), OPTIONS)
    assert len(found) == len(TaskSet(found).tasks) == 30
    text = corpus.read_text().lower()
    for task in found:
        rows = task.pools["train"]
        assert Counter(row["label"] for row in rows) == {0: 8, 1: 8, 2: 8}
        for row in rows:
            word = task.labels[row["label"]]
            assert row["text_b"] == MASK
            assert row["text_a"].count(MASK) == 1
            assert row["text_a"].replace(MASK, word).lower() in text
            others = [label for label in task.labels if label != word]
            assert not {*row["text_a"].lower().rstrip(".").split()} & {word, *others}


def test_no_sentence_stands_in_a_task_twice(corpus: Path) -> None:
    for task in masked_words(str(corpus), OPTIONS):
        rows = task.pools["train"]
        whole = [row["text_a"].replace(MASK, task.labels[row["label"]]).lower() for row in rows]
        assert len(set(whole)) == len(whole)


def test_the_same_seed_gives_the_same_tasks(corpus: Path) -> None:
    first, again, other = (masked_words(str(corpus), replace(OPTIONS, seed=seed)) for seed in (1, 1, 2))
    assert [(task.labels, task.pools) for task in first] == [(task.labels, task.pools) for task in again]
    assert [task.labels for task in first] != [task.labels for task in other]


def test_words_of_hard_tasks_have_like_neighbours(corpus: Path) -> None:
    def of_one_kind(similar: float) -> float:
        found = masked_words(str(corpus), replace(OPTIONS, tasks=80, similar=similar, bands=1))
        kinds = [{next((k for k, of in enumerate((ANIMALS, TOOLS, FILLER[:18], FILLER[18:])) if word in of), -1)
                  for word in task.labels} for task in found]  # fmt: skip
        return float(np.mean([len(kind) == 1 for kind in kinds]))

    assert of_one_kind(1.0) > of_one_kind(0.0) + 0.2


def test_they_are_episodes_like_others(corpus: Path, net: Backbone) -> None:
    tasks = [*masked_words(str(corpus), OPTIONS)[:3], adjacent_sentences(str(corpus))]
    episodes = Episodes(tasks, net.encode, Sampling(shots=(2, 3), queries=3), seed=0)
    for number in range(30):
        episode = episodes[number]
        assert not set(episode.support_rows) & set(episode.query_rows)
        if episode.task.startswith("masked/"):
            assert (episode.support.ids[episode.support.segments == 2] == net.tokenizer.mask_token_id).all()


@pytest.mark.parametrize("kind", ["masked", "adjacent"])
def test_support_and_query_share_no_sentence(corpus: Path, net: Backbone, kind: str) -> None:
    """The masked word is put back, so that one sentence with two masks would count. 10,000 episodes of other text:
    recipes/bench/bench_unlabelled.py."""
    tasks = masked_words(str(corpus), OPTIONS) if kind == "masked" else (adjacent_sentences(str(corpus)),)
    pools = {task.name: Pool.of(task, net.encode) for task in tasks}
    drawn = Episodes(tasks, net.encode, Sampling(), seed=3)
    for number in range(500):
        episode = drawn[number]
        pool = pools[episode.task]
        sides = [
            {
                row[key].replace(MASK, pool.meaning.labels[row["label"]]).lower()
                for row in (pool.rows[n] for n in numbers)
                for key in ("text_a", "text_b")
                if row[key] != MASK
            }
            for numbers in (episode.support_rows, episode.query_rows)
        ]
        assert all(sides)
        assert not sides[0] & sides[1]


def test_every_tokenizer_reads_its_own_mask() -> None:
    made = roberta()
    assert columns_of(made, [(f"a {MASK} b", MASK)], "")[0] == ["a _ b"]
    made.add_special_tokens({"mask_token": "<mask>"})
    assert columns_of(made, [(f"a {MASK} b", MASK)], "p ")[0] == ["p a <mask> b"]
    assert made.mask_token_id in made(*columns_of(made, [(f"a {MASK} b", "c")], ""))["input_ids"][0]


def test_pairs_follow_or_come_before(corpus: Path) -> None:
    task = adjacent_sentences(str(corpus))
    text = " ".join(corpus.read_text().split())
    for row in task.pools["train"]:
        pair = (row["text_a"], row["text_b"]) if row["label"] else (row["text_b"], row["text_a"])
        assert " ".join(pair) in text
    assert Counter(row["label"] for row in task.pools["train"]) == {0: 150, 1: 150}
    sentences = [row[key] for row in task.pools["train"] for key in ("text_a", "text_b")]
    assert len(set(sentences)) == len(sentences)
    assert len(adjacent_sentences(str(corpus), most=20).pools["train"]) == 20


def test_a_sentence_of_two_documents_stands_in_one_pair(tmp_path: Path) -> None:
    """As licences and greetings do; with other words beside it, so that rows differ."""
    own = [f"Here stands what number {n} alone has to say." for n in range(90)]
    common = ["All rights are reserved by us.", "ALL RIGHTS ARE RESERVED BY US."]
    documents = [[common[n % 2], *own[3 * n : 3 * n + 3]] for n in range(30)]
    (tmp_path / "two.txt").write_text("\n\n".join(map(" ".join, documents)))
    rows = adjacent_sentences(str(tmp_path / "two.txt")).pools["train"]
    sentences = [row[key].lower() for row in rows for key in ("text_a", "text_b")]
    assert len(set(sentences)) == len(sentences) == 2 * (30 + 1)


def test_they_are_data_like_other_data(corpus: Path) -> None:
    found = read(f"masked:{corpus},adjacent:{corpus},mini/urgency", data_root=None)
    assert len(found) == MaskedWords().tasks + 2
    assert [task.labelled for task in found[-2:]] == [False, True]


@pytest.mark.parametrize("mix", [0.0, 0.25, 1.0])
def test_the_mix_is_the_share_of_their_episodes(corpus: Path, net: Backbone, mix: float) -> None:
    tasks = [*masked_words(str(corpus), OPTIONS), *read("mini/train", data_root=None)]
    episodes = Episodes(tasks, net.encode, Sampling(mix=mix), seed=0)
    drawn = [next(iter(episodes.drawn(number, 1))) for number in range(400)]
    share = np.mean([name.startswith("masked/") for name in drawn])
    assert abs(share - mix) < 0.08


def test_a_corpus_of_too_little(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("one two three four five.\n")
    with pytest.raises(InputError, match=r"0 words stand in 8 or more sentences"):
        masked_words(str(tmp_path / "short.txt"), OPTIONS)
    with pytest.raises(InputError, match="has 0 pairs of sentences"):
        adjacent_sentences(str(tmp_path / "short.txt"))


@pytest.mark.parametrize("wrong", [{"words": 1}, {"tasks": 0}, {"rows": 1}, {"similar": 2.0}])
def test_options_that_can_not_be(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="is not possible"):
        replace(OPTIONS, **wrong)  # type: ignore[arg-type]


def test_words_without_sentences_of_their_own_make_no_task(tmp_path: Path) -> None:
    """`otter` stands in one sentence, forty times; `san` and `diego` never without each other."""
    rng, path = np.random.default_rng(0), tmp_path / "text.txt"
    around = [" ".join(rng.choice(FILLER, 6)) for _ in range(400)]
    lines = [f"{around[n]} {'san diego' if n % 4 == 0 else TOOLS[n % 4]}" for n in range(400)]
    lines += [f"{around[0]} otter"] * 40
    common = [f"z{a}{b}w" for a in "aeiou" for b in "bcdfghklmnprstvwxyzq"]
    path.write_text("\n".join([*lines, *[" ".join(common[:50]), " ".join(common[50:])] * 500]))
    found = masked_words(str(path), replace(OPTIONS, tasks=60))
    asked = {label for task in found for label in task.labels}
    assert 0 < len(found) < 60
    assert "otter" not in asked
    assert all(not {"san", "diego"} <= {*task.labels} for task in found)
    path.write_text("\n".join([*lines[400:], *(f"{around[0]} {word}" for word in ANIMALS for _ in range(40)),
                               *[" ".join(common[:50]), " ".join(common[50:])] * 500]))  # fmt: skip
    with pytest.raises(InputError, match="too few different sentences"):
        masked_words(str(path), OPTIONS)
