"""The methods, by name."""

from metanlp.algorithms.base import Algorithm
from metanlp.algorithms.finetune import Finetune
from metanlp.algorithms.frozen import Frozen
from metanlp.algorithms.maml import Maml
from metanlp.algorithms.matching import Matching
from metanlp.algorithms.memory import Memory
from metanlp.algorithms.multitask import Multitask
from metanlp.algorithms.protonet import ProtoNet
from metanlp.algorithms.siamese import Siamese

ALGORITHMS: dict[str, type[Algorithm]] = {
    "frozen": Frozen,
    "finetune": Finetune,
    "multitask": Multitask,
    "protonet": ProtoNet,
    "maml": Maml,
    "matching": Matching,
    "siamese": Siamese,
    "memory": Memory,
}
BASELINES = ("frozen", "finetune")  # need no meta-training

__all__ = [
    "ALGORITHMS",
    "BASELINES",
    "Algorithm",
    "Finetune",
    "Frozen",
    "Maml",
    "Matching",
    "Memory",
    "Multitask",
    "ProtoNet",
    "Siamese",
]
