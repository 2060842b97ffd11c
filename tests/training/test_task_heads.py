"""Linear heads of training tasks: made when a task is drawn, and as if they had been there from the first step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metanlp.algorithms import Finetune, Maml, Reptile
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone
from metanlp.core import weights
from metanlp.core.types import Task, Weights
from metanlp.episodes.sampling import Episodes, Sampling
from metanlp.training import checkpoint
from metanlp.training.meta_train import Plan, meta_train
from metanlp.training.optimizer import OuterOptimizer
from metanlp.training.processes import Ranks
from metanlp.training.task_heads import COPIES, TaskHeads, rows_in_memory

SIZES = {"a/b": 3, "c": 2, "d": 5}
DRAWN = [{"c"}, {"c", "a/b"}, {"a/b"}, set[str](), {"d", "c"}, {"d"}]  # step by step
CPU = torch.device("cpu")


def heads_of(net: Backbone, method: Maml | Reptile | Finetune | None = None) -> TaskHeads:
    return TaskHeads(method or Maml(), net, 0.1, CPU)


def gradient(step: int, names: set[str], net: Backbone) -> Weights:
    """Of the heads of these tasks."""
    generator = torch.Generator().manual_seed(step)
    width = len(net.view_names) * net.width
    sizes = {f"tasks/{n}/{key}": (SIZES[n], *rest) for n in sorted(names) for key, rest in
             (("weight", (width,)), ("bias", ()))}  # fmt: skip
    return {key: torch.randn(size, generator=generator) for key, size in sizes.items()}


def walk(heads: TaskHeads, net: Backbone, steps: range) -> None:
    for step in steps:
        heads.of({name: SIZES[name] for name in sorted(DRAWN[step])})
        heads.step(gradient(step, DRAWN[step], net), 0.1 / (step + 1))


def test_heads_made_late_are_those_that_were_there_from_the_start(net: Backbone) -> None:
    """To the bit what an AdamW over the heads of all tasks gives, with gradients of zero where a task is not drawn."""
    heads = heads_of(net)
    fresh = heads.of(SIZES)
    assert not any(value.any() for value in fresh.values())
    whole, late = OuterOptimizer(fresh, 0.1), heads_of(net)
    for step, names in enumerate(DRAWN):
        whole.step(weights.zeros(fresh) | gradient(step, names, net), 0.1 / (step + 1))
    walk(late, net, range(len(DRAWN)))
    assert weights.equal(late.of(SIZES), whole.theta)
    assert list(late.sizes) == ["c", "a/b", "d"]


@pytest.mark.parametrize("at", [1, 4])
def test_restored_they_go_on_as_if_they_had_never_stopped(net: Backbone, at: int) -> None:
    whole, before, after = (heads_of(net) for _ in range(3))
    walk(whole, net, range(6))
    walk(before, net, range(at))
    after.restore(before.tensors(), before.sizes)
    walk(after, net, range(at, 6))
    assert weights.equal(after.tensors(), whole.tensors())
    assert after.sizes == whole.sizes


def test_methods_without_task_heads_have_none(net: Backbone) -> None:
    for method in (Reptile(), Finetune()):
        heads = heads_of(net, method)
        assert heads.of(SIZES) == heads.tensors() == heads.sizes == {}
        heads.step({}, 0.1)


def test_theta_and_checkpoints_hold_the_tasks_that_were_drawn(
    net: Backbone, toy_tasks: tuple[Task, ...], tmp_path: Path
) -> None:
    """A hundred tasks more that are never drawn cost nothing, and heads are saved and stepped on after a resume."""
    episodes = Episodes(toy_tasks, net.encode, Sampling(shots=(1, 2), queries=2, ways=3), seed=3)
    plan = Plan(steps=3, meta_batch=1, lr=1e-2, validations=0, checkpoints=3)
    learned = meta_train(Maml(Inner(1)), net, episodes, plan, folder=tmp_path, seed=1, ranks=Ranks.alone())
    assert not weights.pick(learned.theta, "tasks/")
    tensors, state = checkpoint.load(tmp_path / "checkpoints" / "step_3")
    drawn = [episodes[n].task for n in range(3)]
    assert list(state["task_heads"]) == list(dict.fromkeys(drawn))
    assert state["task_heads"] == {task.name: len(task.labels) for task in toy_tasks if task.name in drawn}
    rows = sum(state["task_heads"].values())
    assert {len(tensors[f"tasks/{part}/weight"]) for part in ("theta", "exp_avg", "exp_avg_sq")} == {rows}
    assert len(drawn) >= 2
    assert rows < sum(len(task.labels) for task in toy_tasks)


def test_the_names_of_what_will_be_drawn_are_those_of_the_episodes(net: Backbone, toy_tasks: tuple[Task, ...]) -> None:
    episodes = Episodes(toy_tasks, net.encode, Sampling(shots=(1, 2), queries=2), seed=3)
    expected = dict.fromkeys(episodes[n].task for n in range(4, 10))
    assert list(episodes.drawn(4, 6)) == list(expected)
    assert all(size == len(next(t for t in toy_tasks if t.name == name).labels)
               for name, size in episodes.drawn(4, 6).items())  # fmt: skip


def test_memory_is_that_of_the_tasks_that_can_be_drawn() -> None:
    assert rows_in_memory([2, 7, 3], 2) == COPIES * 10
    assert rows_in_memory([2, 7, 3], None) == rows_in_memory([2, 7, 3], 90) == COPIES * 12
