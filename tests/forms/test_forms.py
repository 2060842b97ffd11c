"""What holds for every form: how it is asked, scored, judged, read from files, learned from, adapted to."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import torch
from form_tasks import FORMS as NAMES
from form_tasks import rows_of, task_of, write_tasks
from near import INNER_STEPS, LAYERS, near
from scipy import stats
from sklearn.metrics import f1_score, precision_score, recall_score
from slowly import slow_but
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from metanlp.algorithms import ALGORITHMS, BASELINES, Finetune, Frozen, Maml
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone, Lora
from metanlp.cli.commands import main
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Pass, Task
from metanlp.episodes.pool import Pool
from metanlp.episodes.sampling import Episodes, Sampling, group
from metanlp.evaluation.held_out import HeldOutTask, Protocol
from metanlp.experiment.options import Experiment
from metanlp.experiment.run import run
from metanlp.forms import FORMS
from metanlp.forms.base import Scored
from metanlp.forms.metrics import correlation, label_sets, span_sets
from metanlp.forms.tag import runs, told
from metanlp.forms.words import in_words
from metanlp.learner.learner import Adapted, Learner, algorithm_from_json, algorithm_to_json
from metanlp.learner.questions import as_questions
from metanlp.tasks.reading.build import rows_for, rows_from, task_from_rows
from metanlp.tasks.reading.files import read_task
from metanlp.training.meta_train import Plan, meta_train

NEW = [form for form in NAMES if form != "classify"]
LEARNED = [(form, name) for form in NEW for name, method in ALGORITHMS.items() if method.learns(FORMS[form])]
SAMPLING = Sampling(shots=(2, 4), queries=3)
THREE = Sampling(shots=(3, 3), queries=2)


def pass_of(net: Backbone, form: str, count: int = 3) -> Pass:
    """Episodes of different tasks in one pass."""
    episodes = [Episodes([task_of(form, seed=n)], net.encode, SAMPLING, seed=n)[n] for n in range(count)]
    return group(episodes)


def random_scores(batch: Batch) -> Tensor:
    scores = torch.randn(len(batch.task_of), batch.max_ways, generator=torch.Generator().manual_seed(3))
    return scores.masked_fill(torch.arange(batch.max_ways) >= batch.ways[batch.task_of][:, None], -torch.inf)


# Losses.


def expected_loss(batch: Batch, scores: Tensor, task: int) -> Tensor:
    """By the words of each form's docstring, one task at a time."""
    mine = batch.task_of == task
    s, t, ways = scores[mine], batch.targets[mine], int(batch.ways[task])
    if batch.form in ("classify", "tag"):
        return cross_entropy(s, t)
    if batch.form == "regress":
        return ((s[:, 0] - t) ** 2 / (2 * 0.25**2)).mean()
    if batch.form == "multilabel":
        return binary_cross_entropy_with_logits(s[:, :ways], t[:, :ways])
    questions = [(s[batch.group[mine] == q], t[batch.group[mine] == q]) for q in batch.group[mine].unique()]
    return torch.stack([cross_entropy(s.T, t.view(s.shape).argmax(0)) for s, t in questions]).mean()


@pytest.mark.parametrize("form", NAMES)
def test_the_loss_of_each_task_is_its_own(net: Backbone, form: str) -> None:
    batch = pass_of(net, form).support
    scores = random_scores(batch)
    found = FORMS[form].loss(scores, batch)
    expected = torch.stack([expected_loss(batch, scores, task) for task in range(batch.count_tasks)])
    near(found, expected)
    assert FORMS[form].loss(scores, batch, torch.zeros(len(scores))).tolist() == [0.0] * batch.count_tasks


@pytest.mark.parametrize("form", NAMES)
def test_a_loss_has_finite_gradients_and_stays_put_without_rows_left_out(net: Backbone, form: str) -> None:
    batch = pass_of(net, form).support
    scores = random_scores(batch).requires_grad_()
    out = batch.group != 0  # without the first question, sentence or text
    (grad,) = torch.autograd.grad(FORMS[form].loss(scores, batch, out.float()).sum(), scores)
    assert grad[~scores.isneginf()].isfinite().all()
    assert not grad[~out].any()
    assert grad[out].any()


