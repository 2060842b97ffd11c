"""The outer loop: the same bits every time, however often it is stopped and on however many processes."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import on_threads
from forked import forked
from near import INNER_STEPS, LAYERS, near
from safetensors.torch import load_file, save_file
from slowly import slow_but
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import metanlp
from metanlp.algorithms import Maml
from metanlp.algorithms.base import Net
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone, Lora
from metanlp.core import weights
from metanlp.core.errors import DivergedError, InputError, StoppedError
from metanlp.core.types import MetaGrad, Pass, Task, Weights
from metanlp.episodes.sampling import Episodes, Sampling
from metanlp.learner.learner import Learner
from metanlp.training import checkpoint
from metanlp.training.meta_train import PATIENCE_NAN, Plan, meta_step, meta_train
from metanlp.training.processes import Ranks

SAMPLING = Sampling(shots=(1, 2), queries=2, ways=3)
METHOD = Maml(inner=Inner(steps=1))
PLAN = Plan(steps=6, meta_batch=2, lr=1e-2, validations=6, patience=0, checkpoints=6)


@pytest.fixture(scope="module")
def episodes(net: Backbone, toy_tasks: tuple[Task, ...]) -> Episodes:
    return Episodes(toy_tasks, net.encode, SAMPLING, seed=3)


@pytest.fixture
def run(net: Backbone, episodes: Episodes, tmp_path: Path) -> Callable[..., Learner]:
    """The small run of these tests, into the folder `run`, with whatever a test changes."""

    def start(method: Maml = METHOD, plan: Plan = PLAN, **options: Any) -> Learner:
        given: dict[str, Any] = {"folder": tmp_path / "run", "seed": 1, "ranks": Ranks.alone(), **options}
        return meta_train(method, given.pop("net", net), given.pop("episodes", episodes), plan, **given)

    return start


Whole = tuple[Learner, Path]


@pytest.fixture(scope="module")
def whole(net: Backbone, episodes: Episodes, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Whole]:
    """The small run with so many checkpoints, validated by `moved`, from start to end; and its folder."""

    @cache
    def made(checkpoints: int) -> Whole:
        folder, plan = tmp_path_factory.mktemp("whole"), replace(PLAN, checkpoints=checkpoints)
        return meta_train(
            METHOD, net, episodes, plan, validate=moved, folder=folder, seed=1, ranks=Ranks.alone()
        ), folder

    return made


@pytest.fixture(scope="module")
def older(net: Backbone, episodes: Episodes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the small run leaves."""
    folder = tmp_path_factory.mktemp("older")
    meta_train(METHOD, net, episodes, PLAN, folder=folder, seed=1, ranks=Ranks.alone())
    return folder


def moved(theta: Weights) -> list[float]:
    """A number that is a function of θ and grows while it learns: what a validation of one trial needs here."""
    return [float(weights.norm({key: value for key, value in theta.items() if "lora_B" in key}))]


