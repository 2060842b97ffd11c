"""A model all of whose weights learn: θ is `base/…`, by the names that weights have in the model's own files; tied ones
stand there once."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.utils import logging

from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Weights

PREFIX = "base/"


@dataclass(frozen=True)
class Size:
    """A model to be made."""

    layers: int = 4
    width: int = 256
    heads: int = 4

    def __post_init__(self) -> None:
        if min(self.layers, self.width, self.heads) < 1 or self.width % self.heads:
            raise InputError(
                f"a model of {self.layers} layers, width {self.width} and {self.heads} heads is not possible: all from "
                "1 up, the width a multiple of the heads"
            )


def whole(model: nn.Module) -> Weights:
    """θ as the model was loaded or made."""
    return {PREFIX + name: value.detach().clone() for name, value in model.named_parameters()}


def save_whole(kind: type[Any], config: Any, theta: Weights, tokenizer: Any, folder: Path) -> None:
    """A folder that transformers opens: a model of this class with the weights of θ, and its tokenizer."""
    with seeded(0, torch.device("cpu")):  # weights that are then replaced
        model = kind(deepcopy(config))
    model.load_state_dict(weights.pick_inside(weights.to(theta, torch.device("cpu")), PREFIX), strict=False)
    model.tie_weights()
    logging.disable_progress_bar()
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


@contextmanager
def seeded(seed: int, device: torch.device) -> Generator[None]:
    """Inside, torch draws from `seed`; outside nothing has changed."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
