"""Rows of unequal length stored end to end: row r has the members first[r] to first[r + 1], exclusive."""

from __future__ import annotations

import numpy as np


def counts(first: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Number of members of the given rows: (R + 1,), (r,) -> (r,). Reads no other rows: a pool may have millions."""
    return first[rows + 1] - first[rows]


def spread(first: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Indices of the members of the given rows, row after row: (R + 1,), (r,) -> (members,)."""
    members = counts(first, rows)
    ends = members.cumsum()
    return np.arange(int(ends[-1]) if len(ends) else 0) + (first[rows] - ends + members).repeat(members)
