"""One ONNX file with everything from token ids to scores, and what goes before it and after it. The door of ONNX's
libraries, which may be missing."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metanlp.checkpoint import atomic_write
from metanlp.disk import disk
from metanlp.errors import InputError
from metanlp.export.plain import Parts, Scorer, inputs_of, padded
from metanlp.learner import Adapted

PROBES = ["a text", "another one, which is longer than the first by some words", "x"]
NEAR = 1e-3  # between our scores and the file's, on the probes
NEEDED = ("onnx", "onnxscript", "onnxruntime")

README = """# {title}

Scores of {labels} for a text, from `model.onnx`: adapter, head and views are inside. It asks for `{inputs}`, gives
`scores` (texts, labels), whose softmax are probabilities, and needs neither torch nor metanlp:

```python
import json
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

config = json.loads(Path("config.json").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file("tokenizer.json")
session = onnxruntime.InferenceSession("model.onnx")


def scores(texts):
    encoded = tokenizer.encode_batch([config["prompt"] + text for text in texts])
    columns = {{"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}}
    given = {{name: np.array([getattr(one, columns[name]) for one in encoded]) for name in config["inputs"]}}
    return session.run(["scores"], given)[0]


print([config["labels"][n] for n in scores(["keyboard has three dead keys"]).argmax(1)])
```
"""


def write_onnx(adapted: Adapted, parts: Parts, folder: Path) -> None:
    """`model.onnx`, `tokenizer.json`, `config.json` and a page on how to use them. Raises InputError where a library is
    missing."""
    check_libraries()
    model, given = Scorer(parts).eval(), padded(parts, adapted, [(text,) for text in PROBES])
    inputs = inputs_of(adapted)
    config = {"labels": list(adapted.labels), "inputs": inputs, "prompt": adapted.net.options.prompt,
              "max_length": adapted.net.options.max_length, "pairs": parts.reading.pairs}  # fmt: skip
    with disk(folder):
        parts.tokenizer.save_pretrained(str(folder))
        _tokenizer(parts, adapted).save(str(folder / "tokenizer.json"))
        _program(model, given).save(str(folder / "model.onnx"))
    atomic_write(folder / "config.json", (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())
    page = README.format(title=folder.resolve().name, labels=", ".join(f"`{label}`" for label in adapted.labels),
                         inputs="`, `".join(inputs))  # fmt: skip
    atomic_write(folder / "README.md", page.encode())
    check_equal(adapted, run(folder / "model.onnx", given))


def check_libraries() -> None:
    if missing := [name for name in NEEDED if not find_spec(name)]:
        raise InputError(f"ONNX needs {', '.join(missing)}; pip install 'metanlp[onnx]'")


def _program(model: Scorer, given: dict[str, torch.Tensor]) -> Any:
    """The graph, for any number of texts of any length."""
    any_size = torch.export.Dim.DYNAMIC
    shapes = {name: {0: any_size, 1: any_size} for name in given}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of libraries that are not asked for
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model, (), kwargs=given, input_names=list(given), output_names=["scores"],
                                    dynamic_shapes=shapes, dynamo=True, verbose=False)  # fmt: skip
    assert program is not None
    passes: Any = import_module("onnx_ir.passes.common")
    # Below the lowest adapter both models are one: its weights and its work are kept once.
    passes.DeduplicateInitializersPass(size_limit=sys.maxsize)(program.model)
    passes.CommonSubexpressionEliminationPass()(program.model)
    passes.ClearMetadataAndDocStringPass()(program.model)  # every node says from which file of this machine it came
    return program


def _tokenizer(parts: Parts, adapted: Adapted) -> Any:
    """That of the library below, which cuts and pads by itself."""
    below, padding = parts.tokenizer.backend_tokenizer, parts.tokenizer.pad_token
    below.enable_truncation(adapted.net.options.max_length)
    below.enable_padding(pad_id=parts.tokenizer.convert_tokens_to_ids(padding), pad_token=padding)
    return below


def run(file: Path, given: dict[str, torch.Tensor]) -> np.ndarray:
    """The scores that onnxruntime gives: (B, K)."""
    session = import_module("onnxruntime").InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(["scores"], {name: value.numpy() for name, value in given.items()})[0]


def check_equal(adapted: Adapted, found: np.ndarray) -> None:
    """Raises RuntimeError where an export says something else than the model; bf16 weights, which no export has, may
    differ."""
    gap = float(np.abs(found - adapted.logits(PROBES)).max())
    if gap > NEAR and adapted.net.options.precision == "fp32":
        raise RuntimeError(f"{adapted.net.name}: the exported model's scores differ by {gap:.2g}; it is not to be used")
