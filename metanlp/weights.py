"""Arithmetic on Weights. Every function returns new dictionaries and leaves its arguments as they were."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from metanlp.types import Weights


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
    """One copy for each task: (…) -> (T, …). Copies, not views: grouped products refuse a stride of zero."""
    return {key: value[None].repeat(tasks, *[1] * value.dim()) for key, value in w.items()}


def take(w: Weights, task: int) -> Weights:
    """The weights of one task out of a stack, its axis kept: (T, …) -> (1, …)."""
    return {key: value[task : task + 1] for key, value in w.items()}


def stack(parts: Sequence[Weights]) -> Weights:
    """Stacks of tasks end to end: [(T₁, …), (T₂, …)] -> (T₁ + T₂, …)."""
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def gradient(loss: Tensor, w: Weights, *, keep_graph: bool = False, differentiable: bool = False) -> Weights:
    """d loss / d w; zeros where w takes no part. `differentiable`: as a function of w, for second derivatives."""
    keep = keep_graph or differentiable
    grads = torch.autograd.grad(
        loss, list(w.values()), retain_graph=keep, create_graph=differentiable, materialize_grads=True
    )
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
    """Bitwise the same keys and values."""
    return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)


def flatten(w: Weights) -> Tensor:
    """One vector in the order of the sorted keys; `unflatten` is its inverse."""
    return torch.cat([w[key].reshape(-1).float() for key in sorted(w)])


def unflatten(vector: Tensor, like: Weights) -> Weights:
    keys = sorted(like)
    parts = vector.split([like[key].numel() for key in keys])
    return {key: part.view(like[key].shape) for key, part in zip(keys, parts, strict=True)}


def checksum(w: Weights) -> str:
    """sha256 over names, shapes and bytes: equal exactly where `equal` is."""
    digest = hashlib.sha256()
    for key in sorted(w):
        digest.update(f"{key}{tuple(w[key].shape)}{w[key].dtype}".encode())
        digest.update(_bytes(w[key]).numpy().tobytes())
    return digest.hexdigest()


def _bytes(value: Tensor) -> Tensor:
    # Cloned, as an expanded tensor of one number counts as contiguous with a stride of zero.
    return value.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)


def _same(a: Tensor, b: Tensor) -> bool:
    # torch.equal takes 0.0 for −0.0 and one type for another, and NaN for different from itself.
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(_bytes(a), _bytes(b))
