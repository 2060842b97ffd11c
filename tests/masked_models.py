"""Tiny models with a vocabulary head, a masked pass for them, and what plain transformers says of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tiny_models import TINY, VOCABULARY, texts
from transformers import AutoConfig, AutoModelForMaskedLM

from metanlp.core.types import MaskedPass
from metanlp.episodes.corpus import masked_pass


def model_of(kind: str) -> Any:
    given = {"vocab_size": VOCABULARY, "max_position_embeddings": 140, "pad_token_id": 1, "bos_token_id": 2,
             "eos_token_id": 3, "initializer_range": 0.3, **TINY[kind]}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForMaskedLM.from_config(AutoConfig.for_model(kind, **given)).eval()


def given() -> MaskedPass:
    tokens = texts()
    hidden = np.random.default_rng(1).random(len(tokens.ids)) < 0.3
    kinds = np.ones(len(tokens.ids), np.int64)
    return masked_pass(tokens.ids, kinds, tokens.starts, hidden, np.where(hidden, 4, tokens.ids), 0)


def plain(model: Any, each: MaskedPass) -> Any:
    """Padded, with labels, as `DataCollatorForLanguageModeling` would give it."""
    batch = each.batch
    shape = len(batch.lengths), batch.max_length
    ids, mask, labels = torch.full(shape, 1), torch.zeros(shape, dtype=torch.long), torch.full(shape, -100)
    at = batch.example_of, batch.positions
    ids[at], mask[at] = batch.ids, 1
    labels[at[0][each.places], at[1][each.places]] = each.targets
    return model(input_ids=ids, attention_mask=mask, labels=labels)
