"""What differs between architectures, one row each. No other file asks which architecture it has."""

from __future__ import annotations

from dataclasses import dataclass

from metanlp.errors import InputError


@dataclass(frozen=True)
class Family:
    """How one architecture is adapted and packed."""

    layers: str  # dotted path of the list of layers inside the bare model
    attention: tuple[str, ...]  # linear layers of one attention block, as paths inside a layer
    feed_forward: tuple[str, ...]  # linear layers of the rest of the layer
    position_offset: int  # first position id


FAMILIES = {
    "bert": Family(
        layers="encoder.layer",
        attention=("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
        feed_forward=("intermediate.dense", "output.dense"),
        position_offset=0,
    ),
}


def family_of(model_type: str) -> Family:
    """The row of an architecture, by transformers' `model_type`."""
    if model_type not in FAMILIES:
        raise InputError(
            f"architecture {model_type!r} is not supported yet, known are {sorted(FAMILIES)}; "
            "take a BERT-like encoder, for example --model minilm or --model bert-base-uncased"
        )
    return FAMILIES[model_type]
