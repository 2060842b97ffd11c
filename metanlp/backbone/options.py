"""Options of the backbone."""

from __future__ import annotations

from dataclasses import dataclass

from metanlp.backbone.lora import Lora
from metanlp.backbone.quantize import Precision, Quantize


@dataclass(frozen=True)
class Options:
    """How the backbone is used; saved with a learner."""

    adapt: Lora = Lora()  # the adapters
    views: tuple[str, ...] = ()  # what is read off the encoder; () takes `default_views`
    precision: Precision = "auto"  # of the frozen weights; adapters and attention on CPUs are always fp32
    max_length: int = 128  # longer examples are cut, in tokens
    prompt: str | None = None  # in front of every example; None takes what the model's folder says
    gradient_checkpoint: bool = False  # compute a pass again, part by part, for its gradients: slower, in less memory
    quantize: Quantize = "none"  # of the frozen weights, by bitsandbytes
