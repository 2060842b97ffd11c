"""Token-packed passes: all sequences lie end to end, and only attention looks at where one ends.

Linear layers, norms and adapters see no padding. Letters: P packed tokens, N sequences, L the longest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from metanlp.ragged import counts, spread
from metanlp.types import Batch, Tokens

PART = 1_024  # tokens of a part, where gradients are computed part by part


def pack(
    tokens: Tokens,
    rows: Sequence[int] | np.ndarray,
    targets: Sequence[int] | np.ndarray,
    ways: int,
    *,
    form: str = "classify",
    group: np.ndarray | None = None,
    by_word: bool = False,
) -> Batch:
    """The given texts of one task, end to end: their tokens in order of length, so that texts of one length form a
    rectangle; all else in the order given. `targets` are those of the units: the texts, or `by_word` the words in which
    some token begins, text by text as `words_of` lists them."""
    picked = np.asarray(rows, dtype=np.int64)
    lengths = counts(tokens.starts, picked)
    order = np.argsort(lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    texts = np.repeat(np.arange(len(order)), lengths[order])  # as they stand
    positions = np.arange(len(texts)) - (ends - lengths[order])[texts]
    places = positions + tokens.starts[picked[order]][texts]
    unit_of = None
    if by_word:
        group, _, unit_of = words_of(tokens, picked)
        unit_of = unit_of[spread(np.cumsum([0, *lengths]), order)]
    elif group is None:
        group = np.arange(len(picked))
    return Batch(
        ids=torch.from_numpy(tokens.ids[places]),
        positions=torch.from_numpy(positions),
        types=torch.from_numpy(tokens.types[places]),
        segments=torch.from_numpy(tokens.segments[places]),
        example_of=torch.from_numpy(order[texts]),
        lengths=torch.from_numpy(lengths),
        runs=tuple((count, length) for length, count in sorted(Counter(lengths.tolist()).items())),
        task_of=torch.zeros(len(group), dtype=torch.long),
        targets=torch.as_tensor(targets),
        group=torch.from_numpy(group),
        ways=torch.tensor([ways]),
        ends=torch.tensor([int(ends[-1])], dtype=torch.int32),
        max_ways=ways,
        form=form,
        unit_of=None if unit_of is None else torch.from_numpy(unit_of),
    )


def words_of(tokens: Tokens, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The words in which tokens of these texts begin: place of the text in `rows` (N,), word of the text (N,), and of
    each token the number of its word in these two, N for none: (P,). Words may be missing where a text was cut."""
    assert tokens.words is not None, "encode with words=True"
    text_of = np.repeat(np.arange(len(rows)), counts(tokens.starts, rows))
    word = tokens.words[spread(tokens.starts, rows)]
    base = int(word.max()) + 1
    known, unit = np.unique((text_of * base + word)[word >= 0], return_inverse=True)
    unit_of = np.full(len(word), len(known))
    unit_of[word >= 0] = unit
    return known // base, known % base, unit_of


def join(batches: Sequence[Batch]) -> Batch:
    """Several batches of one form in one pass; their tasks keep their order."""
    if len(batches) == 1:
        return batches[0]

    def cat(name: str, offsets: Sequence[int] | None = None) -> Tensor:
        parts = [getattr(batch, name) for batch in batches]
        return torch.cat([part + by for part, by in zip(parts, offsets, strict=True)] if offsets else parts)

    def before(sizes: Sequence[int]) -> list[int]:
        return [int(n) for n in np.cumsum([0, *sizes])[:-1]]

    plain = ("ids", "positions", "types", "segments", "lengths", "ways")
    as_they_are: dict[str, Any] = {name: cat(name) for name in plain}
    most, texts = max(b.max_ways for b in batches), before([len(b.lengths) for b in batches])
    return Batch(
        **as_they_are,
        example_of=cat("example_of", texts),
        runs=tuple(run for batch in batches for run in batch.runs),
        task_of=cat("task_of", before([b.count_tasks for b in batches])),
        targets=torch.cat([nn.functional.pad(b.targets, (0, most - b.max_ways)) if b.targets.dim() > 1 else b.targets
                           for b in batches]),
        group=cat("group", texts),
        ends=cat("ends", before([b.count_tokens for b in batches])).to(torch.int32),
        max_ways=most,
        form=_one_form(batches),
        unit_of=None if batches[0].unit_of is None else _joined_units(batches),
    )  # fmt: skip


def _one_form(batches: Sequence[Batch]) -> str:
    (form,) = {batch.form for batch in batches}
    return form


