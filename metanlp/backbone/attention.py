"""Attention within each sequence of a packed pass.

CPUs pad nothing. GPUs use the kernel for unequal lengths where it exists for the head size and agrees with padding,
else they pad. Letters: P packed tokens, N sequences, L the longest, H heads, d head size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from metanlp.backbone.packing import Packing, pack
from metanlp.core.types import Tokens

ATTENTION = "metanlp_packed"  # the name of `packed_attention` in transformers' registry
HARMLESS = {"position_ids", "deterministic", "output_attentions", "use_cache", "cache_position", "output_hidden_states"}
CLOSE = 0.02  # the most that the kernel may be off on numbers of about one, in half precision

Near = Callable[[int], Tensor | None]
"""Length L -> mask by position (L, L), None where every token may attend to every other."""
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Attention: queries, keys, values (n, H, L, d) and a mask or None -> (n, H, L, d)."""


def packed_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *,
    packing: Packing, scaling: float | None = None, dropout: float = 0.0, sliding_window: int | None = None,
    softcap: float | None = None, is_causal: bool | None = None, **others: object,
) -> tuple[Tensor, None]:  # fmt: skip
    """Queries (1, H, P, d), keys and values with H heads or a divisor of it -> (1, P, H, d). Registered with
    transformers as `ATTENTION`. Raises NotImplementedError for keywords that would change the result."""
    unknown = sorted(name for name, what in others.items() if what is not None and name not in HARMLESS)
    if unknown or attention_mask is not None or (dropout and softcap):
        raise NotImplementedError(
            f"packed attention does not know {unknown or 'attention_mask, or dropout and softcap'}"
        )
    packing.attended.append(type(module).__name__)
    heads, size = query.shape[1], query.shape[3]
    on_cpu = query.device.type == "cpu"
    # bf16 attention is slow on CPUs (42 % of a pass when measured), so it runs in fp32 there.
    q, k, v = (x[0].transpose(0, 1).to(torch.float32 if on_cpu else query.dtype) for x in (query, key, value))
    if k.shape[1] != heads:  # grouped queries: Ainslie et al. 2023
        k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    if softcap is None and not dropout and has_kernel(query.device, query.dtype, heads, size):
        out = by_kernel(packing, q, k, v, scaling, causal, sliding_window)
    else:
        near = partial(allowed, causal=causal, window=sliding_window, device=query.device)
        plain: Attend = partial(nn.functional.scaled_dot_product_attention, dropout_p=dropout, scale=scaling)
        attend = plain if softcap is None else partial(capped_attention, scaling=scaling, cap=softcap)
        out = (by_runs if on_cpu else by_padding)(packing, q, k, v, attend, near)
    return out.view(1, -1, heads, size).to(query.dtype), None


def has_kernel(device: torch.device, dtype: torch.dtype, heads: int, size: int) -> bool:
    """Whether `by_kernel` can be used: on a GPU, in half precision, with first derivatives only (for second ones flash
    attention is turned off)."""
    wanted = dtype in (torch.bfloat16, torch.float16) and torch.backends.cuda.flash_sdp_enabled()
    return device.type == "cuda" and wanted and agrees(device, dtype, heads, size)


@lru_cache
def agrees(device: torch.device, dtype: torch.dtype, heads: int, size: int) -> bool:
    """Whether the kernel runs here and gives what padding gives on two short texts, gradients too."""
    zeros, generator = np.zeros(8, dtype=np.int64), torch.Generator().manual_seed(0)
    tokens = Tokens(ids=zeros, types=zeros, segments=zeros, starts=np.array([0, 3, 8]))
    packing = Packing(pack(tokens, [0, 1], [0, 0], 1).to(device))
    draw = [torch.randn(8, heads, size, generator=generator).to(device, dtype) for _ in range(3)]

    def told(attention: Callable[[Tensor, Tensor, Tensor], Tensor]) -> list[Tensor]:
        q, k, v = (x.clone().requires_grad_() for x in draw)
        with torch.enable_grad():
            out = attention(q, k, v)
            return [out.detach(), *torch.autograd.grad(out.square().sum(), (q, k, v))]

    near = partial(allowed, causal=False, window=None, device=device)
    expected = told(lambda q, k, v: by_padding(packing, q, k, v, nn.functional.scaled_dot_product_attention, near))
    try:
        found = told(lambda q, k, v: by_kernel(packing, q, k, v, None, False, None))
    except (RuntimeError, ImportError):  # an older GPU, or a head size that it has not
        return False
    return all(
        torch.allclose(a.float(), b.float(), atol=CLOSE, rtol=CLOSE) for a, b in zip(expected, found, strict=True)
    )


def by_kernel(
    packing: Packing, q: Tensor, k: Tensor, v: Tensor, scaling: float | None, causal: bool, window: int | None
) -> Tensor:
    """One call of flash attention for unequal lengths (Dao 2023): (P, H, d) each -> (P, H, d)."""
    from torch.nn.attention.varlen import varlen_attn

    most = packing.batch.max_length
    far = -1 if window is None else window - 1  # a window counts the token itself; -1 is no end
    sides = (far, 0 if causal else far)
    return cast(Tensor, varlen_attn(q, k, v, packing.ends, packing.ends, most, most, scale=scaling, window_size=sides))


def by_runs(packing: Packing, q: Tensor, k: Tensor, v: Tensor, attend: Attend, near: Near) -> Tensor:
    """A call for each length of text: (P, H, d) each -> (P, H, d). On CPUs half the time of one padded call for
    few-shot sets; a GPU would wait for the launches."""
    runs = zip(packing.batch.runs, *(packing.rectangles(x) for x in (q, k, v)), strict=True)
    return torch.cat([attend(a, b, c, near(length)).transpose(1, 2).flatten(0, 1) for (_, length), a, b, c in runs])


def by_padding(packing: Packing, q: Tensor, k: Tensor, v: Tensor, attend: Attend, near: Near) -> Tensor:
    """One padded call: (P, H, d) each -> (P, H, d)."""
    a, b, c = (packing.padded(x).transpose(1, 2) for x in (q, k, v))
    places = near(packing.shape[1])
    mask = packing.mask if places is None else packing.mask & places
    return packing.packed(attend(a, b, c, mask).transpose(1, 2))


def allowed(longest: int, causal: bool, window: int | None, device: torch.device) -> Tensor | None:
    """Mask by position: (L, L), or None where every token may attend to every other."""
    if not causal and (window is None or window >= longest):
        return None
    place = torch.arange(longest, device=device)
    behind = place[:, None] - place
    near = behind.abs() < (window or longest)  # transformers counts a window with the token itself, on each side
    return near & (behind >= 0) if causal else near


def capped_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, scaling: float | None, cap: float
) -> Tensor:
    """Attention whose scores are bent to stay below `cap` (Gemma 2, arXiv 2408.00118, §2)."""
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.tanh((q @ k.transpose(2, 3)) * scale / cap) * cap
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.softmax(scores, dim=-1) @ v
