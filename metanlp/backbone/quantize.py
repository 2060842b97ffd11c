"""Precision of the frozen weights: 32 or 16 bits, or 8 and 4 bits by bitsandbytes.

4 bits: QLoRA, Dettmers et al. 2023, arXiv 2305.14314. 8 bits: LLM.int8(), Dettmers et al. 2022, arXiv 2208.07339.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from metanlp.core.errors import InputError

Precision = Literal["auto", "fp32", "bf16"]
Quantize = Literal["none", "4bit", "8bit"]
BF16_UNITS = ("amx_bf16", "avx512_bf16")
BLOCK, BLOCK_OF_BLOCKS = 64, 256  # weights, and scales, that share a scale in 4 bits
OFF = 0.15  # largest relative error that is right for a layer: 0.09 was measured in 4 bits, 0.01 in 8


def decide(asked: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """ "auto" goes by what the device has, so that every process and every run on it decides the same. A CPU's products
    are faster in bf16 if it has instructions for them and torch uses its kernels; without, they take longer."""
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    has, used = torch.cpu.get_capabilities(), torch.backends.cpu.get_cpu_capability()
    able = device.type == "cpu" and used.startswith("AVX512") and any(has.get(unit) for unit in BF16_UNITS)
    return "bf16" if able else "fp32"


def dtype_of(precision: Precision, device: torch.device) -> torch.dtype:
    return torch.bfloat16 if decide(precision, device) == "bf16" else torch.float32


def is_linear(part: nn.Module) -> bool:
    """Whether a layer has a weight matrix and is no embedding: those that bitsandbytes replaces."""
    weight = getattr(part, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() == 2 and not isinstance(part, nn.Embedding)


def sizes(linear: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of nn.Linear, or of GPT-2's Conv1D, whose weight is transposed."""
    first, second = cast(Tensor, linear.weight).shape
    return (second, first) if isinstance(linear, nn.Linear) else (first, second)


def size_of(inputs: int, outputs: int, quantize: Quantize) -> int:
    """Bytes of a quantised linear layer without its bias."""
    if quantize == "8bit":
        return inputs * outputs + 4 * outputs
    scales = -(-inputs * outputs // BLOCK)
    return -(-inputs * outputs // 2) + scales + 4 * -(-scales // BLOCK_OF_BLOCKS) + 4


def settings(quantize: Quantize, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of transformers' BitsAndBytesConfig."""
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
    """Raises InputError where a layer of a width of `model` is computed wrongly, forward or backward, as happens
    silently on some processors, or not at all on this device."""
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

    def both(layer: nn.Module, device: torch.device | str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The output, and the gradient of the input."""
        given = x.to(device, dtype).requires_grad_()
        out = layer(given)
        return out.detach(), torch.autograd.grad(out, given, asked.to(device, dtype))[0]

    pairs = zip(both(layer, device, dtype), both(plain, "cpu", torch.float32), strict=True)
    return max(float((a.cpu().float() - b).norm() / b.norm()) for a, b in pairs)


def settle(model: nn.Module) -> None:
    """Keep quantised layers in training mode, after `eval`: in evaluation mode on CPUs a 4-bit layer passes no
    gradients after its first pass without, and an 8-bit layer also rounds its input. Neither has dropout."""
    for layer in _quantised(model):
        layer.train()


def shared(model: nn.Module) -> dict[int, Any]:
    """The memo with which `copy.deepcopy` shares all tensors, and the scales of quantised layers. Scales of 8 bits move
    from the weight to the layer in its first pass; another layer over that weight would quantise it again."""
    tensors = (*model.parameters(), *model.buffers())
    scales = (layer.quant_state if hasattr(layer, "quant_state") else layer.state for layer in _quantised(model))
    return {id(thing): thing for thing in (*tensors, *scales)}


def _quantised(model: nn.Module) -> Iterator[Any]:
    """Layers of bitsandbytes, found by their attributes, so that it need not be imported."""
    for part in model.modules():
        if hasattr(part, "quant_state") or hasattr(part, "init_8bit_state"):
            yield part
