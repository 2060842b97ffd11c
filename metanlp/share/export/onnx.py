"""One ONNX file from token ids to scores, with its tokenizer and settings. ONNX's libraries may be missing."""

from __future__ import annotations

import logging
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metanlp.backbone.tokens import between
from metanlp.core.errors import InputError
from metanlp.core.storage import disk
from metanlp.learner.learner import Adapted
from metanlp.share.export.plain import Parts, Scorer, describe, padded, settings_of

PROBES = ("a text", "another one, which is longer than the first by some words", "x")
NEAR = 1e-3  # between our scores and the file's, on the probes
NEEDED = ("onnx", "onnxscript", "onnxruntime")

SINGLE = {"rows": "texts", "encoded": '[config["prompt"] + text for text in texts]',
          "example": '["keyboard has three dead keys"]'}  # fmt: skip
PAIRS = {"rows": "pairs", "encoded": '[(config["prompt"] + one, config["between"] + two) for one, two in pairs]',
         "example": '[("a man plays a guitar", "somebody makes music")]'}  # fmt: skip


def write_onnx(adapted: Adapted, parts: Parts, folder: Path) -> None:
    """`model.onnx`, `tokenizer.json`, `config.json` and a page on how to use them."""
    given = padded(parts, adapted, probes(adapted))
    with disk(folder):
        parts.tokenizer.save_pretrained(str(folder))
        _tokenizer(parts, adapted).save(str(folder / "tokenizer.json"))
        _program(Scorer(parts).eval(), given).save(str(folder / "model.onnx"))
    config = settings_of(adapted, parts) | {"between": between(parts.tokenizer)}
    describe(folder, "onnx.md", config, "config.json", **(PAIRS if adapted.pairs else SINGLE))
    check_equal(adapted, run(folder / "model.onnx", given))


def probes(adapted: Adapted) -> list[tuple[str, ...]]:
    """Rows to compare an export with the model by."""
    return list(zip(PROBES, reversed(PROBES), strict=True)) if adapted.pairs else [(text,) for text in PROBES]


def check_libraries() -> None:
    if missing := [name for name in NEEDED if not find_spec(name)]:
        raise InputError(f"ONNX needs {', '.join(missing)}; pip install 'metanlp[onnx]'")


def _program(model: Scorer, given: dict[str, torch.Tensor]) -> Any:
    """The ONNX program, for any batch size and length."""
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
    """The fast tokenizer, set to truncate and pad."""
    below, padding = parts.tokenizer.backend_tokenizer, parts.tokenizer.pad_token
    below.enable_truncation(adapted.net.options.max_length, direction=parts.tokenizer.truncation_side)
    below.enable_padding(pad_id=parts.tokenizer.convert_tokens_to_ids(padding), pad_token=padding)
    return below


def run(file: Path, given: dict[str, torch.Tensor]) -> np.ndarray:
    """The scores that onnxruntime gives: (B, K)."""
    session = import_module("onnxruntime").InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(["scores"], {name: value.numpy() for name, value in given.items()})[0]


def check_equal(adapted: Adapted, found: np.ndarray) -> None:
    """Raises RuntimeError where an export's scores differ from the model's; those of a bf16 model may."""
    gap = float(np.abs(found - adapted.logits(probes(adapted))).max())
    if gap > NEAR and adapted.net.options.precision == "fp32":
        raise RuntimeError(f"{adapted.net.name}: the exported model's scores differ by {gap:.2g}; it is not to be used")