# Episodes.


@pytest.mark.parametrize("form", NAMES)
def test_episodes_have_their_shots_and_never_a_row_on_both_sides(net: Backbone, form: str) -> None:
    task = task_of(form, count=60)
    episodes = Episodes([task], net.encode, SAMPLING, seed=2)
    pool = Pool.of(task, net.encode)
    for number in range(40):
        episode = episodes[number]
        rows = [pool.rows[n] for n in episode.support_rows]
        assert not set(episode.support_rows) & set(episode.query_rows)
        assert episode.query_rows
        shots = Counter(label for row in rows for label in FORMS[form].shots_of(row))
        if FORMS[form].by_class:
            assert all(shots[label] >= 2 for label in episode.classes if label or form != "tag")
        else:
            assert 2 <= len(rows) <= 4
            assert len(episode.query_rows) == 6
        assert episode.support.form == form
        assert len(episode.support.targets) == len(episode.support.task_of) == len(episode.support.group)


def test_choices_stay_together_and_the_right_one_is_marked(net: Backbone) -> None:
    task = task_of("choose")
    pool = Pool(task.meaning, task.pools["train"], net.encode)
    batch = pool.pack([5, 0, 7])
    counts = [len(pool.rows[n]["choices"]) for n in (5, 0, 7)]
    assert torch.bincount(batch.group).tolist() == counts
    right = [batch.targets[batch.group == q].argmax().item() for q in range(3)]
    assert right == [pool.rows[n]["answer"] for n in (5, 0, 7)]
    alone = net.encode([(pool.rows[0]["question"], pool.rows[0]["choices"][1])])
    at = counts[0] + 1
    assert batch.ids[batch.example_of == at].tolist() == alone.ids.tolist()


def test_classes_that_take_no_part_are_none(net: Backbone) -> None:
    tags, labels = task_of("tag"), task_of("multilabel")
    pool = Pool(tags.meaning, tags.pools["train"], net.encode)
    whole, one = pool.pack([0, 1, 2]), pool.pack([0, 1, 2], [0, 2])
    assert one.targets.tolist() == [{0: 0, 1: 0, 2: 1}[t] for t in whole.targets.tolist()]
    pool = Pool(labels.meaning, labels.pools["train"], net.encode)
    assert torch.equal(pool.pack([0, 1, 2], [1]).targets, pool.pack([0, 1, 2]).targets[:, 1:])


def test_a_group_of_several_forms_is_a_pass_for_each(net: Backbone) -> None:
    tasks = [task_of(form) for form in NAMES]
    episodes = Episodes(tasks, net.encode, SAMPLING, seed=0)
    passes = [build() for build in episodes.passes(3, 12, 6)]
    numbers = sorted(episode.number for each in passes for episode in each.episodes)
    assert numbers == list(range(3, 15))
    assert all(each.support.form == each.query.form for each in passes)
    assert len({each.support.form for each in passes}) > 1
    again = [build() for build in Episodes(tasks, net.encode, SAMPLING, seed=0).passes(3, 12, 6)]
    assert all(torch.equal(a.query.ids, b.query.ids) for a, b in zip(passes, again, strict=True))


# Words.


def test_words_are_those_of_the_tokenizer(net: Backbone) -> None:
    """As it says itself of a sentence that comes in words."""
    sentences = [["Today", "U.N.", "re-opened", "naïve", "cafés"], ["a"], ["don't", "stop", "3.14", "now"]]
    tokens = net.encode([(" ".join(words),) for words in sentences], True)
    told = net.tokenizer(sentences, is_split_into_words=True)
    expected = [-1 if word is None else word for n in range(3) for word in told.word_ids(n)]
    assert tokens.words is not None
    assert tokens.words.tolist() == expected
    assert tokens.ids.tolist() == [i for row in told["input_ids"] for i in row]


