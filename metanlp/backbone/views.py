"""Views: vectors read off the encoder, of a layer, with or without adapters, over some tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from metanlp.backbone.phrase import FIRST, PHRASE, SECOND
from metanlp.core.errors import InputError
from metanlp.core.types import Batch

Pooling = Literal["all", "first", "second", "phrase", "cls", "last", "sentence"]
SETS = 9  # most sets of adapters
KIND = re.compile(rf"frozen|adapted([2-{SETS}]?)")


@dataclass(frozen=True)
class View:
    """A vector read off the encoder, written `frozen.4.second`, `adapted.6.all`, or, where a learner has several sets
    of adapters, `adapted2.6.all` for the second."""

    adapted: bool  # with the adapters, or the pretrained model as it came
    layer: int  # number of layers passed, from 1
    # Mean over all tokens, or the first or second text, or the second where it stands in the first, with a token on
    # either side; the first or last token; or pooling and dense layers of a sentence-transformers folder.
    pooling: Pooling
    of: int = 1  # number of the set of adapters

    def __str__(self) -> str:
        kind = f"adapted{self.of if self.of > 1 else ''}" if self.adapted else "frozen"
        return f"{kind}.{self.layer}.{self.pooling}"

    @staticmethod
    def parse(text: str) -> View:
        kind, _, rest = text.partition(".")
        layer, _, pooling = rest.partition(".")
        found = KIND.fullmatch(kind)
        if not found or not layer.isdigit() or pooling not in get_args(Pooling):
            raise InputError(
                f"view {text!r} is not of the form KIND.LAYER.POOLING with KIND frozen or adapted (adapted2 to "
                f"adapted{SETS} for further sets of adapters), LAYER a number "
                f"from 1 and POOLING one of {', '.join(get_args(Pooling))}; for example adapted.6.all"
            )
        return View(kind != "frozen", int(layer), cast(Pooling, pooling), int(found[1] or 1))


def adapter_sets(views: Iterable[str]) -> int:
    """Sets of adapters of a backbone with these views."""
    return max((View.parse(view).of for view in views), default=1)


def default_views(depth: int, pooling: str = "all") -> tuple[str, ...]:
    """The last layer, adapted and frozen, and frozen middle layers: sentiment is read best at two thirds of the depth,
    the type of a marked phrase (the second text) at half of it, and, in its sentence, at two thirds."""
    two_thirds, half = max(1, round(depth * 2 / 3)), max(1, depth // 2)
    adapted = [f"adapted.{depth}.{pooling}", f"adapted.{depth}.second"]
    frozen = [f"frozen.{depth}.{pooling}", f"frozen.{two_thirds}.all", f"frozen.{half}.second"]
    return *adapted, *dict.fromkeys([*frozen, f"frozen.{two_thirds}.phrase"])


def pool(hidden: Tensor, batch: Batch, pooling: str) -> Tensor:
    """Mean over some tokens of each text, all where it has none of them, or over those of each word where words get
    scores: (P, H) -> (N, H), fp32."""
    if batch.unit_of is not None:
        weight = torch.ones_like(batch.unit_of, dtype=torch.float32)
        return mean_of(hidden, batch.unit_of, len(batch.task_of) + 1, weight)[:-1]
    masks = {
        "first": lambda: (batch.segments == FIRST) | (batch.segments == PHRASE),
        "second": lambda: batch.segments == SECOND,
        "phrase": lambda: in_phrase(batch),
        "cls": lambda: batch.positions == 0,
        "last": lambda: batch.positions == batch.lengths[batch.example_of] - 1,
    }
    weight = masks[pooling]().float() if pooling in masks else torch.ones_like(batch.ids, dtype=torch.float32)
    sums = weight.new_zeros(len(batch.lengths)).index_add(0, batch.example_of, weight)
    weight = torch.where(sums[batch.example_of] == 0, 1.0, weight)
    return mean_of(hidden, batch.example_of, len(batch.lengths), weight)


def in_phrase(batch: Batch) -> Tensor:
    """The tokens of a phrase in the first text; of the second text where it is no phrase of the first: (P,)."""
    phrase = batch.segments == PHRASE
    has = torch.zeros_like(batch.lengths).index_add(0, batch.example_of, phrase.to(batch.lengths.dtype)) > 0
    return torch.where(has[batch.example_of], phrase, batch.segments == SECOND)


def mean_of(hidden: Tensor, owner: Tensor, count: int, weight: Tensor) -> Tensor:
    """Weighted mean of the tokens of each owner, zeros for one without: (P, H), (P,), (P,) -> (count, H), fp32."""
    sums = weight.new_zeros(count).index_add(0, owner, weight)
    weighted = hidden.float() * (weight / sums[owner])[:, None]
    return weighted.new_zeros(count, hidden.shape[1]).index_add(0, owner, weighted)
