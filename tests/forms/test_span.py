"""Questions about a passage: windows, the null word, what an answer is, how it is judged, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from form_tasks import rows_of, task_of
from near import LAYERS, near
from transformers import AutoModel, AutoTokenizer

from metanlp.algorithms import Finetune
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone, Lora
from metanlp.core.errors import InputError
from metanlp.core.types import Meaning, Row
from metanlp.episodes.pool import Pool
from metanlp.forms import FORMS
from metanlp.forms.base import Scored
from metanlp.forms.metrics import answer_match
from metanlp.forms.span import MOST, NOTHING, OVERLAP, WINDOW, likeliest, windows, words_of
from metanlp.forms.words import in_words
from metanlp.learner.learner import Learner
from metanlp.tasks.reading.build import task_from_rows
from metanlp.tasks.reading.files import read_task, read_texts

SPAN, MEANING = FORMS["span"], Meaning("span")
LONG = {
    "question": "where is it?",
    "context": " ".join("abcdefghijklmnopqrstuvwxyz"[n % 26] for n in range(150)) + " in Lima .",  # a token a word
    "answers": ((2, 3), (4, 5)),
}


@pytest.mark.parametrize("count", [1, OVERLAP, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 1000])
def test_windows_hold_every_word_and_overlap(count: int) -> None:
    found = windows(count)
    assert sorted({word for part in found for word in part}) == list(range(count))
    assert all(len(part) <= WINDOW for part in found)
    assert all(len({*a} & {*b}) == OVERLAP for a, b in pairwise(found))
    assert (words_of(count) == -1).sum() == len(found)


def test_every_window_is_read_with_the_question_and_every_unit_is_its_word(net: Backbone) -> None:
    last = {**LONG, "answers": ((LONG["context"].index("Lima"), len(LONG["context"]) - 2),)}
    none = {**LONG, "context": "short one", "answers": ()}
    rows: list[Row] = [none, last]
    pool = Pool(MEANING, rows, net.encode)
    words, texts = in_words(last["context"])["tokens"], SPAN.texts(last)
    assert len(texts) == 3
    for (window, question), part in zip(texts, windows(len(words)), strict=True):
        assert question == "where is it?"
        assert window.split() == [NOTHING, *words[part.start : part.stop]]
    batch, (counts, places) = pool.pack([1, 0]), pool.units(np.array([1, 0]))
    assert batch.group.bincount().tolist() == counts.tolist() == [len(words) + 2 * OVERLAP + 3, 3]
    assert places.tolist() == [*range(counts[0]), *range(counts[1])]  # nothing was cut
    assert len(batch.lengths) == 4
    begins = batch.targets[:, 0].nonzero().flatten().tolist()
    assert begins == [counts[0] - 2, counts[0]]  # "Lima" before ".", and the null word of the row without an answer
    assert torch.equal(batch.targets[:, 0], batch.targets[:, 1])


def test_an_answer_in_two_windows_is_right_in_both() -> None:
    offsets = in_words(LONG["context"])["offsets"]
    row = {**LONG, "answers": ((offsets[62][0], offsets[65][1]),)}
    gold, words = np.array(SPAN.gold(row, MEANING)), words_of(len(offsets))
    assert words[gold[:, 0] > 0].tolist() == [62, 62]
    assert words[gold[:, 1] > 0].tolist() == [65, 65]


def test_the_features_of_words_are_those_of_plain_transformers(net: Backbone, tiny: Path) -> None:
    """Of each word the mean of its tokens' last hidden states, in its window with the question."""
    row = task_of("span").pools["train"][0]
    model, tokenizer = AutoModel.from_pretrained(tiny), AutoTokenizer.from_pretrained(tiny)
    ((window, question),) = SPAN.texts(row)
    given = tokenizer(window.split(), question.split(), is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**given).last_hidden_state[0]
    word = [
        -1 if segment != 0 else number for segment, number in zip(given.sequence_ids(0), given.word_ids(0), strict=True)
    ]
    expected = torch.stack([hidden[torch.tensor(word) == n].mean(0) for n in range(len(window.split()))])
    theta = net.init(torch.Generator().manual_seed(0))
    found = net.features(theta, Pool(MEANING, [row], net.encode).whole())
    near(found[:, net.view_names.index(f"frozen.{net.depth}.all")], expected, LAYERS)


