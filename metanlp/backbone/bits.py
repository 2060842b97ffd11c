"""In how many bits the frozen weights are held: 32, 16, or 8 and 4 by bitsandbytes, whose one door this is.

4 bits: QLoRA, Dettmers et al. 2023, arXiv 2305.14314. 8 bits: LLM.int8(), Dettmers et al. 2022, arXiv 2208.07339.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from metanlp.errors import InputError

# It warns of a package that it would like when it is imported, which peft does, and later of every cast to fp16.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

Precision = Literal["auto", "fp32", "bf16"]
Quantize = Literal["none", "4bit", "8bit"]
BLOCK, BLOCK_OF_BLOCKS = 64, 256  # weights, and scales, that share a scale in 4 bits
OFF = 0.15  # largest relative error of a layer that is computed as it should be: 0.09 in 4 bits, 0.01 in 8


def decide(asked: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """Decided by what the device has, not by timing, so that every process decides the same. On CPUs bf16 pays only
    with tile units; without them it is slower than fp32."""
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if device.type == "cpu" and torch.cpu._is_amx_tile_supported() else "fp32"  # pyright: ignore[reportPrivateUsage]


def dtype_of(precision: Precision, device: torch.device) -> torch.dtype:
    return torch.bfloat16 if decide(precision, device) == "bf16" else torch.float32


def is_linear(part: nn.Module) -> bool:
    """A layer that bitsandbytes replaces, and that may carry an adapter: a matrix, and no table."""
    weight = getattr(part, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() == 2 and not isinstance(part, nn.Embedding)


def sizes(linear: nn.Module) -> tuple[int, int]:
    """Inputs and outputs. What is no torch.nn.Linear is the Conv1D of GPT-2, its weight transposed."""
    first, second = cast(Tensor, linear.weight).shape
    return (second, first) if isinstance(linear, nn.Linear) else (first, second)


def settings(quantize: Quantize, dtype: torch.dtype) -> dict[str, Any]:
    """The words of transformers' BitsAndBytesConfig."""
    if quantize == "8bit":
        return {"load_in_8bit": True}
    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    return four | {"bnb_4bit_compute_dtype": dtype}


def require_library(quantize: Quantize) -> None:
    """Raises InputError where bitsandbytes is asked for and not installed. Imports nothing."""
    if quantize != "none" and importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(f"weights in {quantize} (--quantize) need bitsandbytes, which is not installed; pip install "
                         "'metanlp[quantize]'")  # fmt: skip


def require_layers(quantize: Quantize, device: torch.device, dtype: torch.dtype, model: nn.Module) -> None:
    """Tries a small layer of every width that `model` has, forward and backward: some widths are computed wrongly on
    some processors, and nothing is said. Raises InputError, also where this device is not served at all."""
    require_library(quantize)
    for width in sorted({sizes(part)[0] for part in model.modules() if is_linear(part)}):
        try:
            error = _error_of_layer(quantize, device, dtype, width)
        except Exception as problem:  # whatever a kernel that is not there raises
            error, why = 1.0, f" ({str(problem).strip().splitlines()[0] if str(problem) else type(problem).__name__})"
        else:
            why = f" (error {error:.2f} where at most {OFF} is right)"
        if not error <= OFF:
            raise InputError(f"--quantize {quantize}: bitsandbytes does not compute layers of width {width} as it "
                             f"should on this {device.type}{why}; take another --quantize or model")  # fmt: skip


def _error_of_layer(quantize: Quantize, device: torch.device, dtype: torch.dtype, width: int) -> float:
    """Relative error of a quantised layer `width` × 64 against its own weights, the larger of output and gradient."""
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt  # pyright: ignore[reportMissingImports]

    chance = torch.Generator().manual_seed(0)
    plain = nn.Linear(width, 64, bias=False)
    plain.weight.data = torch.randn(64, width, generator=chance)
    if quantize == "4bit":
        layer = Linear4bit(width, 64, bias=False, compute_dtype=dtype, compress_statistics=True, quant_type="nf4")
    else:
        layer = Linear8bitLt(width, 64, bias=False, has_fp16_weights=False, threshold=6.0)
    layer.load_state_dict(plain.state_dict())
    x, asked = torch.randn(64, width, generator=chance), torch.randn(64, 64, generator=chance)
    layer = layer.to(device)
    settle(layer)
    found = _both(layer, x.to(device, dtype), asked.to(device, dtype))
    return max(
        float((a.cpu().float() - b).norm() / b.norm()) for a, b in zip(found, _both(plain, x, asked), strict=True)
    )


def _both(layer: nn.Module, x: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """The output, and the gradient of the input."""
    x = x.requires_grad_()
    out = layer(x)
    return out.detach(), torch.autograd.grad(out, x, asked)[0]


def settle(model: nn.Module) -> None:
    """Make quantised layers pass gradients, after `eval`.

    In evaluation mode on CPUs, a 4-bit layer packs its weights anew in its first pass without gradients and passes none
    from then on, and an 8-bit layer rounds its input as well as its weights. Neither has dropout, so both stay in
    training mode.
    """
    for layer in _quantised(model):
        layer.train()


def shared(model: nn.Module) -> dict[int, Any]:
    """What a second tree shares with this one, as `copy.deepcopy` wants it: all tensors, and the scales of quantised
    layers. Those of 8 bits move from the weight to the layer in its first pass: another layer over the same weight
    would find none, and quantise what is quantised."""
    tensors = (*model.parameters(), *model.buffers())
    scales = (layer.quant_state if hasattr(layer, "quant_state") else layer.state for layer in _quantised(model))
    return {id(thing): thing for thing in (*tensors, *scales)}


def _quantised(model: nn.Module) -> Iterator[Any]:
    """Layers of bitsandbytes, told by what they have, so that nothing is imported for a model without."""
    for part in model.modules():
        if hasattr(part, "quant_state") or hasattr(part, "init_8bit_state"):
            yield part
