"""A pretrained model of either kind, by the options of its use: an encoder, or a model that writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from metanlp.backbone.causal import Causal
from metanlp.backbone.encoder import Backbone
from metanlp.backbone.options import Options, Writing
from metanlp.backbone.seq2seq import Seq2Seq
from metanlp.backbone.writer import Writer
from metanlp.core.errors import InputError
from metanlp.core.settings import from_json


def options_of(said: Mapping[str, Any]) -> Options | Writing:
    """Options as a file has them. Raises InputError."""
    return from_json(Writing if is_writing(said) else Options, dict(said))


def is_writing(said: Mapping[str, Any]) -> bool:
    """Whether options in a file are of a model that writes."""
    return "opens" in said


def open_model(name: str, options: Options | Writing, device: torch.device | str) -> Backbone | Writer:
    """Raises InputError where it can't be loaded."""
    if isinstance(options, Options):
        return Backbone.open(name, options, device)
    return kind_of(options.opens).open(name, options, device)


def kind_of(opens: str) -> type[Writer]:
    """The class of a model that writes."""
    return next(kind for kind in (Seq2Seq, Causal) if kind.opens == opens)


def encoder_of(net: Backbone | Writer) -> Backbone:
    """The same, where it is an encoder. Raises InputError for a model that writes."""
    if isinstance(net, Backbone):
        return net
    raise InputError(f"{net.name} is a model that writes, and this needs one that reads texts; give another learner")
