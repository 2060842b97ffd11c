"""A tiny model of random weights of every architecture, texts for it, and what plain transformers says of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from metanlp.backbone import Backbone, Lora, View
from metanlp.backbone.packing import pack
from metanlp.core.types import Batch, Tokens, Weights

VOCABULARY, DEPTH = 100, 4
SIZES = {"hidden_size": 32, "num_hidden_layers": DEPTH, "num_attention_heads": 2, "intermediate_size": 48}
GROUPED = SIZES | {"num_key_value_heads": 1, "head_dim": 16}
WINDOW = {"sliding_window": 6}  # texts here are longer
TINY: dict[str, dict[str, Any]] = {
    "bert": SIZES,
    "electra": SIZES | {"embedding_size": 16},
    "roberta": SIZES,
    "xlm-roberta": SIZES,
    "distilbert": {"dim": 32, "n_layers": DEPTH, "n_heads": 2, "hidden_dim": 48},
    "albert": SIZES | {"embedding_size": 16},
    "modernbert": SIZES | {"global_attn_every_n_layers": 2, "local_attention": 8, "cls_token_id": 2, "sep_token_id": 3},
    "gpt2": {"n_embd": 32, "n_layer": DEPTH, "n_head": 2, "n_positions": 140},
    "llama": GROUPED,
    "qwen2": GROUPED,
    "qwen3": GROUPED,
    "gemma": GROUPED,
    "gemma2": GROUPED | WINDOW | {"attn_logit_softcapping": 1.0, "query_pre_attn_scalar": 16},
    "gemma3_text": GROUPED | WINDOW | {"query_pre_attn_scalar": 16},
    "gemma3_text, both ways": GROUPED  # as EmbeddingGemma
    | WINDOW
    | {"query_pre_attn_scalar": 16, "use_bidirectional_attention": True},
    "mistral": GROUPED | WINDOW,
    "mpnet": SIZES,
    "deberta-v2": SIZES
    | {"relative_attention": True, "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    # Not in the table: read off the model.
    "ernie": SIZES,
}
LENGTHS = (3, 14, 1, 9, 11)


def tiny_model(kind: str, **larger: int) -> Any:
    """A model of random weights, large enough that texts differ."""
    given = {"vocab_size": VOCABULARY, "max_position_embeddings": 140, "pad_token_id": 1, "bos_token_id": 2,
             "eos_token_id": 3, "initializer_range": 0.3, **TINY[kind], **larger}  # fmt: skip
    if "n_positions" in given:
        del given["max_position_embeddings"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModel.from_config(AutoConfig.for_model(kind.split(",")[0], **given)).eval()


def opened(folder: Path, lora: Lora, views: tuple[str, ...] = ()) -> Backbone:
    return Backbone.load(str(folder), lora, views=views, precision="fp32")


def texts() -> Tokens:
    """Rows of random tokens; the second half of each counts as its second text."""
    chance = np.random.default_rng(0)
    starts = np.cumsum([0, *LENGTHS])
    second = np.concatenate([1 + (np.arange(n) >= n // 2) for n in LENGTHS])
    total = int(starts[-1])
    return Tokens(chance.integers(4, VOCABULARY, total), np.zeros(total, np.int64), second, starts)


def whole() -> Batch:
    return pack(texts(), range(len(LENGTHS)), [0] * len(LENGTHS), 2)


def stirred(net: Backbone, seed: int = 1) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    theta = net.init(generator)
    return {key: value + 0.2 * torch.randn(value.shape, generator=generator) for key, value in theta.items()}


def plainly(model: Any, views: tuple[str, ...]) -> Tensor:
    """Padded to the longest, eager attention, pooled row by row."""
    tokens, longest = texts(), max(LENGTHS)
    ids, mask = torch.full((len(LENGTHS), longest), 1), torch.zeros(len(LENGTHS), longest, dtype=torch.long)
    for row, (start, end) in enumerate(zip(tokens.starts, tokens.starts[1:], strict=False)):
        ids[row, : end - start], mask[row, : end - start] = torch.from_numpy(tokens.ids[start:end]), 1
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    states = {**dict(enumerate(out.hidden_states)), DEPTH: out.last_hidden_state}
    return torch.stack(
        [torch.stack([read(states, row, length, View.parse(v)) for v in views]) for row, length in enumerate(LENGTHS)]
    )


def read(states: dict[int, Tensor], row: int, length: int, view: View) -> Tensor:
    begin = {"second": length // 2, "last": length - 1}.get(view.pooling, 0)
    return states[view.layer][row, begin : 1 if view.pooling == "cls" else length].mean(0)


def frozen_tensors(tree: nn.Module) -> Iterable[Tensor]:
    """All that a tree holds but adapters, lookup tables and places of tasks."""
    for name, tensor in (*tree.named_parameters(), *tree.named_buffers()):
        if ".lora_" not in name and not name.endswith(".ends"):
            yield tensor
    for layer in tree.modules():
        if hasattr(layer, "quant_state"):
            for state in (layer.quant_state, layer.weight.quant_state):
                yield from (state.absmax, state.state2.absmax, state.offset)
        elif hasattr(layer, "init_8bit_state"):
            yield from (layer.state.CB, layer.state.SCB)


def distinct(tensors: Iterable[Tensor]) -> Iterable[int]:
    """Bytes of each storage, once."""
    return {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values()
