"""The methods, by name."""

from metanlp.algorithms.base import Algorithm
from metanlp.algorithms.finetune import Finetune
from metanlp.algorithms.frozen import Frozen
from metanlp.algorithms.hypernet import Hypernet
from metanlp.algorithms.inner import InnerLoop
from metanlp.algorithms.learned_optimizer import LearnedOptimizer
from metanlp.algorithms.maml import Anil, Maml
from metanlp.algorithms.mapping import Mapping
from metanlp.algorithms.matching import Matching
from metanlp.algorithms.memory_network import Memory
from metanlp.algorithms.meta_sgd import MetaSgd
from metanlp.algorithms.multitask import Multitask
from metanlp.algorithms.protonet import ProtoNet
from metanlp.algorithms.reptile import Reptile
from metanlp.algorithms.siamese import Siamese

ALGORITHMS: dict[str, type[Algorithm]] = {
    "frozen": Frozen,
    "finetune": Finetune,
    "multitask": Multitask,
    "protonet": ProtoNet,
    "matching": Matching,
    "siamese": Siamese,
    "maml": Maml,
    "anil": Anil,
    "meta_sgd": MetaSgd,
    "reptile": Reptile,
    "learned_optimizer": LearnedOptimizer,
    "mapping": Mapping,
    "memory": Memory,
    "hypernet": Hypernet,
}
BASELINES = tuple(name for name, kind in ALGORITHMS.items() if not kind.meta_trains)

__all__ = [
    "ALGORITHMS", "BASELINES", "Algorithm", "Anil", "Finetune", "Frozen", "Hypernet", "InnerLoop", "LearnedOptimizer",
    "Maml", "Mapping", "Matching", "Memory", "MetaSgd", "Multitask", "ProtoNet", "Reptile", "Siamese",
]  # fmt: skip
