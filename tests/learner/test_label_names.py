"""Names of labels: they count as far as the examples agree with them, and the less the more examples there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from few_rows import VIEWS, WIDTH, batch_of
from near import near
from torch import Tensor

from metanlp.algorithms import ALGORITHMS, Frozen, ProtoNet
from metanlp.backbone import Backbone
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Task
from metanlp.forms.heads import class_means
from metanlp.learner.label_names import descriptions, towards, words_of
from metanlp.learner.learner import Learner
from metanlp.learner.ranking import learn_taste
from metanlp.tasks.reading.descriptions import read_descriptions

ROWS = [("the parcel never came", "late parcel"), ("charged twice", "wrong bill"), ("where is it", "late parcel")]
NEW = ["nothing was delivered", "a wrong amount on the bill"]


def three_classes(shots: int) -> tuple[Tensor, Tensor]:
    """Names, and rows around them: (3, V, D), (3·shots, V, D), class after class, all of length one."""
    names = torch.eye(WIDTH)[:3, None].expand(-1, VIEWS, -1)
    noise = torch.randn(3 * shots, VIEWS, WIDTH, generator=torch.Generator().manual_seed(0))
    return names, torch.nn.functional.normalize(names.repeat_interleave(shots, 0) + 0.1 * noise, dim=-1)


def batch(shots: int) -> Batch:
    return batch_of([label for label in range(3) for _ in range(shots)])


@pytest.mark.parametrize("shots", [1, 4])
def test_names_of_other_classes_leave_the_rows_as_they_are(shots: int) -> None:
    names, rows = three_classes(shots)
    assert not torch.equal(towards(names, rows, batch(shots)), rows)
    assert torch.equal(towards(names.roll(1, 0), rows, batch(shots)), rows)
    assert torch.equal(towards(-names, rows, batch(shots)), rows)


def test_a_class_mean_moves_straight_to_its_name_and_less_with_more_shots() -> None:
    parts = list[float]()
    for shots in (1, 4, 16):
        names, rows = three_classes(shots)
        before, after = (class_means(x, batch(shots))[0] for x in (rows, towards(names, rows, batch(shots))))
        way = before.mean(0) + names - names.mean(0) - before  # from each mean to where the name puts it
        part = ((after - before) * way).sum((1, 2)) / way.square().sum((1, 2))
        near(after, before + part[:, None, None] * way)
        near(part, part.mean().expand(3))
        parts.append(float(part.mean()))
    assert 1 > parts[0] > parts[1] > parts[2] > 0


def test_a_text_that_only_names_a_class_is_found_where_the_examples_agree() -> None:
    """One row a class and far off: without its name the class would be looked for there."""
    names, rows = three_classes(1)
    far = torch.nn.functional.normalize(rows + 2 * torch.eye(WIDTH)[3:6, None].roll(1, 0), dim=-1)
    moved = towards(names, far, batch(1))
    cosines = [torch.nn.functional.cosine_similarity(x, names, dim=-1).mean() for x in (far, moved)]
    assert cosines[1] > cosines[0] + 0.3


@pytest.fixture(scope="module")
def learner(net: Backbone) -> Learner:
    return Learner(ProtoNet(), net, ProtoNet().init(net, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", [name for name, method in ALGORITHMS.items() if method.adapters])
def test_every_method_with_adapters_takes_names(net: Backbone, name: str) -> None:
    method = ALGORITHMS[name]()
    one = Learner(method, net, method.init(net, torch.Generator().manual_seed(0)))
    plain, called = (one.adapt(ROWS, label_names=names).logits(NEW) for names in (False, True))
    assert np.isfinite(called).all()
    assert called.shape == plain.shape


def test_names_are_the_same_from_labels_and_from_descriptions(learner: Learner) -> None:
    rows = [(text, label.replace(" ", "_")) for text, label in ROWS]
    called = learner.adapt(rows, label_names=True).logits(NEW)
    described = {"late_parcel": "late parcel", "wrong_bill": "wrong bill"}
    assert np.array_equal(called, learner.adapt(rows, label_names=described).logits(NEW))


def test_numbers_name_nothing_but_can_be_described(learner: Learner) -> None:
    rows = [(text, int(label == "wrong bill")) for text, label in ROWS]
    plain, called = (learner.adapt(rows, label_names=names).logits(NEW) for names in (False, True))
    assert np.array_equal(plain, called)
    assert words_of(["0", "1"]) == []
    assert words_of(["card_lost", "air/rail"]) == ["card lost", "air rail"]
    words = learner.adapt([(text, label) for text, label in ROWS], label_names=True)
    numbers = learner.adapt(rows, label_names={0: "late parcel", 1: "wrong bill"})
    assert np.array_equal(words.logits(NEW), numbers.logits(NEW))
    assert numbers.labels == (0, 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"late": "a parcel", "bill": "money", "bil": "x"},
            "'bil' is described and has no example; did you mean 'bill'",
        ),
        ({"late": "a parcel"}, "'bill' has no description"),
        ({"late": "a parcel", "bill": " "}, "'bill' has a blank description"),
    ],
)
def test_a_label_that_is_unknown_missing_or_blank_is_named_on_one_line(given: dict[str | int, str], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        descriptions(["late", "bill"], given)
    assert "\n" not in str(caught.value)


def test_names_count_unless_told_otherwise(learner: Learner) -> None:
    rows = [(f"{text} again and again", text) for text, _ in ROWS]  # names that agree with their examples
    plain, called = (learner.adapt(rows, label_names=names).logits(NEW) for names in (False, True))
    assert np.array_equal(learner.adapt(rows).logits(NEW), called)
    assert not np.array_equal(plain, called)


def test_names_of_what_relates_two_texts_say_nothing_of_them(learner: Learner) -> None:
    rows = [(text, other, label) for (text, label), other in zip(ROWS, NEW * 2, strict=False)]
    asked = [(NEW[0], NEW[1])]
    assert np.array_equal(learner.adapt(rows).logits(asked), learner.adapt(rows, label_names=False).logits(asked))
    described = learner.adapt(rows, label_names={"late parcel": "it is late", "wrong bill": "it is wrong"})
    assert not np.array_equal(described.logits(asked), learner.adapt(rows).logits(asked)), "if asked for, they do"


def test_frozen_features_and_other_forms_have_no_use_for_names(net: Backbone, learner: Learner) -> None:
    frozen = replace(learner, algorithm=Frozen(), theta=Frozen().init(net, torch.Generator().manual_seed(0)))
    scores = [{"text": text, "score": float(number)} for number, (text, _) in enumerate(ROWS)]
    for one, rows, said in ((frozen, ROWS, "frozen features alone"), (learner, scores, "'regress'")):
        assert one.adapt(rows).answers(NEW) == one.adapt(rows, label_names=False).answers(NEW)
        with pytest.raises(InputError, match=said):
            one.adapt(rows, label_names={"late parcel": "it is late", "wrong bill": "it is wrong"})


def test_what_is_liked_is_not_what_speaks_of_liking(learner: Learner) -> None:
    liked, listed = [{"text": "a red kettle"}], [{"text": "a blue kettle"}, {"text": "a lamp"}]
    taste = learn_taste(learner, liked, [{"text": "a lamp shade"}], listed)
    task = Task("ticks", {"train": ({**liked[0], "label": 1}, {"text": "a lamp shade", "label": 0})}, taste.labels, "x")
    assert np.array_equal(taste.logits(listed), learner.adapt_to(task, label_names=False).logits(listed))


def test_descriptions_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text('label,description\nlate,"a parcel, late"\n0,money\n')
    assert read_descriptions(file) == {"late": "a parcel, late", "0": "money"}
    for text, said in (("label,text\na,b\n", "two columns"), ("label,description\na,b\na,c\n", "second time")):
        file.write_text(text)
        with pytest.raises(InputError, match=said):
            read_descriptions(file)


@pytest.mark.parametrize("names", [["late", "wrong"], "late", None, 1])
def test_names_that_are_no_mapping_are_refused(net: Backbone, names: object) -> None:
    learner = Learner(ProtoNet(), net, ProtoNet().init(net, torch.Generator()))
    with pytest.raises(InputError, match="give True, False, or a mapping from each label to a text"):
        learner.adapt(ROWS, label_names=names)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [None, 1, float("nan")])
def test_a_description_that_is_no_text_is_refused(text: object) -> None:
    with pytest.raises(InputError, match=r"label 'b' is described by .*; describe it in words"):
        descriptions(["a", "b"], {"a": "first", "b": text})  # type: ignore[dict-item]
