"""The rows that a learner has learned from, as its files keep them: part of a hash of each, and none of its texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metanlp.learner.artefact import verified
from metanlp.tasks.leaks import SEEN_BITS

SEEN = "seen/rows"
BYTES = SEEN_BITS // 8


def nothing_seen() -> np.ndarray:
    return np.zeros(0, np.uint64)


def seen_in(folder: Path) -> np.ndarray:
    """The rows that the learner of a folder has seen, without its backbone: (R,) uint64. Raises DamagedError."""
    kept = verified(folder, "learner")[2].get(SEEN)
    return nothing_seen() if kept is None else from_bytes(kept)


def as_bytes(seen: np.ndarray) -> Tensor:
    """(R,) uint64 -> (R, BYTES) uint8, the lowest byte first."""
    return torch.from_numpy(seen.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :BYTES].copy())


def from_bytes(rows: Tensor) -> np.ndarray:
    """(R, BYTES) uint8 -> (R,) uint64."""
    wide = np.zeros((len(rows), 8), np.uint8)
    wide[:, :BYTES] = rows.cpu().numpy()
    return wide.view("<u8").ravel()
