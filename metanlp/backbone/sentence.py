"""What a sentence-transformers folder says of its model: pooling, dense layers, prompt. Heads normalise anyway."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from metanlp.core.errors import InputError
from metanlp.core.weights import from_safetensors

Find = Callable[[str], Path | None]
"""A file of the model by its path inside the folder, or None where the folder has no such file."""

POOLINGS = {"cls": "cls", "mean": "all", "mean_sqrt_len_tokens": "all", "lasttoken": "last"}  # theirs -> ours
OLD_FLAGS = {"pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max", "pooling_mode_mean_tokens": "mean",
             "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
             "pooling_mode_weightedmean_tokens": "weightedmean", "pooling_mode_lasttoken": "lasttoken"}  # fmt: skip


@dataclass(frozen=True)
class Sentence:
    """How a model is meant to be read."""

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
    modules, pooling, layers = _json(find, "modules.json"), "all", list[nn.Module]()
    if modules is None:
        return None
    for module in modules:
        kind = module["type"].rsplit(".", 1)[-1]
        if kind == "Pooling":
            pooling = _pooling(_json(find, f"{module['path']}/config.json") or {}, name)
        elif kind == "Dense":
            layers += _dense(find, module["path"], name)
        elif kind not in ("Transformer", "Normalize", "Dropout"):
            raise InputError(f"{name}: its modules.json asks for {kind!r}; known are Transformer, Pooling, Dense, "
                             "Normalize; take another model")  # fmt: skip
    widths = [0, *(layer.out_features for layer in layers if isinstance(layer, nn.Linear))]
    return Sentence(pooling, _prompt(find), nn.Sequential(*layers) if layers else None, widths[-1])


def _pooling(config: dict[str, Any], name: str) -> str:
    said = config.get("pooling_mode") or [mode for flag, mode in OLD_FLAGS.items() if config.get(flag)] or ["mean"]
    modes = [said] if isinstance(said, str) else list(said)
    if len(modes) != 1 or modes[0] not in POOLINGS or not config.get("include_prompt", True):
        prompt = "" if config.get("include_prompt", True) else " without the prompt"
        raise InputError(f"{name}: its vectors are pooled by {' and '.join(modes)}{prompt}; known are "
                         f"{', '.join(POOLINGS)}, one at a time; take another model")  # fmt: skip
    return POOLINGS[modes[0]]


def _dense(find: Find, path: str, name: str) -> list[nn.Module]:
    """A linear layer and its activation, frozen."""
    config, weights = _json(find, f"{path}/config.json") or {}, find(f"{path}/model.safetensors")
    kind = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if weights is None or not kind.startswith("torch.nn."):
        raise InputError(f"{name}: {path} has no model.safetensors, or an activation outside torch ({kind})")
    linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    tensors = from_safetensors(weights.read_bytes())
    linear.load_state_dict({key.removeprefix("linear."): value.float() for key, value in tensors.items()})
    return [linear.requires_grad_(False), cast(nn.Module, pkgutil.resolve_name(kind)())]


def _prompt(find: Find) -> str:
    """The default prompt, else the one for classification."""
    config = _json(find, "config_sentence_transformers.json") or {}
    prompts = {key.lower(): text for key, text in (config.get("prompts") or {}).items() if text}
    return prompts.get((config.get("default_prompt_name") or "classification").lower(), "")


def _json(find: Find, path: str) -> Any:
    found = find(path)
    return json.loads(found.read_text(encoding="utf-8")) if found else None
