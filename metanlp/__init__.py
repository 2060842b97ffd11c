"""metanlp: learn an adapter on many tasks, so that a new task needs a handful of examples and about a second.

The public names; each is imported when it is first used, so that `import metanlp` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metanlp.algorithms import Finetune, Frozen, Maml, Multitask, ProtoNet
    from metanlp.backbone import Backbone, Lora
    from metanlp.episodes import Episodes, Sampling
    from metanlp.errors import DamagedError, DivergedError, InputError, StorageError
    from metanlp.exams import Protocol
    from metanlp.inner import Inner
    from metanlp.learner import Adapted, Learner
    from metanlp.meta_test import Report, meta_test
    from metanlp.meta_train import Plan, meta_train
    from metanlp.options import Experiment
    from metanlp.tasks.mini import read_mini
    from metanlp.tasks.taskset import TaskSet
    from metanlp.types import Roles, Task

HOME = {
    "Adapted": "learner", "Backbone": "backbone", "DamagedError": "errors", "DivergedError": "errors",
    "Episodes": "episodes", "Experiment": "options", "Finetune": "algorithms", "Frozen": "algorithms",
    "Inner": "inner", "InputError": "errors", "Learner": "learner", "Lora": "backbone", "Maml": "algorithms",
    "Multitask": "algorithms", "Plan": "meta_train", "ProtoNet": "algorithms", "Protocol": "exams", "Report": "meta_test",
    "Roles": "types", "Sampling": "episodes", "StorageError": "errors", "Task": "types", "TaskSet": "tasks.taskset",
    "meta_test": "meta_test", "meta_train": "meta_train", "read_mini": "tasks.mini",
}  # fmt: skip

__all__ = [
    "Adapted", "Backbone", "DamagedError", "DivergedError", "Episodes", "Experiment", "Finetune", "Frozen", "Inner",
    "InputError", "Learner", "Lora", "Maml", "Multitask", "Plan", "ProtoNet", "Protocol", "Report", "Roles", "Sampling",
    "StorageError", "Task", "TaskSet", "meta_test", "meta_train", "read_mini",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in HOME:
        raise AttributeError(f"module 'metanlp' has no attribute {name!r}")
    return getattr(import_module(f"metanlp.{HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