def test_the_gradient_is_that_of_all_windows_together(net: Backbone) -> None:
    """Questions of several windows in one pass have the loss that they have one by one."""
    rows: list[Row] = [{**LONG, "answers": ((2, 3),)}, {**LONG, "question": "who?", "answers": ()}]
    pool = Pool(MEANING, rows, net.encode)
    losses = []
    for parts in ([[0, 1]], [[0], [1]]):
        batches = [pool.pack(part) for part in parts]
        scores = [torch.sin(3.0 * torch.arange(len(b.targets))[:, None] + torch.arange(2)) for b in batches]
        if parts == [[0, 1]]:
            whole = scores[0]
        else:
            scores = list(whole.split([len(b.targets) for b in batches]))
        losses.append(np.mean([float(SPAN.loss(s, b)) for s, b in zip(scores, batches, strict=True)]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_likeliest_answer_is_found_by_trying_all() -> None:
    rng, context = np.random.default_rng(0), " ".join(f"w{n}" for n in range(100))
    words, offsets = words_of(100), in_words(context)["offsets"]
    values = rng.normal(size=(len(words), 2))
    seen = np.sort(rng.permutation(len(words))[:90])
    seen = np.union1d(seen, [0])
    told = likeliest(context, values[seen], seen)
    best = {word: values[seen[words[seen] == word]].max(0) for word in {*words[seen].tolist()}}
    sums = {(a, b): best[a][0] + best[b][1] for a, b in product(best, best) if 0 <= a <= b < a + MOST}
    sums[-1, -1] = best[-1].sum()
    a, b = max(sums, key=lambda pair: sums[pair])
    assert (told.start, told.end) == (offsets[a][0], offsets[b][1])
    assert told.text == context[told.start : told.end]
    assert told.probability == pytest.approx(np.exp(sums[a, b]) / np.exp([*sums.values()]).sum())
    values[0] = 50.0
    assert likeliest(context, values[seen], seen)[:3] == ("", None, None)


# Examples of SQuAD's own definitions: case, punctuation, articles; the best of several; no answer.
MATCHES = [
    ("the Denver Broncos!", ["Denver Broncos"], 1.0, 1.0),
    ("Denver", ["Denver Broncos", "denver"], 1.0, 1.0),
    ("in the city of Paris", ["Paris"], 0.0, 2 * (1 / 4) / (1 / 4 + 1)),
    ("Santa Clara, California", ["Levi's Stadium", "Levi's Stadium in Santa Clara California"], 0.0, 2 * 3 / 9),
    ("a a b", ["a b b"], 0.0, 2 * 1 / 3),  # the articles go; of two b one is told
    ("", [""], 1.0, 1.0),
    ("", ["Paris"], 0.0, 0.0),
    ("Paris", [""], 0.0, 0.0),
    ("the", ["an"], 1.0, 1.0),
]


@pytest.mark.parametrize(("said", "right", "exact", "f1"), MATCHES)
def test_exact_match_and_f1_are_squads(said: str, right: list[str], exact: float, f1: float) -> None:
    assert answer_match(said, right) == pytest.approx((exact, f1))


def test_metrics_are_means_over_rows_and_over_the_best_right_answer() -> None:
    rows = [LONG, {**LONG, "answers": ()}]
    count = len(words_of(len(in_words(LONG["context"])["tokens"])))
    values = np.zeros((2 * count, 2))
    values[3, :] = 30.0  # the third word, which is one of the right answers
    values[count + 1, 0] = values[count + 2, 1] = 30.0  # two words, where there is no answer
    scored = Scored(values, np.array([count, count]), np.tile(np.arange(count), 2))
    found = SPAN.metrics(scored, rows, MEANING)
    assert (found["exact_match"], found["f1"]) == (0.5, 0.5)
    assert SPAN.wrong_by(scored, rows, MEANING).tolist() == [0.0, 1.0]
    assert [SPAN.truth(row, MEANING) for row in rows] == ["b", ""]


# Files.


def test_answers_are_read_as_people_have_them(tmp_path: Path) -> None:
    row = {"question": "Who came?", "context": "Ann saw Ann and Bob."}
    answers = {
        "hub.jsonl": {"answers": {"text": ["Ann"], "answer_start": [8]}},
        "squad.jsonl": {"answers": [{"text": "Ann", "answer_start": 8}]},
        "plain.jsonl": {"answer": "Ann"},
        "several.jsonl": {"answers": ["Bob", "Ann"]},
        "none.jsonl": {"answers": {"text": [], "answer_start": []}},
    }
    found = {}
    for name, cells in answers.items():
        (tmp_path / name).write_text(json.dumps(row | cells) + "\n")
        task = read_task(tmp_path / name)
        assert task.form == "span"
        found[name.partition(".")[0]] = task.pools["train"][0]["answers"]
    expected: dict[str, Any] = {"hub": ((8, 11),), "squad": ((8, 11),), "plain": ((0, 3),)}
    assert found == expected | {"several": ((16, 19), (0, 3)), "none": ()}
    (tmp_path / "t.csv").write_text("question,context,answer\nWho?,Ann saw Bob.,Bob\nWhen?,Ann saw Bob.,\n")
    assert [row["answers"] for row in read_task(tmp_path / "t.csv").pools["train"]] == [((8, 11),), ()]
    (tmp_path / "r.csv").write_text("question,context,reply\nWho?,Ann saw Bob.,Bob\n")
    assert read_task(tmp_path / "r.csv", columns={"answers": "reply"}).pools["train"][0]["answers"] == ((8, 11),)
    asked = read_texts(tmp_path / "t.csv", form="span")
    assert asked == [{"question": asks, "context": "Ann saw Bob."} for asks in ("Who?", "When?")]


GOOD = {"question": "Who?", "context": "Ann saw Bob.", "answers": {"text": ["Bob"], "answer_start": [8]}}
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"question": " "}, "'question' is blank; every row needs a text there"),
    ({"context": ""}, "'context' is empty; every row needs a text there"),
    ({"answers": {"text": ["Eve"]}}, "the answer 'Eve' is not in its context"),
    ({"answers": {"text": ["Bob"], "answer_start": [7]}}, "the answer is 'Bob', but answer_start 7 points at ' Bo'"),
    ({"answers": {"text": ["Bob"], "answer_start": [-4]}}, "answer_start -4 points at ''"),
    ({"answers": {"text": ["Bob"], "answer_start": []}}, "'answer_start' is .* for 1 answers"),
    ({"answers": {"text": [" "]}}, "an answer is blank; give none where there is none"),
    ({"answers": {"start": [1]}}, "'answers': 'text' is missing; write a list"),
    ({"answers": None}, "'answers' is null; write"),
    ({"answers": 3}, "'answers' is an integer; write"),
    ({"answers": "{bad"}, "'answers' begins like an object and is not valid JSON"),
]


