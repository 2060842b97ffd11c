"""One task's LoRA as plain peft has it, and its head beside it: for servers that hold one model and many adapters."""

from __future__ import annotations

from pathlib import Path

from metanlp.core.errors import InputError
from metanlp.core.storage import atomic_write
from metanlp.core.weights import to_safetensors
from metanlp.learner.artefact import write_adapter
from metanlp.learner.learner import Adapted
from metanlp.share.export.plain import Parts, copy_segments, describe, settings_of

HEAD, HEAD_CONFIG = "head.safetensors", "head.json"
SINGLE = {"example": '"keyboard has three dead keys"'}
PAIRS = {"example": '"a man plays a guitar", "somebody makes music"'}


def write_lora(adapted: Adapted, parts: Parts, folder: Path) -> str:
    """`adapter_config.json`, `adapter_model.safetensors`, `head.safetensors`, `head.json`, `phrase.py` and a page with
    the code that opens them; returns that it is there."""
    reading = parts.reading
    if any(view.pooling == "sentence" for view in reading.views):
        raise InputError("this model's vectors go through layers of their own, which no head holds; export to onnx")
    write_adapter(folder, adapted.net, adapted.weights)
    head = {"weight": reading.weight, "bias": reading.bias}
    copy_segments(folder)
    atomic_write(folder / HEAD, to_safetensors(head))
    views = [{"adapted": view.adapted, "layer": view.layer, "pooling": view.pooling} for view in reading.views]
    said = settings_of(adapted, parts) | {"base": adapted.net.name, "views": views}
    describe(folder, "lora.md", said, HEAD_CONFIG, **(PAIRS if adapted.pairs else SINGLE))
    return "README.md there has the lines that open it with peft"
