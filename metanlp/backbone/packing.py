"""Token-packed passes: all texts lie end to end, without padding. Letters: P packed tokens, N texts, L the longest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from metanlp.core.offsets import counts, spread
from metanlp.core.types import Batch, Tokens

PART = 1_024  # tokens of a part, where gradients are computed part by part
FEW = 16  # tokens of a part at the least: below 8, matrix kernels were seen to round a row in another way
WHOLE = 8 * PART  # the most tokens that a CPU takes at once: memory must not grow with the number of classes


def pack(
    tokens: Tokens, rows: Sequence[int] | np.ndarray, targets: Sequence[int] | np.ndarray, ways: int, *,
    form: str = "classify", group: np.ndarray | None = None, by_word: bool = False, background: bool = False,
) -> Batch:  # fmt: skip
    """The given texts of one task. Tokens are ordered by the length of their text, so that texts of one length form a
    rectangle; all else keeps the order given. `targets` and `group` are those of the units: the texts, or `by_word` the
    words that `words_of` lists."""
    picked = np.asarray(rows, dtype=np.int64)
    lengths = counts(tokens.starts, picked)
    order = lengths.argsort(kind="stable")
    ordered = lengths[order]
    ends = ordered.cumsum()
    texts = np.arange(len(order)).repeat(ordered)  # in the order of their length
    positions = np.arange(len(texts)) - (ends - ordered)[texts]
    places = positions + tokens.starts[picked[order]][texts]
    unit_of = None
    if by_word:
        text, _, unit_of = words_of(tokens, picked)
        unit_of = unit_of[spread(np.cumsum([0, *lengths]), order)]
        group = text if group is None else group
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
        task_of=torch.from_numpy(np.zeros(len(group), np.int64)),  # which takes a sixth of the time of torch.zeros
        targets=torch.as_tensor(targets),
        group=torch.from_numpy(group),
        ways=torch.from_numpy(np.array([ways], np.int64)),
        ends=torch.from_numpy(ends[-1:].astype(np.int32)),
        max_ways=ways,
        form=form,
        background=background,
        unit_of=None if unit_of is None else torch.from_numpy(unit_of),
    )


def words_of(tokens: Tokens, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The N words in which tokens of these texts begin: index of the text in `rows` (N,), word of the text (N,), and
    the word of each token as an index into these two, N for none: (P,). Words are missing where a text was cut."""
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
    first, *others = batches
    if not others:
        return first
    assert {first.form} == {batch.form for batch in others}
    most, total = max(b.max_ways for b in batches), sum(len(b.task_of) for b in batches)
    texts, tasks, tokens, units = 0, 0, 0, 0  # before a batch
    moved: list[dict[str, Tensor | None]] = []
    for b in batches:
        moved.append({name: getattr(b, name) for name in ("ids", "positions", "types", "segments", "lengths", "ways")})
        wide = nn.functional.pad(b.targets, (0, most - b.max_ways)) if b.targets.dim() > 1 else b.targets
        # Tokens of no unit have the number beyond all units.
        unit_of = b.unit_of if b.unit_of is None else torch.where(b.unit_of == len(b.task_of), total, b.unit_of + units)
        moved[-1] |= {"example_of": b.example_of + texts, "group": b.group + texts, "task_of": b.task_of + tasks,
                      "ends": b.ends + tokens, "targets": wide, "unit_of": unit_of}  # fmt: skip
        texts, tasks, tokens = texts + len(b.lengths), tasks + b.count_tasks, tokens + b.count_tokens
        units += len(b.task_of)
    joined: dict[str, Any] = {
        name: None if value is None else torch.cat([cast(Tensor, each[name]) for each in moved])
        for name, value in moved[0].items()
    }
    runs = tuple(run for b in batches for run in b.runs)
    return replace(first, **joined, runs=runs, max_ways=most, max_units=None, trunk=None)


