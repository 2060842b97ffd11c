"""One task's LoRA as plain peft has it, and its head beside it: for servers that hold one model and many adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from metanlp.backbone import Backbone
from metanlp.backbone.languages import prompted
from metanlp.backbone.models import encoder_of
from metanlp.backbone.writer import Writer
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
    if (sets := encoder_of(adapted.net).sets) > 1:
        raise InputError(f"this model has {sets} sets of adapters, of which peft's file holds one; export to onnx")
    write_adapter(folder, adapted.net, adapted.weights)
    head = {"weight": reading.weight, "bias": reading.bias}
    copy_segments(folder)
    atomic_write(folder / HEAD, to_safetensors(head))
    views = [{"adapted": view.adapted, "layer": view.layer, "pooling": view.pooling} for view in reading.views]
    said = settings_of(adapted, parts) | pinned(adapted.net) | {"views": views}
    describe(folder, "lora.md", said, HEAD_CONFIG, **(PAIRS if adapted.pairs else SINGLE))
    return "README.md there has the lines that open it with peft"


def pinned(net: Backbone | Writer) -> dict[str, str | None]:
    """The pretrained model, of the commit that it was learned on where it is one of the Hub."""
    return {"base": net.name, "revision": net.base.revision or None}


def write_writer(adapted: Adapted, _: object, folder: Path) -> str:
    """The same of a model that writes, whose head is a bias a word."""
    net = cast(Writer, adapted.net)
    write_adapter(folder, net, adapted.weights)
    atomic_write(folder / HEAD, to_safetensors({"bias": adapted.weights["head/bias"]}))
    prompt = prompted(net.prompt, net.languages, ["{source}"])[0]
    said = pinned(net) | {"opens": net.opens, "prompt": prompt, "languages": list(net.languages),
            "max_length": net.max_length, "cut": net.tokenizer.truncation_side, "begins": net.begins()}  # fmt: skip
    atomic_write(folder / HEAD_CONFIG, (json.dumps(said, indent=2, ensure_ascii=False) + "\n").encode())
    page = Path(__file__).with_name("writer.md").read_text(encoding="utf-8")
    between = " to ".join(net.languages) or "texts that are written for others"
    words = {"title": folder.resolve().name, "between": between, "base": net.name, "opens": net.opens}
    atomic_write(folder / "README.md", page.format(**words).encode())
    return "README.md there has the lines that open it with peft"
