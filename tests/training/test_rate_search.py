"""A rate for each method: found by short runs, the same however often they are stopped, and paid for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from forked import forked

from metanlp.algorithms import ProtoNet
from metanlp.backbone import Backbone
from metanlp.core import weights
from metanlp.core.errors import DivergedError
from metanlp.core.types import Task, Weights
from metanlp.episodes.sampling import Episodes, Sampling
from metanlp.training.meta_train import Plan, meta_train
from metanlp.training.processes import Ranks
from metanlp.training.rate_search import ALL, SHARE, RateSearch, search_rate, whole

PLAN = Plan(steps=50, meta_batch=1, validations=0, patience=0, checkpoints=5)
RATES = (1e-3, 1e-4, 1e-2)

Search = Callable[..., RateSearch]


@pytest.fixture(scope="module")
def train(net: Backbone, toy_tasks: tuple[Task, ...]) -> Callable[..., Any]:
    episodes = Episodes(toy_tasks, net.encode, Sampling(shots=(1, 2), queries=2, ways=3), seed=3)
    return partial(meta_train, ProtoNet(), net, episodes, resume=True)


@pytest.fixture
def search(train: Callable[..., Any], tmp_path: Path) -> Search:
    """The small search of these tests, into the folder `run`."""

    def start(validate: Callable[[Weights], Sequence[float]], **options: Any) -> RateSearch:
        given: dict[str, Any] = {"plan": PLAN, "folder": tmp_path / "run", "rates": RATES} | options
        return search_rate(train, validate, name="toy", ranks=Ranks.alone(), **given)

    return start


def moved(theta: Weights) -> list[float]:
    """A score that grows with the rate."""
    return [float(weights.norm({key: value for key, value in theta.items() if "lora_B" in key}))]


def test_the_rate_with_the_best_score_is_taken_and_paid_for(search: Search, tmp_path: Path) -> None:
    found = search(moved)
    scores = [found.scores[f"{rate:g}"] for rate in sorted(RATES)]
    assert found.lr == 1e-2
    assert scores == sorted(scores)  # type: ignore[type-var]
    assert search(lambda theta: [-moved(theta)[0]], folder=tmp_path / "other").lr == 1e-4
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["rate_search.json"], "short runs go"
    assert str(found).startswith("0.01; on validation tasks 0.0001: ")


@pytest.mark.slow
def test_what_is_paid_is_what_the_short_runs_took(train: Callable[..., Any], search: Search, tmp_path: Path) -> None:
    short = replace(PLAN, steps=3)  # 6 % of 50
    assert short.steps == SHARE * 50
    alone = [train(replace(short, lr=rate), folder=tmp_path / f"{rate}").record["tokens"] for rate in RATES]
    assert search(moved).record["rate_tokens"] == sum(alone)


def test_rates_that_trials_cannot_tell_apart_leave_the_first(search: Search) -> None:
    """Within one standard error of the best, trial by trial."""
    answers = iter([[0.5, 0.7, 0.3], [0.4, 0.6, 0.2], [0.4, 0.9, 0.3]])
    assert search(lambda _: next(answers)).lr == RATES[0]


def test_a_rate_at_which_texts_become_alike_fails(search: Search, capfd: pytest.CaptureFixture[str]) -> None:
    longer = replace(PLAN, steps=200)
    found = search(moved, plan=longer, rates=(1e-3, 3.0))
    assert (found.lr, found.scores["3"]) == (1e-3, None)
    assert "toy at 3: after meta-step" in capfd.readouterr().err
    assert "3: fails" in str(found)


def test_where_every_rate_fails_it_is_said(search: Search) -> None:
    with pytest.raises(DivergedError, match="at every rate training collapses or diverges; give a lower --lr"):
        search(moved, plan=replace(PLAN, steps=200), rates=(3.0,))


class CutError(Exception):
    """What ends a search in these tests."""


@pytest.mark.slow
def test_stopped_and_resumed_it_finds_the_same(search: Search, tmp_path: Path) -> None:
    once, calls = search(moved, folder=tmp_path / "whole"), 0

    def cut(theta: Weights) -> list[float]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise CutError
        return moved(theta)

    with pytest.raises(CutError):
        search(cut)
    again = search(moved)
    assert replace(again, seconds=0.0) == replace(once, seconds=0.0)
    assert search(cut) == again, "what is known is read"


def test_the_whole_of_a_timed_run_is_what_was_asked_for() -> None:
    plan = whole(Plan(minutes=10.0), 5e-4)
    assert plan.lr == 5e-4
    assert plan.minutes
    assert plan.minutes * (1 + ALL) == pytest.approx(10.0)


SCRIPT = """
import json, sys
from functools import partial
from pathlib import Path

from metanlp.algorithms import ProtoNet
from metanlp.backbone import Backbone, Lora
from metanlp.core import weights
from metanlp.episodes.sampling import Episodes, Sampling
from metanlp.tasks.taskset import read
from metanlp.training.meta_train import Plan, meta_train
from metanlp.training.processes import Ranks
from metanlp.training.rate_search import search_rate

ranks = Ranks.start(cpu=True)
net = Backbone.load(sys.argv[1], Lora(rank=4, alpha=8), precision="fp32")
tasks = read("mini/emotions,mini/formality", data_root=None)
episodes = Episodes(tasks, net.encode, Sampling(shots=(1, 2), queries=2, ways=2), seed=0)
train = partial(meta_train, ProtoNet(), net, episodes, ranks=ranks)
plan = Plan(steps=20, meta_batch=2, validations=0, patience=0)
folder = Path(sys.argv[2])
found = search_rate(train, lambda theta: [float(weights.norm(theta))], plan, folder, "toy", ranks)
(folder / f"{ranks.index}.json").write_text(json.dumps([found.lr, found.scores, found.tokens]))
ranks.close()
"""


@pytest.mark.slow
def test_more_processes_find_what_one_finds(tiny: Path, tmp_path: Path) -> None:
    for size in (1, 2):
        (tmp_path / str(size)).mkdir()
        forked(size, SCRIPT, tiny, tmp_path / str(size))
    one, first, second = ((tmp_path / place).read_text() for place in ("1/0.json", "2/0.json", "2/1.json"))
    assert json.loads(one)[0] in (5e-4, 1e-3, 2e-3)
    assert one == first == second