def log(folder: Path) -> list[dict[str, Any]]:
    """`metrics.jsonl` without what differs from run to run."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


# The same bits.


def test_runs_by_steps_are_reproducible_to_the_byte(
    run: Callable[..., Learner], whole: Callable[[int], Whole], tmp_path: Path
) -> None:
    (first, there), again = whole(PLAN.checkpoints), run(validate=moved)
    assert weights.equal(first.theta, again.theta)
    assert log(there) == log(tmp_path / "run")
    newest = [folder / "checkpoints" / "step_6" / "state.safetensors" for folder in (there, tmp_path / "run")]
    assert newest[0].read_bytes() == newest[1].read_bytes()
    assert not weights.equal(first.theta, run(folder=None, seed=2).theta)


class CutError(Exception):
    """What ends a run in these tests."""


def stopping(at: int) -> Callable[[Weights], list[float]]:
    calls = 0

    def validate(theta: Weights) -> list[float]:
        nonlocal calls
        calls += 1
        if calls == at:
            raise CutError
        return moved(theta)

    return validate


@pytest.mark.parametrize(
    ("at", "checkpoints"), slow_but([(2, 6), (3, 2)], [(1, 6), (2, 6), (3, 2), (4, 2), (5, 3), (6, 6)])
)
def test_stopped_and_resumed_is_undisturbed(
    run: Callable[..., Learner], whole: Callable[[int], Whole], tmp_path: Path, at: int, checkpoints: int
) -> None:
    plan, (undisturbed, there) = replace(PLAN, checkpoints=checkpoints), whole(checkpoints)
    with pytest.raises(CutError):
        run(plan=plan, validate=stopping(at))
    resumed = run(plan=plan, validate=moved, resume=True)
    assert weights.equal(undisturbed.theta, resumed.theta)
    assert log(tmp_path / "run") == log(there)
    assert steps(tmp_path / "run") == steps(there)
    assert {k: v for k, v in undisturbed.record.items() if k != "train_s"} == {
        k: v for k, v in resumed.record.items() if k != "train_s"
    }


@pytest.fixture
def attentive() -> Iterator[None]:
    """Signals as they are in a terminal: in the background of a script SIGINT is ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("attentive")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_saves_the_step_that_it_is_in(
    run: Callable[..., Learner], whole: Callable[[int], Whole], tmp_path: Path, number: signal.Signals
) -> None:
    plan, (undisturbed, there), handlers = replace(PLAN, checkpoints=1), whole(1), signal.getsignal(number)

    def told(theta: Weights) -> list[float]:
        if len(log(tmp_path / "run")) == 2:  # within the third step
            signal.raise_signal(number)
        return moved(theta)

    with pytest.raises(StoppedError, match=r"after meta-step 3$") as stopped:
        run(plan=plan, validate=told)
    assert stopped.value.signal == number
    assert signal.getsignal(number) == handlers
    assert steps(tmp_path / "run") == ["step_3"]
    assert weights.equal(undisturbed.theta, run(plan=plan, validate=moved, resume=True).theta)
    assert log(tmp_path / "run") == log(there)


