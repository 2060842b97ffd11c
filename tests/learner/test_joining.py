"""Several learners as one: nothing of any is lost, and what a task asks for is read from all of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Here, pack_rows
from near import LAYERS, near
from peft import PeftModel
from safetensors.torch import load_file
from test_learner import NEW, ROWS
from transformers import AutoModel

from metanlp.algorithms import Algorithm, Frozen, Maml, MetaSgd, Multitask, ProtoNet
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone, Lora
from metanlp.backbone.lora import one_set
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Task
from metanlp.episodes.sampling import Episodes, Sampling
from metanlp.learner.artefact import ADAPTER, CONFIG, META
from metanlp.learner.joining import join
from metanlp.learner.learner import Learner
from metanlp.learner.origin import teachers
from metanlp.share.card_header import Subject
from metanlp.share.model_card import card
from metanlp.training.meta_train import Plan, meta_train

VIEWS = ("adapted.4.all", "frozen.4.all", "frozen.2.second")
OTHERS = ("frozen.4.all", "adapted.4.second", "adapted.3.all", "frozen.3.phrase")


def learner(net: Backbone, seed: int, algorithm: Algorithm | None = None, **record: Any) -> Learner:
    """θ as after some training: no tensor is zero."""
    made, generator = algorithm or ProtoNet(classifier="mixture"), torch.Generator().manual_seed(seed)
    theta = {key: value + 0.1 * torch.randn(value.shape, generator=generator)
             for key, value in made.init(net, generator).items()}  # fmt: skip
    return Learner(made, net, theta, record, np.array([seed, 7], np.uint64))


@pytest.fixture(scope="module")
def nets(tiny: Path) -> tuple[Backbone, Backbone]:
    one, other = (Backbone.load(str(tiny), Lora(rank=4), views=views, precision="fp32") for views in (VIEWS, OTHERS))
    return one, other


@pytest.fixture(scope="module")
def two(nets: tuple[Backbone, Backbone]) -> tuple[Learner, Learner]:
    return learner(nets[0], 1), learner(nets[1], 2)


def test_every_view_reads_what_it_read_before(two: tuple[Learner, Learner]) -> None:
    whole = join(two)
    assert whole.net.view_names == (*VIEWS, "adapted2.4.second", "adapted2.3.all", "frozen.3.phrase")
    batch = pack_rows([{"text": text, "label": 0} for text in NEW], 1, whole.encoder.encode)
    read = dict(zip(whole.encoder.view_names, whole.encoder.features(whole.theta, batch).unbind(1), strict=True))
    for each, number in zip(two, ("", "2"), strict=True):
        own = each.encoder.features(each.theta, batch).unbind(1)
        for name, vector in zip(each.encoder.view_names, own, strict=True):
            near(read[name.replace("adapted", f"adapted{number}")], vector, LAYERS)


def test_heads_keep_what_one_knows_and_average_what_several_know(two: tuple[Learner, Learner]) -> None:
    whole, (one, other) = join(two).theta, (each.theta for each in two)
    near(whole["head/scale"], (one["head/scale"] + other["head/scale"]) / 2, LAYERS)
    for key in ("views/prior", "regress/head/vector", "span/head/vector"):
        near(whole[key][[0, 2]], one[key][[0, 2]], LAYERS)
        near(whole[key][1], (one[key][1] + other[key][0]) / 2, LAYERS)
        near(whole[key][3:], other[key][1:], LAYERS)
    fresh = Backbone.load(str(two[0].encoder.base.place), Lora(rank=4), views=join(two).encoder.view_names)
    expected = ProtoNet().init(fresh, torch.Generator())
    assert list(whole) == list(expected), "in the order of a learner that was never joined"
    assert all(whole[key].shape == value.shape for key, value in expected.items())


def test_who_has_not_learned_a_form_has_no_say_in_it(two: tuple[Learner, Learner]) -> None:
    """Not for a form that it never saw, and not for one that came after its file."""
    begins = ProtoNet().init(two[1].net, torch.Generator())
    forms = ("regress/", "span/")
    fresh = weights.pick(begins, *forms)
    older = {key: value for key, value in two[1].theta.items() if not key.startswith("span/")}
    for theta in (two[1].theta | fresh, weights.drop(older, "regress/") | weights.pick(begins, "regress/")):
        whole = join([two[0], replace(two[1], theta=theta)]).theta
        for key in weights.pick(two[0].theta, *forms):
            own = two[0].theta[key]
            near(whole[key][: len(own)] if own.dim() else whole[key], own, LAYERS)
        near(whole["regress/views/prior"][3:], begins["regress/views/prior"][1:], LAYERS, size=1.0)
    untaught = [ProtoNet().init(each.net, torch.Generator()) for each in two]
    whole = join([replace(each, theta=each.theta | theta) for each, theta in zip(two, untaught, strict=True)]).theta
    assert torch.equal(whole["span/head/scale"], begins["span/head/scale"])


def test_what_changes_no_answer_may_differ(two: tuple[Learner, Learner], tiny: Path) -> None:
    again = Backbone.load(str(tiny), Lora(rank=4), views=VIEWS, precision="fp32", gradient_checkpoint=True)
    assert join(each for each in (two[0], learner(again, 2))).encoder.sets == 2


def test_it_is_saved_and_peft_opens_the_first(two: tuple[Learner, Learner], tiny: Path, tmp_path: Path) -> None:
    whole = join(two)
    whole.save(tmp_path)
    again = Learner.load(tmp_path, base=str(tiny))
    assert [*weights.pick(again.theta, "lora/")] == [*weights.pick(whole.theta, "lora/")]
    assert weights.equal(again.theta, whole.theta)
    assert np.array_equal(again.adapt(ROWS).scores(NEW), whole.adapt(ROWS).scores(NEW))
    assert len(load_file(tmp_path / ADAPTER)) == len(one_set(whole.theta, 1))
    assert {key for key in load_file(tmp_path / META) if key.startswith("lora/2/")}
    page = card(Subject("lab/both", json.loads((tmp_path / CONFIG).read_text())))
    assert "hidden states of the first of 2 sets of adapters.\nThe others, the head" in page
    plain = PeftModel.from_pretrained(AutoModel.from_pretrained(tiny), tmp_path).eval()
    given = {"input_ids": torch.tensor([[2, 30, 40, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    batch = whole.encoder.with_trunk(pack_rows([{"text": NEW[0], "label": 0}], 1, whole.encoder.encode))
    tokens = batch.ids[None]
    with torch.no_grad():
        state = plain(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state[0]
        assert plain(**given).last_hidden_state.isfinite().all()
    near(whole.encoder.features(whole.theta, batch)[0, 0], state.mean(0), LAYERS)


def test_what_is_adapted_from_it_is_saved(two: tuple[Learner, Learner], tiny: Path, tmp_path: Path) -> None:
    adapted = join(two).adapt(ROWS)
    adapted.save(tmp_path)
    assert np.array_equal(type(adapted).load(tmp_path, base=str(tiny)).scores(NEW), adapted.scores(NEW))


def test_inner_steps_move_the_adapters_of_all(nets: tuple[Backbone, Backbone]) -> None:
    whole = join([learner(net, seed, Maml(inner=Inner(steps=1))) for seed, net in enumerate(nets)])
    phi = whole.adapt(ROWS).weights
    for number in (1, 2):
        before, after = (one_set(w, number) for w in (whole.theta, phi))
        assert before
        assert all(not torch.equal(before[key], after[key]) for key in before)


def test_what_was_joined_is_joined_again(two: tuple[Learner, Learner]) -> None:
    pair = join(two)
    whole = join([pair, two[0], pair])
    assert whole.encoder.sets == 5
    for number, (part, own) in enumerate(((pair, 1), (pair, 2), (two[0], 1), (pair, 1), (pair, 2)), start=1):
        assert weights.equal(one_set(whole.theta, number), one_set(part.theta, own))
    assert whole.encoder.view_names.count("frozen.4.all") == 1
    with pytest.raises(InputError, match="10 sets of adapters together; at most 9"):
        join([whole, whole])


def test_a_pass_costs_the_adapted_layers_of_each(two: tuple[Learner, Learner]) -> None:
    whole = join(two)
    batch = pack_rows([{"text": "a b c", "label": 0}], 1, whole.encoder.encode)
    one, both = (net.work(batch, 1) for net in (two[0].encoder, whole.encoder))
    assert both - one == round(batch.count_tokens / 2), "of four layers two are adapted"


def test_it_says_what_taught_all_of_them(two: tuple[Learner, Learner]) -> None:
    first = replace(two[0], record={"tasks": {"train": ["a", "b"]}, "sources": {"a": "x"}, "licences": {"a": "MIT"},
                                    "tokens": 10, "steps": 2})  # fmt: skip
    before = {"c": {"source": "z", "licence": "CC BY 4.0"}}
    second = replace(two[1], record={"tasks": {"train": ["b"], "validation": ["d"]}, "sources": {"b": "y"},
                                     "began": before, "tokens": 5})  # fmt: skip
    whole = join([first, second])
    assert {name: origin.source for name, origin in teachers(whole.record).items()} == {"a": "x", "b": "y", "c": "z"}
    assert teachers(whole.record)["a"].licence == "MIT"
    assert (whole.record["tokens"], whole.record["steps"], whole.record["joined"]) == (15, 2, 2)
    assert whole.record["tasks"] == {"train": ["a", "b"], "validation": ["d"]}
    assert whole.seen.tolist() == [1, 2, 7], "so that no task that taught one of them judges the whole"


def test_learners_that_can_not_stand_side_by_side(two: tuple[Learner, Learner], tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one learner alone"):
        join(two[:1])
    wider = Backbone.load(str(tiny), Lora(rank=8), views=VIEWS, precision="fp32")
    with pytest.raises(InputError, match=r"learner 2 has adapt \{'rank': 8.*the first \{'rank': 4"):
        join([two[0], learner(wider, 3)])
    for method in (MetaSgd(), Frozen()):
        with pytest.raises(InputError, match=f"learner 2 is of {type(method).__name__}.*multitask, protonet"):
            join([two[0], learner(two[0].encoder, 3, method)])
    model = AutoModel.from_pretrained(tiny)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.mul_(2)
    model.save_pretrained(tmp_path / "tiny-bert")
    two[0].encoder.tokenizer.save_pretrained(tmp_path / "tiny-bert")
    other = Backbone.load(str(tmp_path / "tiny-bert"), Lora(rank=4), views=VIEWS, precision="fp32")
    with pytest.raises(InputError, match="join those of one encoder"):
        join([two[0], learner(other, 3)])
    frozen = Backbone.load(str(tiny), Lora(rank=4), views=("frozen.4.all",), precision="fp32")
    for pair in ([two[0], learner(frozen, 3)], [learner(frozen, 3), two[0]]):
        with pytest.raises(InputError, match=r"learner [12] has no view with adapters"):
            join(pair)
    wrong: Any = [two[0], two[0].adapt(ROWS)]
    with pytest.raises(InputError, match="learner 2 is of Adapted; give learners"):
        join(wrong)
    memory = Backbone(AutoModel.from_pretrained(tiny), other.tokenizer, other.options, base="mine")
    with pytest.raises(InputError, match="made in memory"):
        join([learner(memory, 3), learner(memory, 4)])


def test_several_sets_of_adapters_learn_together(tiny: Path) -> None:
    """What joining makes can also be learned from nothing: both sets have gradients, of their own."""
    net = Backbone.load(str(tiny), Lora(rank=4), views=("adapted.4.all", "adapted2.4.all"), precision="fp32")
    theta = net.init(torch.Generator().manual_seed(0))
    one, other = (one_set(theta, number) for number in (1, 2))
    assert [*one] == [*other]
    assert any(not torch.equal(one[key], other[key]) for key in one)
    leaves = weights.leaves(theta)
    batch = pack_rows([{"text": text, "label": 0} for text in NEW], 1, net.encode)
    grads = weights.gradient(net.features(leaves, batch)[:, 1].square().sum(), leaves)
    assert all(not value.any() for value in one_set(grads, 1).values())
    assert any(value.any() for value in one_set(grads, 2).values())


def test_the_command(here: Here, two: tuple[Learner, Learner], tiny: Path, tmp_path: Path) -> None:
    for number, each in enumerate(two):
        each.save(tmp_path / str(number))
    (tmp_path / "examples.csv").write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in ROWS))
    code, out, said = here(
        "metanlp", "join", "--from", tmp_path / "0", tmp_path / "1", "--base", tiny, "--out", tmp_path / "both"
    )
    assert code == 0, said
    assert out.startswith(f"{tmp_path / 'both'}: 2 learners side by side")
    assert not said
    replace(two[1], seen=two[1].seen[:0]).save(tmp_path / "silent")
    short = ["--base", tiny, "--max-length", 16, "--out", tmp_path / "short"]
    code, _, said = here("metanlp", "join", "--from", tmp_path / "0", tmp_path / "silent", *short)
    assert (code, said.count("\n")) == (0, 1)
    assert "silent has no hashes of the rows that it has seen" in said
    assert json.loads((tmp_path / "short" / CONFIG).read_text())["backbone"]["max_length"] == 16
    code, out, said = here("metanlp", "adapt", "--from", tmp_path / "both", "--base", tiny, "--examples",
                           tmp_path / "examples.csv", "--out", tmp_path / "adapted")  # fmt: skip
    assert code == 0, said
    code, _, said = here("metanlp", "join", "--from", tmp_path / "0", "--base", tiny, "--out", tmp_path / "one")
    assert (code, said.count("\n")) == (2, 1)
    assert "give two or more" in said
    assert not (tmp_path / "one").exists()


def test_multitask_joins_protonet(nets: tuple[Backbone, Backbone]) -> None:
    """Methods may differ: the first says how to adapt."""
    assert join([learner(nets[0], 1, Multitask()), learner(nets[1], 2)]).algorithm == Multitask()


def test_training_goes_on_from_what_was_joined(two: tuple[Learner, Learner], toy_tasks: tuple[Task, ...]) -> None:
    whole = join(two)
    episodes = Episodes(toy_tasks, whole.encoder.encode, Sampling(shots=(2, 2), queries=2), seed=0)
    learned = meta_train(ProtoNet(), whole.encoder, episodes, Plan(steps=2, meta_batch=2), start=whole)
    for number in (1, 2):
        before, after = (one_set(theta, number) for theta in (whole.theta, learned.theta))
        assert any(not torch.equal(before[key], after[key]) for key in before)
    assert {*whole.seen.tolist()} < {*learned.seen.tolist()}
