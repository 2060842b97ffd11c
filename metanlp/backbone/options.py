"""Options of the backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from metanlp.backbone.lora import Lora
from metanlp.backbone.quantize import Precision, Quantize
from metanlp.core.errors import InputError

SHORTEST = 6  # tokens: one of each text of a pair, and four of the model's own


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

    def __post_init__(self) -> None:
        check_length(self.max_length, SHORTEST)


@dataclass(frozen=True)
class Writing:
    """How a model that writes is used; saved with a learner."""

    opens: Literal["AutoModelForSeq2SeqLM", "AutoModelForCausalLM"]  # the class of transformers that opens it
    adapt: Lora = Lora(layers="all", targets="all linear")  # the adapters
    prompt: str = ""  # in front of every source, or around {source}; it may name {source_lang} and {target_lang}
    languages: tuple[str, ...] = ()  # of source and target; () in a learner, and where nobody said
    max_length: int = 64  # longer sources and targets are cut, in tokens

    def __post_init__(self) -> None:
        check_length(self.max_length, 2)
        if len(self.languages) not in (0, 2):
            raise InputError(f"languages are {list(self.languages)}; give those of source and target, or none")


def check_length(length: Any, least: int) -> None:
    """Raises InputError for a number of tokens that no text can be cut to."""
    if type(length) is not int or length < least:
        raise InputError(f"texts can't be cut to {length!r} tokens; give a whole number from {least} up")