def _joined_units(batches: Sequence[Batch]) -> Tensor:
    """Numbers of units go on from batch to batch; those of no unit become the number beyond them all."""
    total, at, parts = sum(len(b.task_of) for b in batches), 0, list[Tensor]()
    for batch in batches:
        units = cast(Tensor, batch.unit_of)
        parts.append(torch.where(units == len(batch.task_of), total, units + at))
        at += len(batch.task_of)
    return torch.cat(parts)


def parts(batch: Batch, most: int) -> list[Batch]:
    """The same batch with some of its tokens in each: whole texts, of about `most` tokens. Texts, units and tasks keep
    their numbers, so that what is read off the parts, zeros for a text that is elsewhere, adds up to the whole."""
    lengths = [length for count, length in batch.runs for _ in range(count)]
    ends = np.cumsum(lengths)
    cuts = {int(np.abs(ends - at).argmin()) + 1 for at in range(most, int(ends[-1]), most)} | {len(ends)}
    first, found = 0, list[Batch]()
    for last in sorted(cuts):
        found.append(_between(batch, int(ends[first]) - lengths[first], int(ends[last - 1]), lengths[first:last]))
        first = last
    return found


def _between(batch: Batch, begin: int, end: int, lengths: Sequence[int]) -> Batch:
    """Tokens `begin` to `end` of a batch, which are those of whole texts."""
    names = ("ids", "positions", "types", "segments", "example_of")
    tokens: dict[str, Any] = {name: getattr(batch, name)[begin:end] for name in names}
    return replace(
        batch,
        **tokens,
        runs=tuple((len(list(same)), length) for length, same in groupby(lengths)),
        ends=(batch.ends - begin).clamp(0, end - begin),
        unit_of=None if batch.unit_of is None else batch.unit_of[begin:end],
        trunk=batch.trunk and replace(batch.trunk, states=batch.trunk.states[begin:end]),
    )


@dataclass(frozen=True)
class Packing:
    """Travels with one call of the model, as a keyword, down to every layer."""

    batch: Batch  # whose tokens these are
    recall: Tensor | None = None  # (1, P, hidden) what the layers below the adapters gave; None where they run
    states: list[Tensor] = field(default_factory=list)  # (1, P, hidden) each, written by the layers as they run
    attended: list[str] = field(default_factory=list)  # the attention blocks that went through `packed_attention`

    @property
    def shape(self) -> tuple[int, int]:
        """Texts N, and the tokens L of the longest."""
        return sum(count for count, _ in self.batch.runs), self.batch.max_length

    @cached_property
    def text_of(self) -> Tensor:
        """Which text a token belongs to, counted as they stand: (P,). Nothing is asked of the device."""
        return (self.batch.positions == 0).cumsum(0) - 1

    @cached_property
    def slots(self) -> Tensor:
        """(P,) place of each token in the padded grid of N × L, flattened."""
        return self.text_of * self.batch.max_length + self.batch.positions

    @cached_property
    def mask(self) -> Tensor:
        """(N, 1, 1, L) True where a token is."""
        count, longest = self.shape
        there = torch.zeros(count * longest, dtype=torch.bool, device=self.slots.device)
        return there.index_fill(0, self.slots, True).view(count, 1, 1, longest)

    @cached_property
    def ends(self) -> Tensor:
        """Where each text begins, and where the last one ends: (N + 1,) int32."""
        texts = torch.arange(self.shape[0] + 1, device=self.text_of.device)
        return torch.searchsorted(self.text_of, texts, out_int32=True)

    @property
    def padded_ends(self) -> Tensor:
        """Where each task's places end in the padded grid: (T,) int32. A task without texts ends where the one before
        it does."""
        before = nn.functional.pad(self.text_of + 1, (1, 0))
        return (before[self.batch.ends.long()] * self.batch.max_length).int()

    def padded(self, flat: Tensor) -> Tensor:
        """(P, …) -> (N, L, …), zeros where no token is. `index_copy` has a fast backward, unlike indexing."""
        count, longest = self.shape
        grid = flat.new_zeros(count * longest, *flat.shape[1:]).index_copy(0, self.slots, flat)
        return grid.view(count, longest, *flat.shape[1:])

    def packed(self, grid: Tensor) -> Tensor:
        """(N, L, …) -> (P, …), the inverse of `padded`."""
        return grid.flatten(0, 1).index_select(0, self.slots)

    def rectangles(self, flat: Tensor) -> list[Tensor]:
        """The tokens of equally long texts, run by run, as views: (P, H, d) -> (n, H, length, d) each."""
        found = flat.split([count * length for count, length in self.batch.runs])
        shapes = [(count, length, *flat.shape[1:]) for count, length in self.batch.runs]
        return [part.view(shape).transpose(1, 2) for part, shape in zip(found, shapes, strict=True)]