@pytest.mark.usefixtures("attentive")
def test_what_is_ignored_stays_ignored(run: Callable[..., Learner]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def told(theta: Weights) -> list[float]:
        signal.raise_signal(signal.SIGINT)
        return moved(theta)

    assert run(validate=told).record["steps"] == PLAN.steps


@pytest.mark.usefixtures("attentive")
def test_told_twice_it_stops_at_once(run: Callable[..., Learner], tmp_path: Path) -> None:
    def told_twice(_: Weights) -> list[float]:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second signal was held back")

    with pytest.raises(KeyboardInterrupt) as stopped:
        run(validate=told_twice)
    assert not isinstance(stopped.value, StoppedError)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_finished_run_is_left_alone(run: Callable[..., Learner], whole: Callable[[int], Whole]) -> None:
    first, there = whole(PLAN.checkpoints)
    before = {path: path.read_bytes() for path in there.rglob("*") if path.is_file()}
    again = run(validate=stopping(1), resume=True, folder=there)
    assert weights.equal(first.theta, again.theta)
    assert first.record == again.record
    assert {path: path.read_bytes() for path in there.rglob("*") if path.is_file()} == before


def test_resume_begins_where_there_is_nothing(run: Callable[..., Learner], whole: Callable[[int], Whole]) -> None:
    assert weights.equal(run(resume=True, validate=moved).theta, whole(PLAN.checkpoints)[0].theta)


def test_without_resume_an_older_run_stays(run: Callable[..., Learner], older: Path) -> None:
    before = steps(older), log(older)
    with pytest.raises(InputError, match="step_6 is of another run; resume that one, or take another folder"):
        run(plan=replace(PLAN, steps=2), folder=older)
    assert (steps(older), log(older)) == before


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"plan": replace(PLAN, steps=7)}, "plan.steps = 6, now it is 7"),
        ({"plan": replace(PLAN, lr=0.5)}, "plan.lr = 0.01, now it is 0.5"),
        ({"seed": 2}, "seed = 1, now it is 2"),
        ({"method": Maml(inner=Inner(steps=2))}, "algorithm.inner.steps = 1, now it is 2"),
        ({"episodes": 4}, "episodes.seed = 3, now it is 4"),
        ({"sampling": replace(SAMPLING, queries=3)}, "episodes.sampling.queries = 2, now it is 3"),
        ({"validated_on": {"emails": "4 shots, set 0"}}, "validation.emails = None, now it is 4 shots, set 0"),
    ],
)
def test_other_settings_are_refused_by_name(
    run: Callable[..., Learner],
    older: Path,
    net: Backbone,
    toy_tasks: tuple[Task, ...],
    change: dict[str, Any],
    key: str,
) -> None:
    seed, sampling = change.get("episodes", 3), change.get("sampling", SAMPLING)
    others = {name: value for name, value in change.items() if name not in ("episodes", "sampling")}
    with pytest.raises(InputError) as caught:
        run(resume=True, folder=older, episodes=Episodes(toy_tasks, net.encode, sampling, seed), **others)
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_validation_judges_by_may_not_become_other_trials(
    run: Callable[..., Learner], older: Path, tmp_path: Path
) -> None:
    """Scores are compared trial by trial. Checkpoints that were made before it was noted what judges go on."""
    with pytest.raises(CutError):
        run(plan=(plan := replace(PLAN, checkpoints=6)), validate=stopping(2))
    with pytest.raises(InputError, match="`validate` gave 2 scores, and 1 before"):
        run(plan=plan, validate=lambda theta: moved(theta) * 2, resume=True)
    tensors, stored = checkpoint.load(older / "checkpoints" / "step_6")
    del stored["run"]["validation"]
    checkpoint.save(tmp_path / "old" / "checkpoints" / "step_6", tensors, stored)
    assert run(resume=True, folder=tmp_path / "old", validated_on={"emails": "4 shots"}).record["steps"] == 6


def test_other_tasks_and_another_base_are_refused(
    run: Callable[..., Learner], older: Path, net: Backbone, toy_tasks: tuple[Task, ...], tiny: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"tasks\.mini/emotions = \d+ rows, now it is None"):
        run(resume=True, folder=older, episodes=Episodes(toy_tasks[1:], net.encode, SAMPLING, 3))
    shutil.copytree(tiny, tmp_path / "tiny-bert")
    model = tmp_path / "tiny-bert" / "model.safetensors"
    save_file({key: value * 1.01 for key, value in load_file(model).items()}, model, metadata={"format": "pt"})
    other = Backbone.load(str(tmp_path / "tiny-bert"), Lora(rank=4, alpha=8), precision="fp32")
    with pytest.raises(InputError, match=r"base\.sha256"):
        run(resume=True, folder=older, net=other)


# Numbers that are none.


@dataclass(frozen=True)
class Stumbling(Maml):
    """Gives a gradient or a loss that is not finite in some meta-steps of two episodes."""

    bad: tuple[int, ...] = ()
    where: str = "gradient"

    def meta_grad(self, net: Net, theta: Weights, episodes: Pass) -> MetaGrad:
        given = super().meta_grad(net, theta, episodes)
        if episodes.episodes[0].number // 2 not in self.bad:
            return given
        if self.where == "loss":
            return replace(given, loss=given.loss * math.inf)
        key = max(given.grad)
        return replace(given, grad=given.grad | {key: given.grad[key] * math.nan})


def remembering(seen: list[Weights], values: Iterable[float | list[float]] = ()) -> Callable[[Weights], list[float]]:
    """A validation that keeps what it was shown, and answers from `values` while they last."""
    answers = iter(values)

    def validate(theta: Weights) -> list[float]:
        seen.append(weights.clone(theta))
        answer = next(answers, 0.0)
        return answer if isinstance(answer, list) else [answer]

    return validate


