"""The methods, by name."""

from metanlp.algorithms.base import Algorithm
from metanlp.algorithms.finetune import Finetune
from metanlp.algorithms.frozen import Frozen
from metanlp.algorithms.maml import Anil, Maml
from metanlp.algorithms.meta_sgd import MetaSgd
from metanlp.algorithms.multitask import Multitask
from metanlp.algorithms.protonet import ProtoNet
from metanlp.algorithms.reptile import Reptile

ALGORITHMS: dict[str, type[Algorithm]] = {
    "frozen": Frozen,
    "finetune": Finetune,
    "multitask": Multitask,
    "protonet": ProtoNet,
    "maml": Maml,
    "anil": Anil,
    "meta_sgd": MetaSgd,
    "reptile": Reptile,
}
BASELINES = ("frozen", "finetune")  # need no meta-training

__all__ = [
    "ALGORITHMS", "BASELINES", "Algorithm", "Anil", "Finetune", "Frozen", "Maml", "MetaSgd", "Multitask", "ProtoNet",
    "Reptile",
]  # fmt: skip
