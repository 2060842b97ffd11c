"""What differs between architectures, one row each. No other file asks which architecture it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from metanlp.errors import InputError


@dataclass(frozen=True)
class Family:
    """How one architecture is adapted and run."""

    layers: str  # dotted path of the list of layers inside the bare model
    attention: tuple[str, ...]  # linear layers of one attention block that take an adapter, as paths inside a layer
    feed_forward: tuple[str, ...]  # linear layers of the rest of the layer
    types: bool = False  # whether the model reads token types
    after_padding: bool = False  # whether positions are counted from the padding token's id + 1
    pooling: Literal["all", "last"] = "all"  # how a text's vector is read where the model's folder does not say
    shared: bool = False  # whether one layer is run again and again, so that none lies below the adapters
    packed: bool = True  # whether texts can be run end to end; else they are padded
    conv1d: bool = False  # whether linear layers keep their weight transposed

    def targets(self, which: str) -> tuple[str, ...]:
        """Paths of the linear layers that `Lora.targets` means. Where projections of attention are one layer, that one
        stands for query and value."""
        if which == "query and value":
            return self.attention[0:3:2] if len(self.attention) == 4 else self.attention[:1]
        return self.attention + (self.feed_forward if which == "all linear" else ())

    def first_position(self, config: Any) -> int:
        """Position id of a text's first token."""
        return config.pad_token_id + 1 if self.after_padding else 0


BERT = Family(
    layers="encoder.layer",
    attention=("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    feed_forward=("intermediate.dense", "output.dense"),
    types=True,
)
ROBERTA = Family(BERT.layers, BERT.attention, BERT.feed_forward, types=True, after_padding=True)
LLAMA = Family(
    layers="layers",
    attention=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    feed_forward=("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    pooling="last",
)
FAMILIES = {
    "bert": BERT,
    "electra": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "distilbert": Family(
        layers="transformer.layer",
        attention=("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
        feed_forward=("ffn.lin1", "ffn.lin2"),
    ),
    "albert": Family(
        layers="encoder.albert_layer_groups.0.albert_layers",
        attention=("attention.query", "attention.key", "attention.value", "attention.dense"),
        feed_forward=("ffn", "ffn_output"),
        types=True,
        shared=True,
    ),
    "modernbert": Family(layers="layers", attention=("attn.Wqkv", "attn.Wo"), feed_forward=("mlp.Wi", "mlp.Wo")),
    "gpt2": Family(
        layers="h",
        attention=("attn.c_attn", "attn.c_proj"),
        feed_forward=("mlp.c_fc", "mlp.c_proj"),
        pooling="last",
        conv1d=True,
    ),
    **dict.fromkeys(("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "mistral"), LLAMA),
    # These two build their own masks or pass tables through their projections: packed they would run, and be wrong.
    "mpnet": Family(
        layers="encoder.layer",
        attention=("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"),
        feed_forward=("intermediate.dense", "output.dense"),
        after_padding=True,
        packed=False,
    ),
    # The table of relative positions passes through query and key, which therefore can't differ from task to task.
    "deberta-v2": Family(
        layers="encoder.layer",
        attention=("attention.self.value_proj", "attention.output.dense"),
        feed_forward=("intermediate.dense", "output.dense"),
        types=True,
        packed=False,
    ),
}


def family_of(model: nn.Module, config: Any) -> Family:
    """The row of an architecture; one that is not known is read off the model, and run padded."""
    return FAMILIES.get(config.model_type) or read_off(model, config.num_hidden_layers)


def read_off(model: nn.Module, depth: int) -> Family:
    """Layers are the list as long as the model is deep; every linear layer inside takes an adapter."""
    lists = [name for name, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part) == depth]
    if not lists:
        raise InputError(
            f"{type(model).__name__} has no list of {depth} layers, so there is no place for adapters; take a model of "
            f"one of {sorted(FAMILIES)}"
        )
    inside = [
        name for name, part in model.get_submodule(f"{lists[0]}.0").named_modules() if isinstance(part, nn.Linear)
    ]
    attention = tuple(name for name in inside if "att" in name.lower())
    rest = tuple(name for name in inside if name not in attention)
    return Family(lists[0], attention or rest, rest if attention else (), packed=False)
