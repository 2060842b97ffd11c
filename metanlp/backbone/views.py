"""What is read off an encoder: which layer, with or without adapters, and over which tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from metanlp.errors import InputError
from metanlp.types import Batch

Pooling = Literal["all", "first", "second", "cls", "last", "sentence"]


@dataclass(frozen=True)
class View:
    """One way of reading a vector off the encoder. Written `frozen.4.second` or `adapted.6.all`."""

    adapted: bool  # with the adapters, or the pretrained model as it came
    layer: int  # number of layers passed, from 1
    # Mean over all tokens, over the first or the second text; the first or the last token alone; or as the folder of a
    # sentence-transformers model has it, with its dense layers.
    pooling: Pooling

    def __str__(self) -> str:
        return f"{'adapted' if self.adapted else 'frozen'}.{self.layer}.{self.pooling}"

    @staticmethod
    def parse(text: str) -> View:
        kind, _, rest = text.partition(".")
        layer, _, pooling = rest.partition(".")
        if kind not in ("frozen", "adapted") or not layer.isdigit() or pooling not in get_args(Pooling):
            raise InputError(
                f"view {text!r} is not of the form KIND.LAYER.POOLING with KIND frozen or adapted, LAYER a number "
                f"from 1 and POOLING one of {', '.join(get_args(Pooling))}; for example adapted.6.all"
            )
        return View(kind == "adapted", int(layer), cast(Pooling, pooling))


def default_views(depth: int, pooling: str = "all") -> tuple[str, ...]:
    """The last layer, adapted and frozen, and the frozen middle: sentiment shows best at two thirds of the depth, the
    type of a marked phrase (the second text) at half of it."""
    two_thirds, half = max(1, round(depth * 2 / 3)), max(1, depth // 2)
    adapted = [f"adapted.{depth}.{pooling}", f"adapted.{depth}.second"]
    frozen = [f"frozen.{depth}.{pooling}", f"frozen.{two_thirds}.all", f"frozen.{half}.second"]
    return *adapted, *dict.fromkeys(frozen)


def pool(hidden: Tensor, batch: Batch, pooling: str) -> Tensor:
    """Mean over some tokens of each text, or over those of each word where words get the scores: (P, H) -> (N, H),
    fp32. A text without such tokens reads all."""
    if batch.unit_of is not None:
        return mean_of(hidden, batch.unit_of, len(batch.task_of) + 1)[:-1]
    masks = {
        "first": lambda: batch.segments == 1,
        "second": lambda: batch.segments == 2,
        "cls": lambda: batch.positions == 0,
        "last": lambda: batch.positions == batch.lengths[batch.example_of] - 1,
    }
    weight = masks[pooling]().float() if pooling in masks else torch.ones_like(batch.ids, dtype=torch.float32)
    sums = weight.new_zeros(len(batch.lengths)).index_add(0, batch.example_of, weight)
    weight = torch.where(sums[batch.example_of] == 0, 1.0, weight)
    return mean_of(hidden, batch.example_of, len(batch.lengths), weight)


def mean_of(hidden: Tensor, owner: Tensor, count: int, weight: Tensor | None = None) -> Tensor:
    """Weighted mean of the tokens of each owner, zeros for one without: (P, H), (P,), (P,) -> (count, H), fp32."""
    weight = torch.ones_like(owner, dtype=torch.float32) if weight is None else weight
    sums = weight.new_zeros(count).index_add(0, owner, weight)
    weight = weight / sums[owner]
    return hidden.new_zeros(count, hidden.shape[1], dtype=torch.float32).index_add(
        0, owner, hidden.float() * weight[:, None]
    )
