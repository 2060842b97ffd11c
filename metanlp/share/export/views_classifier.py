"""The whole model in plain torch, and the same as a classifier of transformers. A pipeline that is exported with its
code has a copy of this file, which therefore imports nothing of ours.

Letters: B texts, L tokens, H numbers a token, D numbers a view, V views, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

OF_A_TEXT = ("first", "second", "phrase")  # poolings that need to know which text a token belongs to


class View(Protocol):
    """What is read off hidden states."""

    @property
    def adapted(self) -> bool: ...  # of the model with its adapter, or as it came
    @property
    def layer(self) -> int: ...  # number of layers passed, from 1
    @property
    def pooling(self) -> str: ...  # all, first, second, phrase, cls, last, or sentence
    @property
    def of(self) -> int: ...  # number of the set of adapters, from 1


class Reading(nn.Module):
    """From hidden states of padded texts to scores, by a linear head on the views."""

    weight: Tensor  # (K, V·D)
    bias: Tensor  # (K,)

    def __init__(
        self, views: Sequence[View], width: int, weight: Tensor, bias: Tensor, pooling: str = "all", dense: Any = None
    ) -> None:
        super().__init__()
        self.views, self.width = tuple(views), width
        self.pooling, self.dense = pooling, dense  # of a view that reads a sentence as sentence-transformers does
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    @property
    def by_text(self) -> bool:
        """Whether a view needs to know which text a token belongs to."""
        return any(view.pooling in OF_A_TEXT for view in self.views)

    def forward(self, frozen: Any, adapted: Any, mask: Tensor, segments: Tensor | None = None) -> Tensor:
        """Hidden states by layer, (B, L, H) each, of the model as it came and with each set of adapters; mask and
        segments (B, L) -> scores (B, K)."""
        states = [(adapted[view.of - 1] if view.adapted else frozen)[view.layer] for view in self.views]
        read = [self.read(state, view, mask, segments) for state, view in zip(states, self.views, strict=True)]
        return torch.cat([normalize(x, dim=-1) for x in read], dim=-1) @ self.weight.T + self.bias

    def read(self, states: Tensor, view: View, mask: Tensor, segments: Tensor | None) -> Tensor:
        """What a view reads: (B, D)."""
        whole = view.pooling == "sentence"
        weight = chosen(self.pooling if whole else view.pooling, mask.to(states.dtype), segments)
        x = (states * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)
        x = self.dense(x) if whole and self.dense is not None else x
        return pad(x, (0, self.width - x.shape[-1]))


def chosen(pooling: str, mask: Tensor, segments: Tensor | None) -> Tensor:
    """1 at the tokens that a pooling reads, or at all where a text has none of these: (B, L)."""
    place = mask.cumsum(1) - 1
    if segments is not None and pooling in OF_A_TEXT:
        found = mask * in_text(pooling, segments)
    elif pooling in ("cls", "last"):
        found = mask * (place == (0 if pooling == "cls" else mask.sum(1, keepdim=True) - 1))
    else:
        found = mask
    return torch.where(found.sum(1, keepdim=True) == 0, mask, found)


def in_text(pooling: str, segments: Tensor) -> Tensor:
    """Whether a token is of the first text, the second, or the second where it stands in the first: (B, L)."""
    phrase, second = segments == 3, segments == 2
    if pooling == "first":
        return (segments == 1) | phrase
    return phrase | (second & ~phrase.any(1, keepdim=True)) if pooling == "phrase" else second


class Scorer(nn.Module):
    """The whole model, called as those of transformers, with `segments` where a view needs them: (B, L) -> (B, K). The
    model as it came may be None where no view reads it; `merged` are those with a set of adapters each.
    `first_position` is the number of the first token's place; None where the model counts by itself."""

    def __init__(self, plain: Any, merged: Sequence[Any], reading: Reading, first_position: int | None) -> None:
        super().__init__()
        frozen = any(not view.adapted for view in reading.views)
        adapted = any(view.adapted for view in reading.views)
        self.plain, self.merged = plain if frozen else None, nn.ModuleList(merged if adapted else [])
        self.reading, self.first_position = reading, first_position

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        segments: Tensor | None = None,
    ) -> Tensor:
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "output_hidden_states": True}
        given |= {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        if self.first_position is not None:
            given["position_ids"] = (attention_mask.cumsum(1) - 1).clamp(min=0) + self.first_position
        frozen = self.plain and self.plain(**given).hidden_states
        adapted = [model(**given).hidden_states for model in self.merged]
        return self.reading(frozen, adapted, attention_mask, segments)


class ViewsConfig(PretrainedConfig):
    """Of a classifier on views."""

    model_type = "metanlp_views"

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,  # the pretrained model's own configuration
        views: Sequence[Sequence[Any]] = (),  # each adapted, layer, pooling, number of the set of adapters
        width: int = 0,  # D
        first_position: int | None = None,
        **others: Any,
    ) -> None:
        self.encoder, self.views, self.width, self.first_position = encoder or {}, list(views), width, first_position
        super().__init__(**others)


class OneView:
    """A view out of a configuration."""

    def __init__(self, adapted: bool, layer: int, pooling: str, of: int) -> None:
        self.adapted, self.layer, self.pooling, self.of = adapted, layer, pooling, of


class ViewsClassifier(PreTrainedModel):
    """The encoder as it came and with each set of adapters merged, and the head on what is read off them."""

    config_class = ViewsConfig

    def __init__(self, config: ViewsConfig) -> None:
        super().__init__(config)
        of = AutoConfig.for_model(**config.encoder)
        views = [OneView(*view) for view in config.views]
        plain = AutoModel.from_config(of) if any(not view.adapted for view in views) else None
        merged = [AutoModel.from_config(of) for _ in {view.of for view in views if view.adapted}]
        labels = cast(int, config.num_labels)
        head = torch.zeros(labels, len(views) * config.width), torch.zeros(labels)
        self.scorer = Scorer(plain, merged, Reading(views, config.width, *head), config.first_position)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None, **_: Any
    ) -> SequenceClassifierOutput:
        scores = self.scorer(input_ids, attention_mask, token_type_ids)
        return SequenceClassifierOutput(logits=scores)
