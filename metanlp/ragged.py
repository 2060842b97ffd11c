"""Rows of unequal length, end to end: `first` says where each begins, row r is [first[r], first[r + 1])."""

from __future__ import annotations

import numpy as np


def spread(first: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The places of these rows' members, row after row: (R + 1,), (r,) -> (members,)."""
    counts = np.diff(first)[rows]
    begins = np.repeat(first[rows] - np.cumsum(counts) + counts, counts)
    return np.arange(int(counts.sum())) + begins
