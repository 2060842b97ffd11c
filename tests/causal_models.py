"""Tiny models that write after a prompt, and what plain transformers says of the sentences in seq2seq_models.py."""

from __future__ import annotations

from typing import Any

import torch
from seq2seq_models import SOURCES, TARGETS, TOKENIZER
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM

from metanlp.backbone import Lora
from metanlp.backbone.causal import Causal

WIDE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
                        "num_key_value_heads": 1, "initializer_range": 0.3, "max_position_embeddings": 96}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.3, "n_positions": 96, "attn_pdrop": 0.0},
    "llama": WIDE,
    "qwen2": WIDE,
}


def model_of(kind: str) -> Any:
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), TOKENIZER.eos_token_id)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, vocab_size=len(TOKENIZER), **ids, **KINDS[kind])
        return AutoModelForCausalLM.from_config(config).eval()


def net_of(kind: str, adapt: Lora | None) -> Causal:
    return Causal(model_of(kind), TOKENIZER, adapt, base=kind, max_length=24)


def plain_texts(model: Any, beams: int) -> list[str]:
    """Prompt by prompt, nothing padded."""
    found = list[str]()
    for source in SOURCES:
        read = TOKENIZER([source], return_tensors="pt")["input_ids"]
        ids = model.generate(input_ids=read, attention_mask=torch.ones_like(read), num_beams=beams, do_sample=False,
                             max_new_tokens=24)  # fmt: skip
        found.append(TOKENIZER.decode(ids[0, read.shape[1] :], skip_special_tokens=True).strip())
    return found


def plain_loss(model: Any, *rows: int) -> torch.Tensor:
    """Text by text, nothing padded: the mean over all tokens of targets."""
    losses = list[torch.Tensor]()
    for row in rows:
        prompt = TOKENIZER(SOURCES[row])["input_ids"]
        told = [*TOKENIZER(f" {TARGETS[row]}", add_special_tokens=False)["input_ids"], TOKENIZER.eos_token_id]
        logits = model(input_ids=torch.tensor([[*prompt, *told]])).logits[0]
        losses += cross_entropy(logits[len(prompt) - 1 : -1], torch.tensor(told), reduction="none")
    return torch.stack(losses).mean()
