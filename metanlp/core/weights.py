"""Weights: arithmetic, their place in memory, safetensors files. Every function returns new dictionaries and leaves its
arguments as they were. The one door of safetensors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import safetensors.torch
import torch
from torch import Tensor

from metanlp.core.types import Weights

ALIGNMENT = 64  # bytes: addresses that torch allocates are multiples of it


def pick(w: Weights, *prefixes: str) -> Weights:
    """The entries whose key starts with one of `prefixes`."""
    return {key: value for key, value in w.items() if key.startswith(prefixes)}


def pick_inside(w: Weights, prefix: str) -> Weights:
    """The entries below `prefix`, which is taken off their keys."""
    return {key.removeprefix(prefix): value for key, value in w.items() if key.startswith(prefix)}


def drop(w: Weights, *prefixes: str) -> Weights:
    """The entries whose key starts with none of `prefixes`."""
    return {key: value for key, value in w.items() if not key.startswith(prefixes)}


def leaves(w: Weights) -> Weights:
    """The same values as fresh leaves that record gradients."""
    return {key: value.detach().requires_grad_() for key, value in w.items()}


def detach(w: Weights) -> Weights:
    return {key: value.detach() for key, value in w.items()}


def clone(w: Weights) -> Weights:
    return {key: value.detach().clone() for key, value in w.items()}


def aligned(w: Weights) -> Weights:
    """The same values, each tensor contiguous and at an address that is a multiple of `ALIGNMENT`; copied only where it
    is not. At other addresses and strides kernels sum in another order, which changes the last bits."""
    return {key: _aligned(value) for key, value in w.items()}


def to_safetensors(w: Weights) -> bytes:
    """The bytes of a safetensors file. Tensors are cloned, as safetensors refuses those that share memory."""
    plain = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in w.items()}
    return safetensors.torch.save(plain, metadata={"format": "pt"})


def from_safetensors(data: bytes) -> Weights:
    """The tensors of a safetensors file, on the CPU, aligned. Raises ValueError for bytes that are no such file."""
    try:
        return aligned(safetensors.torch.load(data))
    except Exception as problem:  # of many types, in a file that was made to harm
        raise ValueError(f"not a file of tensors: {problem}") from problem


def to(w: Weights, device: torch.device) -> Weights:
    return {key: value.to(device) for key, value in w.items()}


def zeros(w: Weights) -> Weights:
    return {key: torch.zeros_like(value) for key, value in w.items()}


def add(a: Weights, b: Weights, scale: float | Tensor = 1.0) -> Weights:
    """a + scale · b, over the keys of `a`; a key that `b` lacks counts as zero."""
    return {key: value + scale * b[key] if key in b else value for key, value in a.items()}


def total(parts: Iterable[Weights]) -> Weights:
    """The sum, added in the order given: floating-point sums depend on it."""
    out: Weights = {}
    for part in parts:
        for key, value in part.items():
            out[key] = out[key] + value if key in out else value
    return out


def scale(w: Weights, factor: float | Tensor) -> Weights:
    return {key: value * factor for key, value in w.items()}


def expand(w: Weights, tasks: int) -> Weights:
    """A copy for each task: (…) -> (T, …). Copies, as grouped products refuse a stride of zero."""
    return {key: value[None].repeat(tasks, *[1] * value.dim()) for key, value in w.items()}


def gradient(loss: Tensor, w: Weights, *, differentiable: bool = False) -> Weights:
    """d loss / d w; zeros where w takes no part. `differentiable`: as a function of w, for second derivatives."""
    if not loss.requires_grad:
        return zeros(w)
    grads = torch.autograd.grad(loss, list(w.values()), create_graph=differentiable, materialize_grads=True)
    return dict(zip(w, grads, strict=True))


def norm(w: Weights) -> Tensor:
    """Euclidean norm over all entries: ()."""
    return torch.stack([value.float().square().sum() for value in w.values()]).sum().sqrt()


def norm_per_task(w: Weights) -> Tensor:
    """Euclidean norm of each task's slice: (T, …) -> (T,). Its own gradient is 0 where it is 0, and not NaN."""
    squares = torch.stack([value.reshape(len(value), -1).square().sum(1) for value in w.values()]).sum(0)
    some = squares > 0
    return squares.where(some, 1.0).sqrt().where(some, 0.0)


def finite(w: Weights) -> bool:
    return bool(flatten(w).isfinite().all()) if w else True  # one look at the device for all


def equal(a: Weights, b: Weights) -> bool:
    """Bitwise the same keys and values: 0.0 is not −0.0, a NaN is itself."""
    return checksum(a) == checksum(b)


def flatten(w: Weights) -> Tensor:
    """One vector in the order of the sorted keys; `unflatten` is its inverse."""
    return torch.cat([w[key].reshape(-1).float() for key in sorted(w)])


def unflatten(vector: Tensor, like: Weights) -> Weights:
    keys = sorted(like)
    parts = vector.split([like[key].numel() for key in keys])
    return {key: part.view(like[key].shape) for key, part in zip(keys, parts, strict=True)}


def checksum(w: Weights) -> str:
    """sha256 over names, shapes, types and bytes."""
    digest = hashlib.sha256()
    for key in sorted(w):
        digest.update(f"{key}{tuple(w[key].shape)}{w[key].dtype}".encode())
        # Cloned, as an expanded tensor of one number counts as contiguous with a stride of zero.
        plain = w[key].detach().cpu().clone(memory_format=torch.contiguous_format)
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _aligned(value: Tensor) -> Tensor:
    usual = torch.empty(value.shape, device="meta").stride()  # also of axes of length 1, which `is_contiguous` ignores
    if value.stride() == usual and value.data_ptr() % ALIGNMENT == 0:
        return value
    return value.clone(memory_format=torch.contiguous_format)