def parts(batch: Batch, most: int) -> list[Batch]:
    """The batch in parts of whole texts, of about `most` tokens each and at least `FEW`. Texts, units and tasks keep
    their numbers, so that features of the parts, zeros for a text that is elsewhere, add up to those of the whole."""
    lengths = lengths_of(batch)
    starts, cuts = np.cumsum([0, *lengths]), [0]
    for at in range(most, batch.count_tokens, most):
        cut = int(np.abs(starts - at).argmin())
        if starts[cut] - starts[cuts[-1]] >= FEW <= starts[-1] - starts[cut]:
            cuts.append(cut)
    return [
        _part(batch, slice(int(starts[first]), int(starts[last])), lengths[first:last])
        for first, last in pairwise([*cuts, len(lengths)])
    ]


def some(batch: Batch, places: Sequence[int]) -> Batch:
    """Those texts of a batch that stand at these places in the order of tokens. All keep their numbers, as in
    `parts`."""
    lengths = lengths_of(batch)
    tokens = spread(np.cumsum([0, *lengths]), np.asarray(places))
    return _part(batch, torch.from_numpy(tokens).to(batch.ids.device), [lengths[place] for place in places])


def lengths_of(batch: Batch) -> list[int]:
    """Tokens of each text, in the order of tokens."""
    return [length for count, length in batch.runs for _ in range(count)]


def _part(batch: Batch, where: slice | Tensor, lengths: Sequence[int]) -> Batch:
    """The tokens at `where`, those of texts of these lengths."""
    names = ("ids", "positions", "types", "segments", "example_of")
    tokens: dict[str, Any] = {name: getattr(batch, name)[where] for name in names}
    there = torch.zeros_like(batch.ids, dtype=torch.int32)
    there[where] = 1
    return replace(
        batch,
        **tokens,
        runs=tuple((len(list(same)), length) for length, same in groupby(lengths)),
        ends=nn.functional.pad(there.cumsum(0, dtype=torch.int32), (1, 0))[batch.ends.long()],
        unit_of=None if batch.unit_of is None else batch.unit_of[where],
        trunk=batch.trunk and replace(batch.trunk, states=batch.trunk.states[where]),
    )


@dataclass(frozen=True)
class Packing:
    """Keyword argument of a call of the model, which hands it down to every layer."""

    batch: Batch  # whose tokens these are
    recall: Tensor | None = None  # (1, P, hidden) output of the layers below the adapters; None where they run
    places: Tensor | None = None  # (M,) the tokens whose vectors a vocabulary head reads; None without such a head
    states: list[Tensor] = field(default_factory=list)  # (1, P, hidden) each, written by the layers as they run
    attended: list[str] = field(default_factory=list)  # the attention blocks that went through `packed_attention`

    @property
    def shape(self) -> tuple[int, int]:
        """N and L."""
        return sum(count for count, _ in self.batch.runs), self.batch.max_length

    @cached_property
    def text_of(self) -> Tensor:
        """The text of a token, counted in the order of tokens: (P,). No host sync."""
        return (self.batch.positions == 0).cumsum(0) - 1

    @cached_property
    def slots(self) -> Tensor:
        """Index of each token in the flattened padded grid N × L: (P,)."""
        return self.text_of * self.batch.max_length + self.batch.positions

    @cached_property
    def mask(self) -> Tensor:
        """True where a token is: (N, 1, 1, L)."""
        count, longest = self.shape
        there = torch.zeros(count * longest, dtype=torch.bool, device=self.slots.device)
        return there.index_fill(0, self.slots, True).view(count, 1, 1, longest)

    @cached_property
    def ends(self) -> Tensor:
        """Where each text begins, and the last one ends: (N + 1,) int32."""
        texts = torch.arange(self.shape[0] + 1, device=self.text_of.device)
        return torch.searchsorted(self.text_of, texts, out_int32=True)

    @property
    def padded_ends(self) -> Tensor:
        """Where each task ends in the flattened padded grid: (T,) int32."""
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
        """Views of the tokens of equally long texts, run by run: (P, H, d) -> (n, H, length, d) each."""
        found = flat.split([count * length for count, length in self.batch.runs])
        shapes = [(count, length, *flat.shape[1:]) for count, length in self.batch.runs]
        return [part.view(shape).transpose(1, 2) for part, shape in zip(found, shapes, strict=True)]