@pytest.mark.parametrize("where", ["gradient", "loss"])
def test_bad_steps_are_skipped_and_counted(run: Callable[..., Learner], tmp_path: Path, where: str) -> None:
    seen: list[Weights] = []
    learned = run(Stumbling(inner=Inner(steps=1), bad=(2, 3), where=where), validate=remembering(seen))
    assert learned.record["skipped"] == 2
    assert [line["skipped"] for line in log(tmp_path / "run")] == [0, 0, 1, 2, 2, 2]
    assert [line["bad_in_a_row"] for line in log(tmp_path / "run")] == [0, 0, 1, 2, 0, 0]
    assert weights.equal(seen[1], seen[2])
    assert weights.equal(seen[1], seen[3])
    assert not weights.equal(seen[3], seen[4])
    assert all(weights.finite(theta) for theta in seen)


def test_ten_bad_steps_end_the_run_with_the_weights_of_before(run: Callable[..., Learner], tmp_path: Path) -> None:
    seen: list[Weights] = []
    plan = replace(PLAN, steps=40, validations=40, checkpoints=4)
    falling = Stumbling(inner=Inner(steps=0), bad=tuple(range(3, 40)))
    with pytest.raises(DivergedError) as caught:
        run(falling, plan, validate=remembering(seen))
    newest = checkpoint.newest(tmp_path / "run" / "checkpoints")
    assert newest is not None
    assert newest.name == f"step_{3 + PATIENCE_NAN}"
    assert str(newest) in str(caught.value)
    assert "\n" not in str(caught.value)
    tensors, _ = checkpoint.load(newest)
    assert weights.equal(weights.pick_inside(tensors, "theta/"), seen[2])
    with pytest.raises(DivergedError):
        run(falling, plan, validate=remembering(seen), resume=True)


# What is kept, and when it ends.


def test_the_best_weights_are_kept(run: Callable[..., Learner]) -> None:
    seen: list[Weights] = []
    learned = run(validate=remembering(seen, [0.1, 0.5, 0.3, 0.5, 0.4, 0.2]))
    assert weights.equal(learned.theta, seen[3])
    assert (learned.record["best_step"], learned.record["validation"]) == (4, 0.5)
    assert weights.equal(run(validate=None, folder=None).theta, seen[-1])


def test_later_weights_that_are_as_good_are_kept(run: Callable[..., Learner], tmp_path: Path) -> None:
    """Within two standard errors of the highest, trial by trial; not of the last that was kept, which could drift."""
    seen: list[Weights] = []
    answers = [[0.1, 0.2, 0.3], [0.6, 0.5, 0.7], [0.5, 0.6, 0.69], [0.5, 0.5, 0.6], [0.5, 0.4, 0.6], [0.4, 0.3, 0.5]]
    learned = run(validate=remembering(seen, answers))
    assert weights.equal(learned.theta, seen[3])
    assert (learned.record["best_step"], learned.record["validation"]) == (4, pytest.approx(1.6 / 3))
    lines = log(tmp_path / "run")
    assert [line["since_best"] for line in lines] == [0, 0, 0, 0, 1, 2]
    assert [line["validation"] for line in lines] == [pytest.approx(sum(answer) / 3) for answer in answers]
    assert weights.equal(
        run(plan=replace(PLAN, patience=1), validate=remembering([], answers), folder=None).theta, seen[3]
    )


def test_a_run_has_its_whole_length_unless_patience_is_asked_for(run: Callable[..., Learner]) -> None:
    """The highest of a few validations is lucky, and what is learned at the end, at a falling rate, is worth most."""
    seen: list[Weights] = []
    plan = Plan(steps=6, meta_batch=2, lr=1e-2, validations=6)
    learned = run(plan=plan, validate=remembering(seen, [0.5, 0.4, 0.4, 0.4, 0.4, 0.4]), folder=None)
    assert (learned.record["steps"], len(seen)) == (6, 6)


