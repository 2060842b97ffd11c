"""One ONNX file from token ids to scores, with its tokenizer and settings, in fp32, fp16 or int8. Its libraries may be
missing."""

from __future__ import annotations

import logging
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from metanlp.backbone.models import encoder_of
from metanlp.core.errors import InputError
from metanlp.core.storage import disk
from metanlp.learner.learner import Adapted
from metanlp.share.export.plain import (
    Parts,
    agreement,
    copy_segments,
    describe,
    known_texts,
    padded,
    scorer_of,
    settings_of,
)
from metanlp.share.export.views_classifier import Scorer

PROBES = ("a text", "another one, which is longer than the first by some words", "x")
NEAR = 1e-3  # between our scores and the file's, on the probes
NEEDED = ("onnx", "onnxscript", "onnxruntime")
Precision = Literal["fp32", "fp16", "int8"]
BLOCK = 32  # weights of a column of a matrix that share a scale in int8; all of a column are too many
IN_INT8 = 4  # onnxruntime's level of accuracy at which integers are multiplied, what comes in is rounded by blocks too

SINGLE = {"rows": "texts", "encoded": '[config["prompt"] + text for text in texts]', "parts": "text",
          "example": '["keyboard has three dead keys"]'}  # fmt: skip
PAIRS = {"rows": "pairs", "encoded": '[(config["prompt"] + one, config["between"] + two) for one, two in pairs]',
         "parts": "*text", "example": '[("a man plays a guitar", "somebody makes music")]'}  # fmt: skip


def write_onnx(adapted: Adapted, parts: Parts, folder: Path, precision: Precision = "fp32") -> str:
    """`model.onnx`, `tokenizer.json`, `config.json`, what tells two texts apart, and a page on how to use them.
    Returns how near the answers are, where they are not equal."""
    given, file = padded(parts, adapted, probes(adapted)), folder / "model.onnx"
    with disk(folder):
        parts.tokenizer.save_pretrained(str(folder))
        _tokenizer(parts, adapted).save(str(folder / "tokenizer.json"))
        _program(scorer_of(parts).eval(), given).save(str(file))
    copy_segments(folder)
    config = settings_of(adapted, parts) | {"precision": precision}
    describe(folder, "onnx.md", config, "config.json", **(PAIRS if adapted.pairs else SINGLE))
    check_equal(adapted, run(file, given))
    if precision == "fp32":
        return ""
    texts = padded(parts, adapted, known_texts(adapted))
    ours = run(file, texts)
    lower(file, precision)
    return agreement(ours, run(file, texts))


def lower(file: Path, precision: Precision) -> None:
    """Writes the model anew: all of it in fp16; or its matrices in int8 and the table of tokens in fp16."""
    onnx, half, others = import_module("onnx"), import_module("onnxruntime.transformers.float16"), None
    model = onnx.load(file)
    if precision == "int8":
        matrices = _blockwise()(model, bits=8, block_size=BLOCK, is_symmetric=True, accuracy_level=IN_INT8)
        matrices.process()
        model = matrices.model.model
        others = sorted({node.op_type for node in model.graph.node} - {"Gather"})
    with warnings.catch_warnings(), disk(file):
        warnings.simplefilter("ignore")  # of numbers that are nearly zero
        onnx.save(half.convert_float_to_float16(model, keep_io_types=True, op_block_list=others), file)


def _blockwise() -> Any:
    """The class that rounds matrices. Its module would make every library tell what it does."""
    root, nobody = logging.getLogger(), logging.NullHandler()
    root.addHandler(nobody)
    try:
        found = import_module("onnxruntime.quantization.matmul_nbits_quantizer")
    finally:
        root.removeHandler(nobody)
    logging.getLogger(found.__name__).setLevel(logging.WARNING)
    return found.MatMulNBitsQuantizer


def probes(adapted: Adapted) -> list[tuple[str, ...]]:
    """Rows to compare an export with the model by."""
    pairs = [*zip(PROBES, reversed(PROBES), strict=True), (PROBES[1], "longer")]
    return pairs if adapted.pairs else [(text,) for text in PROBES]


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
    if gap > NEAR and encoder_of(adapted.net).options.precision == "fp32":
        raise RuntimeError(f"{adapted.net.name}: the exported model's scores differ by {gap:.2g}; it is not to be used")
