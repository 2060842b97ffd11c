"""What a sentence-transformers folder says of its model: how a vector is read, and what stands in front of a text.

Normalisation needs no word here: heads normalise every view.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import safetensors.torch
from torch import nn

from metanlp.errors import InputError

Find = Callable[[str], Path | None]
"""A file of the model by its path inside the folder, or None where the folder has no such file."""

POOLINGS = {"cls": "cls", "mean": "all", "mean_sqrt_len_tokens": "all", "lasttoken": "last"}  # theirs -> ours
OLD_FLAGS = {"pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max", "pooling_mode_mean_tokens": "mean",
             "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
             "pooling_mode_weightedmean_tokens": "weightedmean", "pooling_mode_lasttoken": "lasttoken"}  # fmt: skip


@dataclass(frozen=True)
class Sentence:
    """How the makers of a model meant it to be read."""

    pooling: str  # one of the poolings of a view
    prompt: str = ""  # in front of every text
    dense: nn.Sequential | None = None  # layers that the pooled vector goes through
    width: int = 0  # what they give; 0 without them

    @property
    def default_view(self) -> str:
        """The pooling of the default views of the last layer."""
        return "sentence" if self.dense else self.pooling


def read_sentence(find: Find, name: str) -> Sentence | None:
    """None where there is no `modules.json`. Raises InputError for a module or a pooling that is not known here."""
    listed = find("modules.json")
    if listed is None:
        return None
    pooling, layers = "all", list[nn.Module]()
    for module in json.loads(listed.read_text(encoding="utf-8")):
        kind = module["type"].rsplit(".", 1)[-1]
        if kind == "Pooling":
            pooling = _pooling(_config(find, module["path"]), name)
        elif kind == "Dense":
            layers += _dense(find, module["path"], name)
        elif kind not in ("Transformer", "Normalize", "Dropout"):
            raise InputError(f"{name}: its modules.json asks for {kind!r}; known are Transformer, Pooling, Dense, "
                             "Normalize; take another model")  # fmt: skip
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    dense = nn.Sequential(*layers) if layers else None
    return Sentence(pooling, _prompt(find), dense, linear[-1].out_features if linear else 0)


def _pooling(config: dict[str, Any], name: str) -> str:
    said = config.get("pooling_mode") or [mode for flag, mode in OLD_FLAGS.items() if config.get(flag)] or ["mean"]
    modes = [said] if isinstance(said, str) else list(said)
    if len(modes) != 1 or modes[0] not in POOLINGS or not config.get("include_prompt", True):
        prompt = "" if config.get("include_prompt", True) else " without the prompt"
        raise InputError(f"{name}: its vectors are pooled by {' and '.join(modes)}{prompt}; known are "
                         f"{', '.join(POOLINGS)}, one at a time; take another model")  # fmt: skip
    return POOLINGS[modes[0]]


def _dense(find: Find, path: str, name: str) -> list[nn.Module]:
    """A linear layer and what bends it, frozen."""
    config, weights = _config(find, path), find(f"{path}/model.safetensors")
    kind = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if weights is None or not kind.startswith("torch.nn."):
        raise InputError(f"{name}: {path} has no model.safetensors, or an activation outside torch ({kind})")
    linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    tensors = safetensors.torch.load_file(weights)
    linear.load_state_dict({key.removeprefix("linear."): value.float() for key, value in tensors.items()})
    module, _, activation = kind.rpartition(".")
    return [linear.requires_grad_(False), cast(nn.Module, getattr(importlib.import_module(module), activation)())]


def _prompt(find: Find) -> str:
    """The default prompt, else the one for classification."""
    found = find("config_sentence_transformers.json")
    config = json.loads(found.read_text(encoding="utf-8")) if found else {}
    prompts = {key.lower(): text for key, text in (config.get("prompts") or {}).items() if text}
    return prompts.get((config.get("default_prompt_name") or "classification").lower(), "")


def _config(find: Find, path: str) -> dict[str, Any]:
    found = find(f"{path}/config.json")
    return json.loads(found.read_text(encoding="utf-8")) if found else {}
