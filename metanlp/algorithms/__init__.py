"""The methods, by name."""

from metanlp.algorithms.base import Algorithm
from metanlp.algorithms.finetune import Finetune
from metanlp.algorithms.frozen import Frozen
from metanlp.algorithms.learned_optimizer import LearnedOptimizer
from metanlp.algorithms.maml import Maml
from metanlp.algorithms.multitask import Multitask
from metanlp.algorithms.protonet import ProtoNet

ALGORITHMS: dict[str, type[Algorithm]] = {
    "frozen": Frozen,
    "finetune": Finetune,
    "multitask": Multitask,
    "protonet": ProtoNet,
    "maml": Maml,
    "learned_optimizer": LearnedOptimizer,
}
BASELINES = ("frozen", "finetune")  # need no meta-training

__all__ = [
    "ALGORITHMS", "BASELINES", "Algorithm", "Finetune", "Frozen", "LearnedOptimizer", "Maml", "Multitask", "ProtoNet",
]  # fmt: skip
