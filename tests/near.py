"""How near floats have to be, from their size and precision: one rule for all tests.

One rounding changes a number by `eps` of its size at the most. Sums in another order, which other kernels (AVX2 or
AVX-512, one thread or two) and other passes take, differ by a multiple of `eps` times the largest number that takes
part, also where they come out small. The multiples are at least twice what was measured, on kernels of three kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metanlp.core import weights
from metanlp.core.types import Weights

SUMS = 64  # some sums one after the other, without a model
LAYERS = 1024  # a model of a few layers, or its gradient; solving linear equations
INNER_STEPS = 4096  # gradient steps, which enlarge the roundings of the gradients that they follow


def near(found: Any, expected: Any, ulps: float = SUMS, size: float | None = None) -> None:
    """Asserts that floats, arrays, tensors, or lists and mappings of them differ by at most `ulps` times the `eps` of
    the less precise side times `size`: by default the largest expected number."""
    if isinstance(expected, Mapping):
        assert found.keys() == expected.keys()
        found, expected = [found[key] for key in expected], list(expected.values())
    pairs = [(_tensor(a), _tensor(b)) for a, b in zip(_listed(found), _listed(expected), strict=True)]
    assert [a.shape for a, _ in pairs] == [b.shape for _, b in pairs]
    eps = max(torch.finfo(side.dtype).eps for pair in pairs for side in pair if side.is_floating_point())
    a, b = (torch.cat([pair[side].double().reshape(-1) for pair in pairs]) for side in (0, 1))
    whole = b.isfinite()
    assert torch.equal(a[~whole].nan_to_num(), b[~whole].nan_to_num())
    off = (a - b)[whole].abs()
    if off.numel():
        worst, most = float(off.max()), size or float(b[whole].abs().max())
        said = f"off by {worst:.2g} at {int(off.argmax())}, allowed are {ulps} · {eps:.1g} · {most:.3g}"
        assert worst <= ulps * eps * most, said


def far(a: Weights, b: Weights) -> float:
    """Distance, as a share of the length of `b`."""
    assert a.keys() == b.keys()
    return float(weights.norm(weights.add(a, b, -1.0)) / weights.norm(b))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _tensor(value: Any) -> Tensor:
    """Plain Python numbers count as fp32, which a model's are."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    return value.detach().cpu() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float32)