def test_patience_ends_a_run(run: Callable[..., Learner], tmp_path: Path) -> None:
    seen: list[Weights] = []
    plan = replace(PLAN, patience=2, checkpoints=1)
    learned = run(plan=plan, validate=remembering(seen, [0.5, 0.4, 0.3]))
    assert learned.record["steps"] == len(seen) == len(log(tmp_path / "run")) == 3
    assert weights.equal(learned.theta, seen[0])
    again = run(plan=plan, validate=stopping(1), resume=True)
    assert weights.equal(learned.theta, again.theta)


def test_validations_and_checkpoints_are_spread_evenly(run: Callable[..., Learner], tmp_path: Path) -> None:
    seen: list[Weights] = []
    run(plan=replace(PLAN, validations=2, checkpoints=3), validate=remembering(seen, [0.5, 0.4]))
    assert len(seen) == 2
    assert steps(tmp_path / "run") == ["step_4", "step_6"], "of steps 2, 4 and 6 two are kept"
    assert [line["since_best"] for line in log(tmp_path / "run")] == [0, 0, 0, 0, 0, 1]


def test_trackers_hear_what_the_log_says(run: Callable[..., Learner], tmp_path: Path) -> None:
    run(trackers=("tensorboard",), name="toy", validate=moved)
    events = EventAccumulator(str(next((tmp_path / "run" / "trackers" / "toy").glob("events.*"))))
    events.Reload()
    losses = [(event.step, event.value) for event in events.Scalars("loss")]
    assert losses == [(line["step"], pytest.approx(line["loss"])) for line in log(tmp_path / "run")]
    assert len(events.Scalars("validation")) == 6


@pytest.mark.parametrize(
    ("kind", "said"), [("tensorbord", "is not known; choose from"), ("clearml", "not installed; pip install clearml")]
)
def test_a_tracker_that_is_not_there(run: Callable[..., Learner], kind: str, said: str) -> None:
    with pytest.raises(InputError, match=f"--log-with {kind} .*{said}"):
        run(trackers=(kind,))


def test_a_run_by_tokens_ends_at_the_tokens(run: Callable[..., Learner], tmp_path: Path) -> None:
    first = run()
    budget = log(tmp_path / "run")[3]["tokens"] - 1
    by_tokens = run(plan=replace(PLAN, steps=None, tokens=budget), folder=tmp_path / "again")
    spent = [line["tokens"] for line in log(tmp_path / "again")]
    assert spent[-2] < budget <= spent[-1] == by_tokens.record["tokens"]
    assert by_tokens.record["steps"] == 4
    assert first.record["tokens"] > budget