def test_the_features_of_a_word_are_the_mean_of_its_tokens(net: Backbone) -> None:
    task = task_of("tag")
    pool = Pool(task.meaning, task.pools["train"], net.encode)
    theta = weights.scale(net.init(torch.Generator().manual_seed(1)), 3.0)
    batch = net.with_trunk(pool.pack([3, 8]))
    features, hidden = net.features(theta, batch), net.hidden(theta, batch)
    assert batch.unit_of is not None
    view = net.view_names.index(f"adapted.{net.depth}.all")
    for unit in range(len(batch.targets)):
        near(features[unit, view], hidden[batch.unit_of == unit].mean(0), LAYERS)
    words = sum(len(pool.rows[n]["tokens"]) for n in (3, 8))
    assert len(batch.targets) == words


@pytest.mark.parametrize("form", ["tag", "choose"])
def test_gradients_computed_part_by_part_are_the_same(tiny: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metanlp.backbone.encoder.PART", 40)
    plain, parts = (
        Backbone.load(str(tiny), Lora(rank=4), precision="fp32", gradient_checkpoint=checkpoint)
        for checkpoint in (False, True)
    )
    given = pass_of(plain, form)
    algorithm = Maml(inner=Inner(steps=1))
    theta = algorithm.init(plain, torch.Generator().manual_seed(0))
    grads = [algorithm.meta_grad(net, theta, given).grad for net in (plain, parts)]
    near(grads[0], grads[1], INNER_STEPS)


def test_a_sentence_that_was_cut_says_nothing_of_its_end(tiny: Path) -> None:
    short = Backbone.load(str(tiny), Lora(rank=4), precision="fp32", max_length=6)
    task = task_of("tag")
    pool = Pool(task.meaning, task.pools["train"], short.encode)
    counts, places = pool.units(np.array([0, 1]))
    assert counts.max() < min(len(pool.rows[n]["tokens"]) for n in (0, 1))
    batch = pool.pack([0, 1])
    gold = [FORMS["tag"].gold(pool.rows[n], task.meaning) for n in (0, 1)]
    owner = np.repeat([0, 1], counts)
    assert batch.targets.tolist() == [gold[o][p] for o, p in zip(owner, places, strict=True)]
    said = Scored(np.eye(3)[np.ones(len(places), int)], counts, places)
    assert [spans[-1][1] for spans in told(said, pool.rows[:2])] == counts.tolist()


# Judging.


def test_correlations_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=30), rng.integers(0, 4, 30).astype(float)
    found = correlation(a, b)
    assert found["pearson"] == pytest.approx(stats.pearsonr(a, b).statistic)
    assert found["spearman"] == pytest.approx(stats.spearmanr(a, b).statistic)
    assert found["rmse"] == pytest.approx(np.sqrt(((a - b) ** 2).mean()))
    assert correlation(np.full(30, 0.3), b)["pearson"] == 0.0
    with pytest.raises(InputError, match="finite"):
        correlation(np.array([np.nan, 1.0]), b[:2])


