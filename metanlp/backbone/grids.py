"""Pairs of a source and a target out of a packed batch, as the padded grids that a model of transformers reads.

Letters: n pairs of a batch, m of them in the grids, L the tokens of the longest on a side, T tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from metanlp.core.types import Batch

SOURCE, TARGET = 1, 2  # `Batch.segments`: a token of a source, or one that is read of its target
BOTH = 3  # one after the other in the same row


@dataclass(frozen=True)
class Grids:
    """Some pairs of a batch, whose texts 2i and 2i + 1 are a source and what the decoder reads of its target."""

    batch: Batch
    padding: int  # its token
    pairs: Tensor  # (m,) their numbers, ascending, so that tasks keep their order

    def ids(self, side: int) -> Tensor:
        """(m, L)"""
        return self._filled(side, self.batch.ids, self.padding)

    def mask(self, side: int) -> Tensor:
        """1 where a token is: (m, L)."""
        return self._filled(side, torch.ones_like(self.batch.ids), 0)

    @property
    def told(self) -> Tensor:
        """1 where a unit is, in rows of both sides: (m, L)."""
        return self._filled(BOTH, (self.batch.segments == TARGET).long(), 0)

    def ends(self, side: int) -> Tensor:
        """Where the rows of each task end in the flattened grid: (T,) int32."""
        tasks = torch.zeros_like(self._row_of).scatter(0, self._pair_of_unit, self.batch.task_of)[self.pairs]
        counts = tasks.bincount(minlength=self.batch.count_tasks)
        return (counts.cumsum(0) * self._longest[side]).int()

    @property
    def units(self) -> Tensor:
        """The numbers of their units, in the order in which `mask` has them."""
        return (self._row_of[self._pair_of_unit] >= 0).nonzero()[:, 0]

    @cached_property
    def _row_of(self) -> Tensor:
        """The row of each pair of the batch, -1 for one that is elsewhere: (n,)."""
        rows = self.batch.lengths.new_full((len(self.batch.lengths) // 2,), -1)
        return rows.index_copy(0, self.pairs, torch.arange(len(self.pairs), device=rows.device))

    @property
    def _pair_of_unit(self) -> Tensor:
        return self.batch.group // 2

    @cached_property
    def _longest(self) -> dict[int, int]:
        lengths = self.batch.lengths.view(-1, 2)[self.pairs]
        sources, targets, both = torch.cat([lengths, lengths.sum(1, keepdim=True)], 1).amax(0).tolist()
        return {SOURCE: sources, TARGET: targets, BOTH: both}

    def _filled(self, side: int, values: Tensor, beyond: int) -> Tensor:
        pair_of, sides = self.batch.example_of // 2, self.batch.segments
        rows, columns = self._row_of[pair_of], self.batch.positions
        if side == BOTH:
            columns = columns + (sides == TARGET) * self.batch.lengths[::2][pair_of]
        chosen = ((sides == side) | (side == BOTH)) & (rows >= 0)
        grid = values.new_full((len(self.pairs), self._longest[side]), beyond)
        grid[rows[chosen], columns[chosen]] = values[chosen]
        return grid
