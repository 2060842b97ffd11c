"""One task's LoRA as plain peft has it, and its head beside it: for servers that hold one model and many adapters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import save

from metanlp.artefact import ADAPTER, ADAPTER_CONFIG
from metanlp.checkpoint import atomic_write
from metanlp.disk import disk
from metanlp.errors import InputError
from metanlp.export.plain import Parts, inputs_of
from metanlp.learner import Adapted

HEAD, HEAD_CONFIG = "head.safetensors", "head.json"

README = """# {title}

One task on `{base}`: {labels}. `adapter_config.json` and `adapter_model.safetensors` are a LoRA adapter that peft, and
servers of many adapters, load beside others on one model. `head.safetensors` turns hidden states into scores:

1. for each of `views` in `head.json`, in this order, take the hidden states of its `layer` (1 is the first block's
   output), with the adapter on if `adapted`, else off, and their mean over the tokens of its `pooling`: `all`; `first`
   or `second` text without special tokens, or all where there are none; `cls` the first token; `last` the last token;
2. divide each by its Euclidean length, put them end to end, multiply by `weight` (labels, numbers) and add `bias`.

The softmax of these scores are the probabilities of `labels`. In front of every text stands `prompt`; texts are cut
after `max_length` tokens.
"""


def write_lora(adapted: Adapted, parts: Parts, folder: Path) -> None:
    """`adapter_config.json`, `adapter_model.safetensors`, `head.safetensors`, `head.json` and a page on them."""
    reading, options = parts.reading, adapted.net.options
    head = {"weight": reading.weight.contiguous(), "bias": reading.bias.contiguous()}
    views = [{"adapted": view.adapted, "layer": view.layer, "pooling": view.pooling} for view in reading.views]
    config = {"labels": list(adapted.labels), "views": views, "inputs": inputs_of(adapted), "prompt": options.prompt,
              "max_length": options.max_length, "added": reading.added.tolist(),
              "separators": reading.separators.tolist()}  # fmt: skip
    if any(view.pooling == "sentence" for view in reading.views):
        raise InputError("this model's vectors go through layers of their own, which no head holds; export to onnx")
    with TemporaryDirectory() as scratch, disk(folder):
        adapted.save(scratch)
        for name in (ADAPTER, ADAPTER_CONFIG):
            shutil.copyfile(Path(scratch, name), folder / name)
    atomic_write(folder / HEAD, save(head, metadata={"format": "pt"}))
    atomic_write(folder / HEAD_CONFIG, (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())
    page = README.format(title=folder.resolve().name, base=adapted.net.name, labels=", ".join(adapted.labels))
    atomic_write(folder / "README.md", page.encode())