def test_sets_of_labels_are_judged_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(1)
    told_, true = rng.random((2, 20, 4)) > 0.6
    true[:, 3] = told_[:, 3] = False  # a label that neither side has
    found = label_sets(told_, true)
    for name, metric in (("micro_f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        assert found[name] == pytest.approx(metric(true, told_, average="micro"))
    assert found["macro_f1"] == pytest.approx(f1_score(true[:, :3], told_[:, :3], average="macro"))
    assert found["exact"] == pytest.approx((told_ == true).all(1).mean())
    assert label_sets(np.zeros((2, 2), bool), np.zeros((2, 2), bool))["micro_f1"] == 0.0


def test_entities_are_judged_whole() -> None:
    true = [[(0, 2, 1), (4, 5, 2)], [], [(1, 2, 1)]]
    said = [[(0, 2, 1), (4, 5, 1)], [(0, 1, 2)], [(1, 3, 1)]]  # one right, one wrong class, one made up, one too long
    found = span_sets(said, true, 3)
    assert found == pytest.approx({"micro_f1": 2 / 7, "precision": 1 / 4, "recall": 1 / 3, "macro_f1": 1 / 5})
    assert list(runs([0, 1, 1, 0, 2, 1, 1])) == [(1, 3, 1), (4, 5, 2), (5, 7, 1)]


@pytest.mark.parametrize("form", NAMES)
def test_right_answers_are_judged_right_and_told_as_given(net: Backbone, form: str) -> None:
    task = task_of(form)
    pool = Pool(task.meaning, task.pools["train"], net.encode)
    rows, kind = list(pool.rows[:9]), FORMS[form]
    gold = [np.array(kind.gold(row, task.meaning)) for row in rows]
    counts = np.array([len(each) for each in gold])
    flat = np.concatenate(gold)
    if form in ("classify", "tag"):
        values = 20.0 * np.eye(len(task.labels))[flat]
    else:
        values = flat.reshape(len(flat), -1) if form == "regress" else 40.0 * flat.reshape(len(flat), -1) - 20
    places = np.concatenate([np.arange(count) for count in counts])
    scored = Scored(values.astype(np.float32), counts, places)
    assert kind.metrics(scored, rows, task.meaning)[kind.metric] == pytest.approx(1.0)
    worse = replace(scored, values=-scored.values)
    assert kind.metrics(worse, rows, task.meaning)[kind.metric] < 0.6
    assert kind.wrong_by(scored, rows, task.meaning) == pytest.approx(np.zeros(9), abs=1e-5)
    assert kind.wrong_by(worse, rows, task.meaning).max() > 0.3
    shown = [answer[kind.shown or kind.answer] for answer in kind.answers(scored, rows, task.meaning)]
    truth = [kind.truth(row, task.meaning) for row in rows]
    assert shown == (pytest.approx(truth, abs=1e-5) if form == "regress" else truth)
    answers = [answer[kind.answer] for answer in kind.answers(scored, rows, task.meaning)]
    written = rows_of(form, 9, 0)
    if form in ("classify", "choose", "multilabel"):
        assert answers == [row[{"classify": "label", "choose": "answer"}.get(form, "labels")] for row in written]
    elif form == "span":
        assert answers == [row["answers"]["text"][0] for row in written]
    elif form == "regress":
        assert answers == pytest.approx([row["score"] for row in written], abs=1e-5)
    else:
        assert [[e["label"] for e in row] for row in answers] == [
            [t[2:] for t in row["tags"] if t.startswith("B-")] for row in written
        ]


# Learning and adapting.


@pytest.mark.parametrize(("form", "name"), LEARNED)
def test_tasks_in_one_pass_adapt_as_alone(net: Backbone, form: str, name: str) -> None:
    algorithm = replace(ALGORITHMS[name](), inner=Inner(steps=1 if name in ("maml", "finetune") else 0))
    theta = algorithm.init(net, torch.Generator().manual_seed(0))
    before, given = weights.clone(theta), pass_of(net, form)
    phi = algorithm.adapt(net, theta, given.support)
    assert weights.equal(theta, before)
    scores = algorithm.scores(net, phi, given.query)
    for task, episode in enumerate(given.episodes):
        alone = algorithm.scores(net, algorithm.adapt(net, theta, episode.support), episode.query)
        together = scores[given.query.task_of == task][:, : alone.shape[1]]
        if form == "choose":  # a question's scores count up to a constant
            alone, together = (x - x.mean() for x in (alone[:2], together[:2]))
        near(together, alone, INNER_STEPS)


@pytest.fixture(scope="module")
def real() -> Backbone:
    return Backbone.load("minilm", Lora(rank=4), precision="fp32")


# The relatives of these learn every form in the slow tests, and one here.
USUAL = ("multitask", "protonet", "maml")
WORDS = ("tag", "span")  # whose prototypes only a real encoder learns
TRAINED = slow_but(
    [(form, "multitask" if form in WORDS else "maml") for form in NEW],
    [(form, name) for form, name in LEARNED if name not in BASELINES],
)


def plan_of(form: str, name: str) -> Plan:
    """Few steps at a high rate where these were seen to do, which is all but the slow tests; else many."""
    if form in WORDS and name != "multitask":
        steps, lr = (6, 5e-3) if name not in USUAL else (2, 5e-3) if form == "tag" else (3, 2e-2)
    elif name in USUAL or form == "regress":
        steps, lr = (16, 5e-2) if form == "multilabel" and name != "multitask" else (24, 2e-2)
    else:
        steps, lr = 24 if form == "choose" else 60, 2e-2 if form == "multilabel" else 5e-3
    return Plan(steps=steps, meta_batch=2, lr=lr)


@pytest.mark.parametrize(("form", "name"), TRAINED)
def test_training_lowers_the_loss(net: Backbone, real: Backbone, tmp_path: Path, form: str, name: str) -> None:
    """Random weights hardly tell one word from another, so prototypes of words are learned with real ones."""
    net = real if form in WORDS and name != "multitask" else net
    tasks = [task_of(form, seed=n) for n in range(2)]
    algorithm = ALGORITHMS[name]()
    episodes = Episodes(tasks, net.encode, THREE, seed=0)
    losses: list[float] = []
    theta = algorithm.init(net, torch.Generator().manual_seed(0))
    asked = group([episodes[n] for n in range(100, 106)])
    learner = meta_train(algorithm, net, episodes, plan_of(form, name), folder=tmp_path)
    if algorithm.task_heads and name == "multitask":  # its heads are not the learner's: they stay with the run
        told = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        losses = [sum(told[:4]), sum(told[-4:])]
    else:
        for w in (theta, learner.theta):
            losses.append(float(algorithm.meta_grad(net, w, asked).loss.sum()))
    assert losses[1] < 0.95 * losses[0]


@pytest.mark.parametrize("form", NEW)
def test_first_order_gradient_is_that_of_the_query_loss_at_the_adapted_weights(net: Backbone, form: str) -> None:
    """Along one direction in θ, by finite differences: without inner steps nothing is left out of the gradient."""
    algorithm = Maml(inner=Inner(steps=0))
    start = algorithm.init(net, torch.Generator().manual_seed(0))
    noise = torch.Generator().manual_seed(5)
    theta = {key: value + 0.1 * torch.randn(value.shape, generator=noise) for key, value in start.items()}
    way = {key: torch.randn(value.shape, generator=noise) for key, value in theta.items()}
    given = pass_of(net, form, count=1)
    grad = algorithm.meta_grad(net, theta, given).grad
    slope = sum(float((grad[key] * way[key]).sum()) for key in grad)
    step = 1e-3
    ends = [algorithm.meta_grad(net, weights.add(theta, way, by), given).loss.double() for by in (step, -step)]
    assert float((ends[0] - ends[1]) / (2 * step)) == pytest.approx(slope, rel=0.03, abs=0.02)


@pytest.mark.parametrize("form", NAMES)
def test_steps_of_the_head_never_run_away(net: Backbone, form: str) -> None:
    """At the highest rate that the recipe search tries. A loss that bends more than cross-entropy would swing from one
    side of its minimum to the other, and further each time. Every view makes the head's loss bend more: of six it
    swings a little, and comes back."""
    support, losses = pass_of(net, form, count=1).support, list[float]()
    for steps in range(5):
        algorithm = Finetune(inner=Inner(steps=steps, lr=0.0, head_lr=1.0))
        theta = algorithm.init(net, torch.Generator().manual_seed(0))
        scores, counted = algorithm.left_out(net, theta, support)
        losses.append(float(FORMS[form].loss(scores, support, counted)))
    assert max(losses) < 1.5 * losses[0], losses
    assert losses[-1] < 1.2 * losses[0], losses


def learner_of(net: Backbone) -> Learner:
    algorithm = Maml(inner=Inner(steps=1))
    return Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("form", NAMES)
def test_a_learner_adapts_saves_and_answers(net: Backbone, tiny: Path, tmp_path: Path, form: str) -> None:
    rows = rows_of(form, 24, seed=1)
    adapted = learner_of(net).adapt(rows[:16])
    assert adapted.form == form
    adapted.save(tmp_path)
    again = Adapted.load(tmp_path, base=str(tiny))
    asked = [{key: value for key, value in row.items() if key != FORMS[form].answer_columns[0]} for row in rows[16:]]
    told_, kept = adapted.predict(asked), again.predict(asked)
    assert told_ == kept
    assert len(told_) == 8
    fewer = adapted.predict(asked[3:5])  # a pass of another size sums in another order
    assert fewer == told_[3:5] if form != "regress" else near(fewer, told_[3:5], INNER_STEPS) is None
    assert adapted.predict([]) == []
    kind = {"classify": str, "regress": float, "choose": int, "span": str}.get(form, list)
    assert all(isinstance(answer, kind) for answer in told_)


def test_entities_of_a_text_stand_where_they_say(net: Backbone) -> None:
    adapted = learner_of(net).adapt(rows_of("tag", 30, seed=1))
    text = "today,  anna met tom (rome) and  maria."
    (found,) = adapted.answers([text])
    assert found["entities"]
    assert all(text[e["start"] : e["end"]] == e["text"] for e in found["entities"])
    assert {e["label"] for e in found["entities"]} <= {"person", "place"}
    assert in_words(text)["tokens"] == ["today", ",", "anna", "met", "tom", "(", "rome", ")", "and", "maria", "."]
    assert adapted.predict(["", "  "]) == [[], []]


def test_a_configuration_with_heads_in_it_is_read() -> None:
    """As earlier versions wrote it; heads are the forms' own."""
    kept = algorithm_to_json(Maml())
    assert "head" not in kept
    assert algorithm_from_json(kept | {"head": {"classify": {"scale": 10.0, "trust": 1.5}}}) == Maml()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("मुख्यमंत्री दिल्ली में।", "मुख्यमंत्री दिल्ली में ।"),
        ("cafe\u0301, e\u0301te\u0301", "cafe\u0301 , e\u0301te\u0301"),
        ("می\u200cخواهم برو", "می\u200cخواهم برو"),
        ("iPhone在北京。東京タワ", "iPhone 在 北 京 。 東 京 タ ワ"),
        ("เป็นเมือง", "เ ป็ น เ มื อ ง"),
        ("👩\u200d🚀 flew 🇩🇪!", "👩\u200d🚀 flew 🇩🇪 !"),
        ("don't AT&T well-known U.S. x_1", "don't AT&T well-known U.S . x_1"),
    ],
    ids=["hindi", "decomposed", "joined", "unspaced", "thai", "clusters", "english"],
)
def test_words_of_every_script_are_whole_and_stand_where_they_are_said_to(text: str, words: str) -> None:
    row = in_words(text)
    assert row["tokens"] == words.split(" ")
    assert [text[start:end] for start, end in row["offsets"]] == row["tokens"]
    assert FORMS["tag"].question({"tokens": row["tokens"]}) == {"tokens": tuple(row["tokens"])}


