"""What an experiment asks of its backbone: options of its own, or those of the learner that it begins from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metanlp import Backbone, Learner, Lora, ProtoNet
from metanlp.core.errors import InputError
from metanlp.experiment.options import Experiment
from metanlp.experiment.prepare import prepare
from metanlp.experiment.run import roles_of, run
from metanlp.training.processes import Ranks


@pytest.fixture
def asked(tiny: Path, tmp_path: Path) -> Experiment:
    return Experiment(
        model=str(tiny), data="mini/emotions,mini/formality", validation="mini/politeness", test="mini/urgency",
        method="protonet", baselines=(), steps=1, rank=4, shots=(2,), episodes=2, test_rows=20, threads=1,
        validations=1, validation_trials=1, search_trials=1, precision="fp32", out=tmp_path / "out", page=False,
    )  # fmt: skip


def opened(asked: Experiment) -> Backbone:
    return prepare(asked, Ranks.alone(), roles_of(asked, asked.test), quiet=True).net


def test_a_run_learns_in_all_layers_where_that_is_asked_and_the_learner_keeps_it(tiny: Path, asked: Experiment) -> None:
    half, whole = opened(asked), opened(replace(asked, layers="all"))
    assert (half.lowest, whole.lowest) == (half.depth // 2, 0)
    run(replace(asked, layers="all"))
    learned = Learner.load(asked.out, base=str(tiny))
    assert learned.encoder.lowest == 0
    assert any(".layer.0." in key and bool(value.any()) for key, value in learned.theta.items() if "lora_B" in key)


def test_texts_are_cut_as_long_as_that_is_asked_or_as_the_learner_of_the_start_has_it(
    tiny: Path, asked: Experiment, tmp_path: Path
) -> None:
    net = Backbone.load(str(tiny), Lora(rank=4), max_length=20, precision="fp32")
    Learner(ProtoNet(), net, ProtoNet().init(net, torch.Generator().manual_seed(0))).save(tmp_path / "start")
    begins = replace(asked, start=str(tmp_path / "start"))
    lengths = [opened(each).options.max_length for each in
               (asked, replace(asked, max_length=30), begins, replace(begins, max_length=40))]  # fmt: skip
    assert lengths == [128, 30, 20, 40]
    text = ("word " * 60).strip()
    assert opened(replace(asked, max_length=30)).encode([(text,)]).lengths().tolist() == [30]


@pytest.mark.parametrize(("length", "why"), [
    (0, "can't be cut to 0 tokens; give a whole number from 6 up"), (-3, "to -3 tokens"),
    (100_000, "reads at most .* tokens, but max_length is 100000; lower it"),
])  # fmt: skip
def test_other_lengths_are_refused(asked: Experiment, length: int, why: str) -> None:
    with pytest.raises(InputError, match=why):
        opened(replace(asked, max_length=length))


@pytest.mark.parametrize("length", ["256", 64.0, True, np.int64(64)])
def test_a_length_that_is_no_whole_number_is_refused_at_once(tiny: Path, tmp_path: Path, length: Any) -> None:
    net = Backbone.load(str(tiny), Lora(rank=4), precision="fp32")
    Learner(ProtoNet(), net, ProtoNet().init(net, torch.Generator().manual_seed(0))).save(tmp_path / "learner")
    with pytest.raises(InputError, match=r"texts can't be cut to .* tokens; give a whole number from 6 up"):
        Learner.load(tmp_path / "learner", base=str(tiny), max_length=length)
    with pytest.raises(InputError, match="open `net` with it, or give none"):
        Learner.load(tmp_path / "learner", net=net, max_length=64)
