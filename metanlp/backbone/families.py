"""What differs between architectures, one row each. No other file asks which architecture it has."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from metanlp.core.errors import InputError


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
        """Paths inside a layer for a value of `Lora.targets`. Where attention has one projection for all, it stands for
        query and value."""
        if which == "query and value":
            return self.attention[0:3:2] if len(self.attention) == 4 else self.attention[:1]
        return self.attention + (self.feed_forward if which == "all linear" else ())

    def first_position(self, config: Any) -> int:
        """Position id of a text's first token."""
        return config.pad_token_id + 1 if self.after_padding else 0


def inside(block: str, *names: str) -> tuple[str, ...]:
    """Paths of linear layers, from that of the block that has them."""
    return tuple(f"{block}.{name}" for name in names)


BERT = Family(
    layers="encoder.layer",
    attention=(*inside("attention.self", "query", "key", "value"), "attention.output.dense"),
    feed_forward=("intermediate.dense", "output.dense"),
    types=True,
)
ROBERTA = replace(BERT, after_padding=True)
LLAMA = Family(
    layers="layers",
    attention=inside("self_attn", "q_proj", "k_proj", "v_proj", "o_proj"),
    feed_forward=inside("mlp", "gate_proj", "up_proj", "down_proj"),
    pooling="last",
)
FAMILIES = {
    **dict.fromkeys(("bert", "electra"), BERT),
    **dict.fromkeys(("roberta", "xlm-roberta"), ROBERTA),
    **dict.fromkeys(("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "mistral"), LLAMA),
    "distilbert": Family("transformer.layer", inside("attention", "q_lin", "k_lin", "v_lin", "out_lin"),
                         inside("ffn", "lin1", "lin2")),
    "albert": Family("encoder.albert_layer_groups.0.albert_layers",
                     inside("attention", "query", "key", "value", "dense"), ("ffn", "ffn_output"), types=True,
                     shared=True),
    "modernbert": Family("layers", inside("attn", "Wqkv", "Wo"), inside("mlp", "Wi", "Wo")),
    "gpt2": Family("h", inside("attn", "c_attn", "c_proj"), inside("mlp", "c_fc", "c_proj"), pooling="last",
                   conv1d=True),
    # These two build their own masks or pass tables through their projections: packed they would run, and be wrong.
    "mpnet": replace(BERT, attention=inside("attention.attn", "q", "k", "v", "o"), types=False, after_padding=True,
                     packed=False),
    # The table of relative positions passes through query and key, which therefore can't differ from task to task.
    "deberta-v2": replace(BERT, attention=("attention.self.value_proj", "attention.output.dense"), packed=False),
}  # fmt: skip


def family_of(model: nn.Module, config: Any) -> Family:
    """The row of an architecture; one outside the table is read off the model. Raises InputError where that fails."""
    if config.model_type in FAMILIES:
        return FAMILIES[config.model_type]
    if getattr(config, "is_encoder_decoder", False):
        raise not_adaptable(config.model_type, "it has an encoder and a decoder")
    return read_off(model, config.model_type, getattr(config, "num_hidden_layers", 0))


def read_off(model: nn.Module, kind: str, depth: int) -> Family:
    """A padded family whose layers are the list of `depth` modules; every linear layer inside takes an adapter."""
    lists = [name for name, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part) == depth]
    if not depth or not lists:
        raise not_adaptable(kind, f"it has no list of {depth or 'its'} layers")
    modules = model.get_submodule(f"{lists[0]}.0").named_modules()
    linear = [name for name, part in modules if isinstance(part, nn.Linear)]
    if not linear:
        raise not_adaptable(kind, "its layers have no linear layers")
    attention = tuple(name for name in linear if "att" in name.lower())
    rest = tuple(name for name in linear if name not in attention)
    return Family(lists[0], attention or rest, rest if attention else (), packed=False)


def not_adaptable(kind: str, reason: str) -> InputError:
    known = ", ".join(sorted(FAMILIES))
    return InputError(f"a {kind} model can't be adapted: {reason}; take a model of one of {known}")


@contextmanager
def tried(kind: str) -> Generator[None]:
    """Turns what an architecture outside the table raises when it is built and first run into InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if kind in FAMILIES:
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise not_adaptable(kind, reason) from error