def test_choices_that_are_asked_may_have_letters() -> None:
    row = {"question": "It rained.", "choices": {"text": ["wet", "dry"], "label": ["A", "B"]}}
    assert as_questions(FORMS["choose"], [row]) == [{"question": "It rained.", "choices": ("wet", "dry")}]
    with pytest.raises(InputError, match=r"^row 1 is .*; give \(question, choices\)"):
        as_questions(FORMS["choose"], [{**row, "choices": {"A": "wet", "B": "dry"}}])


@pytest.mark.parametrize(
    ("form", "row"),
    [("choose", "a text"), ("choose", ("q", "choices")), ("choose", {"question": "q"}), ("choose", ("q", ["one"])),
     ("span", "a text"), ("span", ("q", " ")), ("span", ("", "c")), ("span", {"question": "q"}),
     ("tag", {"tokens": "a b"}), ("tag", {"tokens": ["a b"]}), ("tag", 3), ("regress", {"question": "q"})],
)  # fmt: skip
def test_rows_of_another_form_are_refused(net: Backbone, form: str, row: Any) -> None:
    adapted = Adapted(Frozen(), net, {}, (), form=form)
    with pytest.raises(InputError, match=r"^row 1 is .*; give ") as caught:
        adapted.predict([row])
    assert "\n" not in str(caught.value)


