"""metanlp: learn an adapter on many tasks, so that a new task needs a handful of examples and about a second.

The public names; each is imported when it is first used, so that `import metanlp` takes no time.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metanlp.algorithms import (
        Anil,
        Finetune,
        Frozen,
        Hypernet,
        LearnedOptimizer,
        Maml,
        Mapping,
        Matching,
        Memory,
        MetaSgd,
        Multitask,
        ProtoNet,
        Reptile,
        Siamese,
    )
    from metanlp.backbone import Backbone, Lora
    from metanlp.classifier import FewShotClassifier
    from metanlp.episodes import Episodes, Sampling
    from metanlp.errors import DamagedError, DivergedError, InputError, StorageError
    from metanlp.exams import Protocol
    from metanlp.export import export
    from metanlp.inner import Inner
    from metanlp.learner import Adapted, Learner
    from metanlp.meta_test import Report, meta_test
    from metanlp.meta_train import Plan, meta_train
    from metanlp.options import Experiment
    from metanlp.publish import publish
    from metanlp.rivals import Llm, SetFit
    from metanlp.tasks.mini import read_mini
    from metanlp.tasks.taskset import TaskSet
    from metanlp.types import Roles, Task

NAMES = {
    "algorithms": (
        "Anil", "Finetune", "Frozen", "Hypernet", "LearnedOptimizer", "Maml", "Mapping", "Matching", "Memory",
        "MetaSgd", "Multitask", "ProtoNet", "Reptile", "Siamese",
    ),
    "backbone": ("Backbone", "Lora"),
    "classifier": ("FewShotClassifier",),
    "episodes": ("Episodes", "Sampling"),
    "errors": ("DamagedError", "DivergedError", "InputError", "StorageError"),
    "exams": ("Protocol",),
    "export": ("export",),
    "inner": ("Inner",),
    "learner": ("Adapted", "Learner"),
    "meta_test": ("Report", "meta_test"),
    "meta_train": ("Plan", "meta_train"),
    "options": ("Experiment",),
    "publish": ("publish",),
    "rivals": ("Llm", "SetFit"),
    "tasks.mini": ("read_mini",),
    "tasks.taskset": ("TaskSet",),
    "types": ("Roles", "Task"),
}  # fmt: skip
HOME = {name: module for module, names in NAMES.items() for name in names}

__all__ = [
    "Adapted", "Anil", "Backbone", "DamagedError", "DivergedError", "Episodes", "Experiment", "FewShotClassifier",
    "Finetune", "Frozen", "Hypernet", "Inner", "InputError", "LearnedOptimizer", "Learner", "Llm", "Lora", "Maml",
    "Mapping", "Matching", "Memory", "MetaSgd", "Multitask", "Plan", "ProtoNet", "Protocol", "Report", "Reptile",
    "Roles", "Sampling", "SetFit", "Siamese", "StorageError", "Task", "TaskSet", "export", "meta_test", "meta_train",
    "publish", "read_mini",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in HOME:
        raise AttributeError(f"module 'metanlp' has no attribute {name!r}")
    return getattr(import_module(f"metanlp.{HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Index(ModuleType):
    """Importing a module puts it here under its name, but not in the place of a function, as `meta_train` is one."""

    def __setattr__(self, name: str, value: object) -> None:
        if name not in HOME:
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Index
