"""All rows of a pool in packed passes, and their scores in the order of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from metanlp.core.types import Batch
from metanlp.episodes.pool import Pool
from metanlp.forms import Scored

CHUNK = 6_000  # tokens in one pass without gradients


@dataclass(frozen=True)
class Chunk:
    """Some rows in one pass."""

    rows: np.ndarray  # (r,) row numbers in the pool
    batch: Batch
    counts: np.ndarray  # (r,) units of each row
    places: np.ndarray  # (n,) place of each unit within its row


def chunks(pool: Pool) -> list[Chunk]:
    """All rows of a pool in passes of about `CHUNK` tokens; rows of similar length share a pass, to pad little."""
    return [Chunk(rows, pool.pack(rows), *pool.units(rows)) for rows in pool.parts(CHUNK)]


def scored(parts: Sequence[Chunk], scores: Sequence[Tensor]) -> Scored:
    """Joins the scores of all passes and sorts them by row."""
    values = np.concatenate([each.float().cpu().numpy() for each in scores])
    joined = (np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "counts", "places"))
    rows, counts, places = joined
    return Scored(values, counts, places).of(np.argsort(rows))