def test_probabilities_of_classes_are_for_classes(net: Backbone) -> None:
    with pytest.raises(InputError, match="'regress' has no probabilities"):
        Adapted(Frozen(), net, {}, (), form="regress").scores(["a"])
    with pytest.raises(InputError, match="of the form 'regress'"):
        learner_of(net).left_out(rows_of("regress", 8, 0))


@pytest.mark.parametrize("form", NAMES)
def test_support_sets_of_an_exam_have_the_shots_asked(net: Backbone, form: str) -> None:
    task = task_of(form, count=40)
    held_out = HeldOutTask(task, net, Protocol(shots=(2, 4, 60), episodes=2))
    what = "its smallest class has" if FORMS[form].by_class else "it has"
    assert held_out.skipped[60].startswith(what)
    by_key = {FORMS[form].identity(row): row for row in held_out.rows}
    for support in held_out.supports:
        shots = Counter(label for key in support.keys for label in FORMS[form].shots_of(by_key[key]))
        assert min(shots.values(), default=len(support.keys)) >= support.shots
        assert support.excluded.sum() == len(support.keys)


# Files.


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("form", NAMES)
def test_a_file_says_the_same_in_every_format(tmp_path: Path, form: str, ending: str) -> None:
    rows, path = rows_of(form, 12, seed=3), tmp_path / f"t.{ending}"
    if ending == "parquet":
        parquet.write_table(arrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(
                {k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()} for row in rows
            )
    (tmp_path / "same").mkdir()
    (tmp_path / "same" / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, other = read_task(path), read_task(tmp_path / "same" / "t.jsonl")
    assert (one.form, one.labels, one.scale) == (form, other.labels, other.scale)
    assert list(one.pools["train"]) == list(other.pools["train"])


def test_tags_in_every_spelling_are_the_same_entities(tmp_path: Path) -> None:
    tokens = ["Ann", "Lee", "and", "Bob", "saw", "New", "York"]
    spellings = {
        "bio": ["B-PER", "I-PER", "O", "B-PER", "O", "B-LOC", "I-LOC"],
        "io": ["PER", "PER", "O", "PER", "O", "LOC", "LOC"],
        "iob1": ["I-PER", "I-PER", "O", "I-PER", "O", "I-LOC", "I-LOC"],
        "bioes": ["B-PER", "E-PER", "O", "S-PER", "O", "B-LOC", "E-LOC"],
        "bilou": ["B-PER", "L-PER", "O", "U-PER", "O", "B-LOC", "L-LOC"],
    }
    found: list[Task] = []
    for name, tags in spellings.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"tokens": tokens, "tags": tags}) + "\n")
        found.append(read_task(tmp_path / f"{name}.jsonl"))
    assert all(task.labels == ("O", "LOC", "PER") for task in found)
    assert all(task.pools["train"][0]["spans"] == ((0, 2, 2), (3, 4, 2), (5, 7, 1)) for task in found)
    side_by_side = {"tokens": ["Ann", "Bob"], "tags": ["B-PER", "B-PER"]}
    (tmp_path / "two.jsonl").write_text(json.dumps(side_by_side) + "\n")
    assert read_task(tmp_path / "two.jsonl").pools["train"][0]["spans"] == ((0, 1, 1), (1, 2, 1))


