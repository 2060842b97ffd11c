"""Rows of unequal length, end to end: `first` says where each begins, row r is [first[r], first[r + 1])."""

from __future__ import annotations

import numpy as np


def counts(first: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Members of each of these rows: (R + 1,), (r,) -> (r,). Looks at no other rows: a pool may have very many."""
    return first[rows + 1] - first[rows]


def spread(first: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The places of these rows' members, row after row: (R + 1,), (r,) -> (members,)."""
    members = counts(first, rows)
    ends = members.cumsum()
    return np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(first[rows] - ends + members, members)