def test_a_run_by_minutes_ends_in_time(run: Callable[..., Learner], tmp_path: Path) -> None:
    begun = time.perf_counter()
    learned = run(plan=replace(PLAN, steps=None, minutes=0.02))
    assert time.perf_counter() - begun >= learned.record["train_s"] >= 1.2
    seconds = [json.loads(line)["seconds"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(second < 1.2 for second in seconds[:-1])


def test_the_rate_rises_in_a_line_and_falls_as_a_cosine() -> None:
    plan = Plan(steps=1000, lr=0.5, warmup=0.1)
    done = torch.arange(1001, dtype=torch.float64) / 1000
    rates = torch.tensor([plan.rate(float(share)) for share in done], dtype=torch.float64)
    cosine = 0.25 * (1 + torch.cos(torch.pi * done))
    assert torch.allclose(rates[100:], cosine[100:])
    assert torch.allclose(rates[:99] / cosine[:99], (done[:99] + 1e-3) / 0.1)
    assert rates[0] > 0
    assert float(rates[-1]) == pytest.approx(0.0, abs=1e-12)
    assert int(rates.argmax()) in range(90, 101)
    assert 0 < plan.rate(0.0) < plan.rate(0.05) < plan.rate(0.1) > plan.rate(0.5) > plan.rate(0.9)


@pytest.mark.parametrize(
    "lengths",
    [{}, {"steps": 0}, {"steps": -3}, {"minutes": 0.0}, {"steps": 5, "minutes": 1.0}, {"steps": 5, "tokens": 5}],
)
def test_a_plan_has_one_length(lengths: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="one length"):
        Plan(**lengths)


def test_a_plan_deals_whole_passes() -> None:
    with pytest.raises(InputError, match="not a multiple of --tasks-per-pass 4"):
        Plan(steps=1, meta_batch=6, tasks_per_pass=4)


def test_a_meta_step_is_the_mean_over_its_episodes(net: Backbone, episodes: Episodes) -> None:
    theta = METHOD.init(net, torch.Generator().manual_seed(0))
    plan, alone = replace(PLAN, meta_batch=4), Ranks.alone()
    grad, loss, tokens = meta_step(METHOD, net, theta, episodes, plan, 2, alone)
    singles = [meta_step(METHOD, net, theta, episodes, replace(plan, meta_batch=1), n, alone) for n in range(8, 12)]
    near(loss, sum(one[1] for one in singles) / 4)
    assert tokens == sum(one[2] for one in singles)
    mean = weights.scale(weights.total([one[0] for one in singles]), 0.25)
    together, *_ = meta_step(METHOD, net, theta, episodes, replace(plan, tasks_per_pass=2), 2, alone)
    near(grad, mean, LAYERS)
    near(grad, together, INNER_STEPS)


@pytest.mark.parametrize("second_order", [False, True])
def test_two_threads_take_the_meta_step_of_one(net: Backbone, episodes: Episodes, second_order: bool) -> None:
    method = replace(METHOD, second_order=second_order)
    theta, plan = method.init(net, torch.Generator().manual_seed(0)), replace(PLAN, meta_batch=4)
    grad, loss, tokens = meta_step(method, net, theta, episodes, plan, 2, Ranks.alone())
    with on_threads(2):
        again, *figures = meta_step(method, net, theta, episodes, plan, 2, Ranks.alone())
    near(figures[0], loss, LAYERS)
    assert figures[1] == tokens
    near(grad, again, INNER_STEPS)


# Other processes, and processes that die.

SCRIPT = """
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from metanlp.algorithms import Maml, Multitask, ProtoNet
from metanlp.backbone import Backbone, Lora
from metanlp.episodes.sampling import Episodes, Sampling
from metanlp.algorithms.inner import Inner
from metanlp.training.meta_train import Plan, meta_train
from metanlp.training.processes import Ranks
from metanlp.tasks.taskset import read


def validate(theta):
    return [float(sum(value.abs().sum() for key, value in theta.items() if "lora_B" in key))]


def main(ranks, tiny, steps, folders):
    net = Backbone.load(tiny, Lora(rank=4, alpha=8), precision="fp32")
    tasks = read("mini/emotions,mini/answer_match,mini/intents_home", data_root=None)
    episodes = Episodes(tasks, net.encode, Sampling(shots=(1, 2), queries=2, ways=3), seed=3)
    others = {"multitask": Multitask(), "protonet": ProtoNet()}
    for folder in map(Path, folders):
        name, _, seed = folder.name.partition(".")
        plan = Plan(steps=steps, meta_batch=3, lr=1e-2, validations=4, patience=0, checkpoints=-(-steps // 3),
                    exact=name != "fast")
        method = others.get(name, Maml(inner=Inner(steps=1)))
        learned = meta_train(method, net, episodes, plan, validate=validate, folder=folder, resume=True,
                             seed=int(seed or 1), ranks=ranks)
        save_file(learned.theta, folder / f"rank_{ranks.index}.safetensors")


if __name__ == "__main__":
    ranks = Ranks.start(cpu=True)
    assert ranks.size == int(sys.argv[1]), f"{ranks.size} processes, not {sys.argv[1]}"
    main(ranks, sys.argv[2], int(sys.argv[3]), sys.argv[4:])
    ranks.close()
"""


def words(folder: Path, size: int, tiny: Path, steps: int, *names: str) -> list[str]:
    """The command line of `size` processes that run the script into folders of these names."""
    (folder / "script.py").write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(size)] if size > 1 else []
    script = [str(folder / "script.py"), str(size), str(tiny), str(steps)]
    return [sys.executable, *launch, *script, *(str(folder / name) for name in names)]


def environment() -> dict[str, str]:
    root = str(Path(next(iter(metanlp.__path__))).parent)
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": ""}


def here(tiny: Path, folder: Path, steps: int) -> Weights:
    """θ that one process learns: this one."""
    names: dict[str, Any] = {"__name__": "script"}
    exec(SCRIPT, names)
    names["main"](Ranks(0, 1, torch.device("cpu")), str(tiny), steps, [folder])
    return load_file(folder / "rank_0.safetensors")


def launched(folder: Path, size: int, tiny: Path, steps: int, *names: str) -> None:
    ended = subprocess.run(
        words(folder, size, tiny, steps, *names), env=environment(), capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr


def read_ranks(folder: Path, size: int) -> list[Weights]:
    return [load_file(folder / f"rank_{rank}.safetensors") for rank in range(size)]


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_more_processes_learn_what_one_learns(tiny: Path, tmp_path: Path, size: int) -> None:
    """Three passes a step: with four processes one has none."""
    one, *others = (here(tiny, tmp_path / "one" / name, 4) for name in ("maml", "multitask", "protonet"))
    shutil.copytree(tmp_path / "one" / "maml", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step_4")
    forked(size, SCRIPT, size, tiny, 4, *(tmp_path / name for name in ("maml", "multitask", "protonet", "fast", "cut")))
    for name, alone in zip(("maml", "multitask", "protonet"), (one, *others), strict=True):
        assert all(weights.equal(alone, theta) for theta in read_ranks(tmp_path / name, size)), name
        assert log(tmp_path / name) == log(tmp_path / "one" / name)
    assert all(weights.equal(one, theta) for theta in read_ranks(tmp_path / "cut", size)), "one process, resumed"
    assert log(tmp_path / "cut") == log(tmp_path / "one" / "maml")
    fast = read_ranks(tmp_path / "fast", size)
    assert all(weights.equal(fast[0], theta) for theta in fast)
    for key, value in one.items():
        near(fast[0][key], value, INNER_STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_killed_ten_times_and_resumed_is_undisturbed(tiny: Path, tmp_path: Path, size: int) -> None:
    """SIGKILL at random moments, many of them inside a save: a checkpoint is written every third step."""
    chance, count = random.Random(size), 90
    whole = here(tiny, tmp_path / "whole", count)
    path = tmp_path / "killed" / "metrics.jsonl"
    for _ in range(10):
        wanted = newest_step(tmp_path / "killed") + chance.randint(4, 8)
        child = subprocess.Popen(words(tmp_path, size, tiny, count, "killed"), env=environment(), process_group=0)
        while child.poll() is None and (len(path.read_bytes().splitlines()) if path.exists() else 0) < wanted:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        assert child.poll() is None, "it ended before it could be killed"
        kill_family(child.pid)
        child.wait()
    assert newest_step(tmp_path / "killed") < count
    launched(tmp_path, size, tiny, count, "killed")
    for rank in range(size):
        assert weights.equal(load_file(tmp_path / "killed" / f"rank_{rank}.safetensors"), whole)
    assert log(tmp_path / "killed") == log(tmp_path / "whole")


def kill_family(pid: int) -> None:
    """A process and its children: torchrun gives each of its own a session."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for each in (pid, *children):
        os.kill(each, signal.SIGKILL)


def newest_step(folder: Path) -> int:
    found = checkpoint.newest(folder / "checkpoints")
    return int(found.name.removeprefix("step_")) if found else 0