def tagged(*tags: str) -> list[dict[str, Any]]:
    """A row a tag, of two words, of which the second is in no entity."""
    return [{"tokens": [f"w{n}", "and"], "tags": [tag, "O"]} for n, tag in enumerate(tags)]


@pytest.mark.parametrize(
    ("tags", "labels"),
    [
        (("E-mail", "phone"), ("E-mail", "phone")),  # one that has no prefix: none has
        (("E-mail", "I-mail"), ("mail",)),
        (("E-mail",), ("E-mail",)),  # an end of what never begins
        (("S-Bahn", "U-Bahn"), ("S-Bahn", "U-Bahn")),  # of two schemes
        (("B-PER", "I-PER", "U-LOC", "E-ORG"), ("LOC", "ORG", "PER")),
        (("B-PER", "S-LOC"), ("LOC", "PER")),
        (("I-95", "road"), ("I-95", "road")),
    ],
)
def test_tags_have_prefixes_all_or_none(tags: Sequence[str], labels: Sequence[str]) -> None:
    task = task_from_rows("t", tagged(*tags))
    assert task.labels == ("O", *labels)
    assert len({*task.pools["train"][0]["spans"]}) == 1


def test_a_tag_without_prefix_among_those_of_a_scheme_is_refused() -> None:
    message = r"t: row 3: the tag 'LOC' has no prefix, and 'B-PER' has one at t: row 1; give one to every tag but O"
    with pytest.raises(InputError, match=message):
        task_from_rows("t", tagged("B-PER", "I-PER", "LOC"))


