"""An adapted model taken apart into what other libraries have: the pretrained model, the same with its adapter merged,
the tokenizer, and a linear layer on what the views read. Another door of transformers and peft, as this is theirs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import normalize, pad
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from metanlp.algorithms import Algorithm, Frozen
from metanlp.backbone.origin import MINILM, folder_of
from metanlp.backbone.views import View
from metanlp.errors import InputError
from metanlp.learner import Adapted


@dataclass(frozen=True)
class Parts:
    """Everything is fp32 on the CPU."""

    folder: str  # of the pretrained model, or its id
    plain: nn.Module
    merged: nn.Module
    tokenizer: Any
    reading: Reading


def parts_of(adapted: Adapted, base: str | None) -> Parts:
    """`base` names another place for the pretrained model than its public id. Raises InputError for a model whose
    scores are no linear layer on what the views read."""
    check_exportable(adapted)
    folder = folder_of(base or ("minilm" if adapted.net.name == MINILM else adapted.net.name))
    logging.disable_progress_bar()
    with TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, of layers that a bare model need not have
        adapted.save(scratch)
        plain, changed = (_load(folder) for _ in range(2))
        merged = cast(nn.Module, PeftModel.from_pretrained(cast(Any, changed), scratch).merge_and_unload())
        tokenizer = cast(Any, AutoTokenizer).from_pretrained(folder)
    return Parts(folder, plain, merged.eval(), tokenizer, Reading.of(adapted, tokenizer))


def _load(folder: str) -> nn.Module:
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return cast(nn.Module, model).eval().requires_grad_(False)


def check_exportable(adapted: Adapted) -> None:
    """Raises InputError."""
    kind = type(adapted.algorithm)
    if adapted.form != "classify":
        raise InputError(f"a model of the form {adapted.form!r} is not exported; only one that classifies is")
    if kind.scores not in (Algorithm.scores, Frozen.scores):
        raise InputError(
            f"{kind.__name__} compares texts with its examples, which no linear layer does; export a model of a method "
            "whose head is one, as maml, protonet or finetune"
        )
    if adapted.net.options.quantize != "none":
        raise InputError("the adapter was learned on quantised weights, which no export has; adapt without --quantize")


class Reading(nn.Module):
    """From hidden states to scores: what `Backbone.features` and a head do, on padded texts.

    Which of a text's two parts a token is of is read off the separators: a tokenizer without them marks none, and then
    pairs can't be told apart."""

    added: Tensor  # ids that the tokenizer adds around texts
    separators: Tensor  # those of them that stand between two texts
    weight: Tensor  # (K, V·D)
    bias: Tensor  # (K,)

    def __init__(self, views: tuple[View, ...], width: int, sentence: Any, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.views, self.width = views, width
        self.pooling, self.dense = sentence.pooling, sentence.dense
        self.register_buffer("weight", weight.float().cpu().clone())
        self.register_buffer("bias", bias.float().cpu().clone())

    @staticmethod
    def of(adapted: Adapted, tokenizer: Any) -> Reading:
        net, frozen = adapted.net, isinstance(adapted.algorithm, Frozen)
        views = tuple(view for view in net.views if not (frozen and view.adapted))
        made = Reading(views, net.width, net.sentence, adapted.phi["head/weight"][0], adapted.phi["head/bias"][0])
        encoded = tokenizer("a", "b")
        owners, ids = encoded.sequence_ids(0), encoded["input_ids"]
        first, second = owners.index(0), owners.index(1)
        between = [token for token, owner in zip(ids[first:second], owners[first:second], strict=True) if owner is None]
        added = [token for token, owner in zip(ids, owners, strict=True) if owner is None]
        for name, found in (("added", added), ("separators", between)):
            made.register_buffer(name, torch.tensor(sorted({*found}), dtype=torch.long))
        return made

    @property
    def pairs(self) -> bool:
        """Whether the parts of a pair can be told apart."""
        return len(self.separators) > 0

    def forward(self, frozen: Any, adapted: Any, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states by layer, (B, L, H) each, of both models; token ids and mask (B, L) -> scores (B, K)."""
        read = [self.read((adapted if view.adapted else frozen)[view.layer], view, ids, mask) for view in self.views]
        return torch.cat([normalize(x, dim=-1) for x in read], dim=-1) @ self.weight.T + self.bias

    def read(self, states: Tensor, view: View, ids: Tensor, mask: Tensor) -> Tensor:
        """What a view reads: (B, D)."""
        whole = view.pooling == "sentence"
        weight = self.chosen(self.pooling if whole else view.pooling, ids, mask.to(states.dtype))
        x = (states * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)
        x = self.dense(x) if whole and self.dense is not None else x
        return pad(x, (0, self.width - x.shape[-1]))

    def chosen(self, pooling: str, ids: Tensor, mask: Tensor) -> Tensor:
        """1 at the tokens that are read, all of a text where it has none of them: (B, L)."""
        place = mask.cumsum(1) - 1
        if pooling in ("first", "second"):
            passed = _among(ids, self.separators).long().cumsum(1) > 0
            text = mask * ~_among(ids, self.added)
            found = text * (passed if pooling == "second" else ~passed)
        elif pooling in ("cls", "last"):
            found = mask * (place == (0 if pooling == "cls" else mask.sum(1, keepdim=True) - 1))
        else:
            found = mask
        return torch.where(found.sum(1, keepdim=True) == 0, mask, found)


def _among(ids: Tensor, some: Tensor) -> Tensor:
    return (ids[..., None] == some).any(-1)


class Scorer(nn.Module):
    """The whole of it, called as transformers' models are: token ids, mask and, where the model reads them, types
    (B, L) -> scores (B, K)."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        frozen = any(not view.adapted for view in parts.reading.views)
        adapted = any(view.adapted for view in parts.reading.views)
        self.plain, self.merged = parts.plain if frozen else None, parts.merged if adapted else None
        self.reading = parts.reading

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "output_hidden_states": True}
        given |= {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        frozen, adapted = (model and model(**given).hidden_states for model in (self.plain, self.merged))
        return self.reading(frozen, adapted, input_ids, attention_mask)


def padded(parts: Parts, adapted: Adapted, texts: list[tuple[str, ...]]) -> dict[str, Tensor]:
    """Texts as the model wants them, padded on the right: (B, L) each."""
    options, columns = adapted.net.options, [list(column) for column in zip(*texts, strict=True)]
    columns[0] = [f"{options.prompt}{text}" for text in columns[0]]
    tokenizer = parts.tokenizer
    tokenizer.padding_side = "right"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # the mask hides it
    found = tokenizer(*columns, truncation=True, max_length=options.max_length, padding=True, return_tensors="pt")
    return {name: found[name] for name in inputs_of(adapted)}


def inputs_of(adapted: Adapted) -> tuple[str, ...]:
    return ("input_ids", "attention_mask", *(("token_type_ids",) if adapted.net.family.types else ()))