@pytest.mark.parametrize(("wrong", "said"), MISTAKES)
def test_mistakes_are_told_with_their_row(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"^rows: row 2: .*{said}") as caught:
        task_from_rows("rows", [GOOD, {**GOOD, **wrong}])
    assert "\n" not in str(caught.value)


def test_a_file_without_answers_is_told_what_is_missing() -> None:
    asked = {key: value for key, value in GOOD.items() if key != "answers"}
    with pytest.raises(InputError, match="row 1: no column 'answers' for our `answers`; found 'question', 'context'"):
        task_from_rows("rows", [asked])
    with pytest.raises(InputError, match="row 1: no column 'choices' for our `choices`"):
        task_from_rows("rows", [{"question": "Who?", "answer": "Bob"}])
    race = {**asked, "choices": ["Ann", "Bob"], "answer": 1}
    assert task_from_rows("rows", [race]).form == "choose"
    assert task_from_rows("rows", [GOOD | {"answer": "Bob"}]).form == "span"


# Answers.


def test_an_adapted_model_says_where_its_answers_stand(net: Backbone) -> None:
    algorithm = Finetune(inner=Inner(steps=2))
    learner = Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0)))
    adapted = learner.adapt(rows_of("span", 12, seed=1))
    asked = [{key: row[key] for key in ("question", "context")} for row in rows_of("span", 20, seed=1)]
    found = adapted.answers(asked)
    for row, told in zip(asked, found, strict=True):
        assert 0 < told["probability"] <= 1
        assert told["start"] is None or row["context"][told["start"] : told["end"]] == told["answer"]
    assert adapted.answers([tuple(row.values()) for row in asked]) == found
    right = [row["answers"]["text"][0] for row in rows_of("span", 12, seed=1)]
    assert np.mean([told["answer"] == answer for told, answer in zip(found, right, strict=False)]) > 0.25


def test_a_learner_from_before_the_form_begins_anew(net: Backbone, tiny: Path, tmp_path: Path) -> None:
    algorithm = Finetune(inner=Inner(steps=0))
    theta = algorithm.init(net, torch.Generator().manual_seed(0))
    whole = Learner(algorithm, net, theta)
    older = replace(whole, theta={key: value for key, value in theta.items() if not key.startswith("span/")})
    older.save(tmp_path / "older")
    read = Learner.load(tmp_path / "older", base=str(tiny))
    assert read.theta.keys() == theta.keys()
    rows = rows_of("span", 8, seed=1)
    assert read.adapt(rows).predict(rows[:2]) == whole.adapt(rows).predict(rows[:2])


def test_a_long_question_does_not_hide_the_words_of_its_windows(tiny: Path) -> None:
    """Words that are cut from a window have no score, and the others keep theirs."""
    short = Backbone.load(str(tiny), Lora(rank=4), precision="fp32", max_length=60)
    pool = Pool(MEANING, [{**LONG, "answers": ((2, 3),)}], short.encode)
    counts, places = pool.units(np.array([0]))
    words = words_of(len(in_words(LONG["context"])["tokens"]))
    assert counts[0] < len(words)
    assert {0, WINDOW + 1} <= {*places.tolist()}  # the null words of the first two windows
    gold = np.array(SPAN.gold(pool.rows[0], MEANING))
    assert pool.pack([0]).targets.tolist() == gold[places].tolist()
    assert SPAN.answers(Scored(gold[places] * 9, counts, places), pool.rows, MEANING)[0]["answer"] == "b"