def test_tags_are_read_as_the_model_learned_them() -> None:
    task = task_from_rows("t", tagged("E-mail", "I-95", "road"))
    rows = rows_for(rows_from("t", tagged("I-95"), None), task.meaning, pairs=False)
    assert rows[0]["spans"] == ((0, 1, task.labels.index("I-95")),)


def test_questions_of_other_shapes_are_mapped_by_columns(tmp_path: Path) -> None:
    copa = {"premise": "It rained.", "asks": "effect", "choice1": "wet", "choice2": "dry", "label": 0}
    arc = {"question": "It rained.", "choices": {"text": ["wet", "dry"], "label": ["A", "B"]}, "answerKey": "B"}
    for name, row in (("copa", copa), ("arc", arc)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    columns = {"question": "premise+asks", "choices": "choice1+choice2", "answer": "label"}
    (row,) = read_task(tmp_path / "copa.jsonl", columns=columns).pools["train"]
    assert row == {"question": "It rained. effect", "choices": ("wet", "dry"), "answer": 0}
    (row,) = read_task(tmp_path / "arc.jsonl", columns={"answer": "answerKey"}).pools["train"]
    assert row == {"question": "It rained.", "choices": ("wet", "dry"), "answer": 1}


# By the commands.


def test_one_run_trains_and_judges_all_forms(tiny: Path, tmp_path: Path) -> None:
    for form in NAMES:
        write_tasks(tmp_path / "data", form, range(2), count=24)
        write_tasks(tmp_path / "judge", form, range(2, 3), count=24)
    asked = Experiment(
        model=str(tiny), data=str(tmp_path / "data"), validation=str(tmp_path / "judge" / "regress_2.jsonl"),
        test=str(tmp_path / "judge"), baselines=("frozen", "multitask"), steps=4, shots=(2,), episodes=2, rank=4,
        validations=1, validation_trials=2, search_trials=2, out=tmp_path / "out", precision="fp32",
    )  # fmt: skip
    found = run(asked)
    assert found is not None
    assert found.protocol["metrics"] == {f"{form}_2": FORMS[form].metric for form in NAMES}
    for by_task in found.scores.values():
        for form in NAMES:
            assert {FORMS[form].metric} <= by_task[f"{form}_2"]["2"].keys()
    mean = found.means["maml"]["2"]["score"]["mean"]
    parts = [found.scores["maml"][f"{form}_2"]["2"][FORMS[form].metric]["mean"] for form in NAMES]
    assert mean == pytest.approx(np.mean(parts))
    assert set(found.calibration["maml"]) == {"2"}


@pytest.mark.parametrize("form", NEW)
def test_the_commands_adapt_and_predict(
    net: Backbone,
    tiny: Path,
    tmp_path: Path,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    learner_of(net).save(tmp_path / "learner")
    write_tasks(tmp_path, form, range(1), count=20)
    examples = tmp_path / f"{form}_0.jsonl"
    for asked in (
        ["adapt", "--from", tmp_path / "learner", "--examples", examples, "--out", tmp_path / "new", "--base", tiny],
        ["predict", "--from", tmp_path / "new", examples, "--base", tiny],
        ["predict", "--from", tmp_path / "new", examples, "--base", tiny, "--format", "csv"],
    ):
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["metanlp", *map(str, asked)])
        main()
        if "csv" not in asked and asked[0] == "predict":
            told_ = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    table = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(table) == len(told_) == 20
    assert all(FORMS[form].answer in row for row in told_)
    assert list(table[0]) == list(told_[0])


@pytest.mark.parametrize("sign", ["\u06dd", "\u0600", "\u08e2", "\U000110bd"])
def test_a_sign_that_joins_what_follows_takes_no_space(sign: str) -> None:
    """Words are told by the spaces between them, so that none may hold one; clusters of an emoji stay whole."""
    row = in_words(f"{sign} Maria {sign}lives {sign} 👩\u200d💻 e\u0301 ❤️")
    assert not any(" " in token for token in row["tokens"])
    assert row["tokens"][-3:] == ["👩\u200d💻", "e\u0301", "❤️"]
    assert [row["text"][start:end] for start, end in row["offsets"]] == row["tokens"]
