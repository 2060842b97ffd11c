"""The tasks that taught a learner, through all the learners that its training began from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from metanlp import Backbone, Episodes, Learner, Lora, Plan, ProtoNet, Sampling, meta_train
from metanlp.learner.artefact import read_config
from metanlp.learner.origin import Origin, taught_before, teachers
from metanlp.serve.result_html import about
from metanlp.share.card_header import Subject
from metanlp.share.model_card import card
from metanlp.tasks.taskset import read

FIRST: dict[str, Any] = {
    "tasks": {"train": ["glue/mnli", "open/spam"], "validation": ["mini/urgency"]},
    "sources": {"glue/mnli": "glue", "open/spam": "spam"}, "licences": {"open/spam": "CC BY 4.0"},
}  # fmt: skip


@pytest.fixture
def net(tiny: Path) -> Backbone:
    return Backbone.load(str(tiny), Lora(rank=4), precision="fp32")


def trained(net: Backbone, start: Learner, task: str) -> Learner:
    tasks = read(task, data_root=None)
    episodes = Episodes(tasks, net.encode, Sampling(shots=(2, 2), queries=2, ways=2), 0)
    found = meta_train(ProtoNet(), net, episodes, Plan(steps=1), start=start)
    own = {"tasks": {"train": [one.name for one in tasks]}, "sources": {one.name: one.source for one in tasks}}
    return Learner(found.algorithm, net, found.theta, {**found.record, **own})


def test_they_are_passed_on_from_learner_to_learner(net: Backbone) -> None:
    first = Learner(ProtoNet(), net, ProtoNet().init(net, torch.Generator().manual_seed(0)), FIRST)
    assert teachers(FIRST) == {"glue/mnli": Origin("glue", "OANC and others"), "open/spam": Origin("spam", "CC BY 4.0")}
    second = trained(net, first, "mini/formality")
    third = trained(net, second, "mini/emotions")
    assert [*taught_before(second.record)] == ["glue/mnli", "open/spam"]
    assert [*teachers(third.record)] == ["glue/mnli", "open/spam", "mini/formality", "mini/emotions"]
    assert teachers(third.record)["open/spam"] == Origin("spam", "CC BY 4.0")
    assert "learned from 4 tasks" in repr(third)
    assert "meta-trained on 4 tasks (glue, open, mini)" in about(third, "third")


def test_the_card_says_them_with_their_licences(net: Backbone, tmp_path: Path) -> None:
    first = Learner(ProtoNet(), net, ProtoNet().init(net, torch.Generator().manual_seed(0)), FIRST)
    trained(net, first, "mini/formality").save(tmp_path / "learner")
    page = card(Subject("lab/x", read_config(tmp_path / "learner", "learner")))
    assert "learned on 3 tasks" in page
    before = "taught the learner that training began from"
    assert f"| {before} | glue | OANC and others | glue/mnli |" in page
    assert f"| {before} | spam | CC BY 4.0 | open/spam |" in page
    assert "| teaches | mini | Apache-2.0 | mini/formality |" in page


def test_the_learner_of_the_package_says_under_which_licences_it_learned() -> None:
    found = teachers(Learner.load("default").record)
    assert len(found) == 58
    assert [name for name, origin in found.items() if origin.licence == "not stated"] == []
