"""metanlp: learn an adapter on many tasks, so that a new task needs a handful of examples and about a second.

The public names; each is imported when it is first used, so that `import metanlp` takes no time.
"""

from __future__ import annotations

from importlib import import_module
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
    from metanlp.algorithms.base import Inner
    from metanlp.algorithms.check import check_algorithm
    from metanlp.backbone import Backbone, Lora
    from metanlp.core.errors import DamagedError, DivergedError, InputError, StorageError
    from metanlp.core.types import Roles, Task
    from metanlp.episodes.sampling import Episodes, Sampling
    from metanlp.evaluation.external import Llm, SetFit
    from metanlp.evaluation.held_out import Protocol
    from metanlp.evaluation.meta_test import meta_test
    from metanlp.evaluation.results import Report
    from metanlp.experiment.options import Experiment, Pretraining, Trail
    from metanlp.experiment.pretrain import pretrain
    from metanlp.experiment.trail import trail
    from metanlp.learner.joining import join
    from metanlp.learner.learner import Adapted, Learner
    from metanlp.learner.sklearn_classifier import FewShotClassifier
    from metanlp.share.export import export
    from metanlp.share.publish import publish
    from metanlp.tasks.sources.mini import read_mini
    from metanlp.tasks.taskset import TaskSet
    from metanlp.training.meta_train import Plan, meta_train

NAMES = {
    "algorithms": (
        "Anil", "Finetune", "Frozen", "Hypernet", "LearnedOptimizer", "Maml", "Mapping", "Matching", "Memory",
        "MetaSgd", "Multitask", "ProtoNet", "Reptile", "Siamese",
    ),
    "backbone": ("Backbone", "Lora"),
    "core.errors": ("DamagedError", "DivergedError", "InputError", "StorageError"),
    "core.types": ("Roles", "Task"),
    "episodes.sampling": ("Episodes", "Sampling"),
    "algorithms.base": ("Inner",),
    "algorithms.check": ("check_algorithm",),
    "learner.joining": ("join",),
    "learner.learner": ("Adapted", "Learner"),
    "learner.sklearn_classifier": ("FewShotClassifier",),
    "training.meta_train": ("Plan", "meta_train"),
    "evaluation.external": ("Llm", "SetFit"),
    "evaluation.held_out": ("Protocol",),
    "evaluation.meta_test": ("meta_test",),
    "evaluation.results": ("Report",),
    "experiment.options": ("Experiment", "Pretraining", "Trail"),
    "experiment.pretrain": ("pretrain",),
    "experiment.trail": ("trail",),
    "share.export": ("export",),
    "share.publish": ("publish",),
    "tasks.sources.mini": ("read_mini",),
    "tasks.taskset": ("TaskSet",),
}  # fmt: skip
HOME = {name: module for module, names in NAMES.items() for name in names}

__all__ = [
    "Adapted", "Anil", "Backbone", "DamagedError", "DivergedError", "Episodes", "Experiment", "FewShotClassifier",
    "Finetune", "Frozen", "Hypernet", "Inner", "InputError", "LearnedOptimizer", "Learner", "Llm", "Lora", "Maml",
    "Mapping", "Matching", "Memory", "MetaSgd", "Multitask", "Plan", "Pretraining", "ProtoNet", "Protocol", "Report",
    "Reptile", "Roles", "Sampling", "SetFit", "Siamese", "StorageError", "Task", "TaskSet", "Trail", "check_algorithm",
    "export", "join", "meta_test", "meta_train", "pretrain", "publish", "read_mini", "trail",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("metanlp.core.versions").versions()["metanlp"]
    if name not in HOME:
        raise AttributeError(f"module 'metanlp' has no attribute {name!r}")
    return getattr(import_module(f"metanlp.{HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
