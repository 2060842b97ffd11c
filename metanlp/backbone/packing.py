"""Token-packed passes: all sequences lie end to end, and only attention looks at where one ends.

Linear layers, norms and adapters see no padding, and on CPUs attention sees none either. Letters: P packed tokens,
N sequences, L the longest, H heads, d head size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import groupby
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from metanlp.ragged import counts, spread
from metanlp.types import Batch, Tokens

ATTENTION = "metanlp_packed"  # the name of `packed_attention` in transformers' registry
PART = 1_024  # tokens of a part, where gradients are computed part by part
HARMLESS = {"position_ids", "deterministic", "output_attentions", "use_cache", "cache_position", "output_hidden_states"}


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


Near = Callable[[int], Tensor | None]
"""Which token of a text of this length may look at which: (L, L), None for all at all."""
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Attention proper: queries, keys, values (n, H, L, d) and which may look at which, None for all -> (n, H, L, d)."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Attention within each sequence: queries (1, H, P, d), keys and values of as many heads or a divisor of it
    -> (1, P, H, d). Registered under `ATTENTION`.

    On CPUs nothing is padded; elsewhere it pads inside itself only. Keywords that would change the result are refused
    rather than passed over.
    """
    unknown = sorted(name for name, what in others.items() if what is not None and name not in HARMLESS)
    if unknown or attention_mask is not None or dropout:
        raise NotImplementedError(f"packed attention does not know {unknown or ['attention_mask', 'dropout']}")
    packing.attended.append(type(module).__name__)
    heads, size = query.shape[1], query.shape[3]
    on_cpu = query.device.type == "cpu"
    # bf16 attention is slow on CPUs (42 % of a pass when measured), so it runs in fp32 there.
    q, k, v = (x[0].transpose(0, 1).to(torch.float32 if on_cpu else query.dtype) for x in (query, key, value))
    if k.shape[1] != heads:  # grouped queries: Ainslie et al. 2023
        k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    near = partial(allowed, causal=causal, window=sliding_window, device=query.device)
    attend = plain_attention(scaling) if softcap is None else capped_attention(size, scaling, softcap)
    out = (by_runs if on_cpu else by_padding)(packing, q, k, v, attend, near)
    return out.view(1, -1, heads, size).to(query.dtype), None


def by_runs(packing: Packing, q: Tensor, k: Tensor, v: Tensor, attend: Attend, near: Near) -> Tensor:
    """Equally long texts together, a call for each length: (P, H, d) each -> (P, H, d). On a CPU half the time of one
    padded call, where few-shot sets are concerned; a GPU would wait for the launches."""
    runs = zip(packing.batch.runs, *(packing.rectangles(x) for x in (q, k, v)), strict=True)
    return torch.cat([attend(a, b, c, near(length)).transpose(1, 2).flatten(0, 1) for (_, length), a, b, c in runs])


def by_padding(packing: Packing, q: Tensor, k: Tensor, v: Tensor, attend: Attend, near: Near) -> Tensor:
    """All texts in one call: (P, H, d) each -> (P, H, d)."""
    a, b, c = (packing.padded(x).transpose(1, 2) for x in (q, k, v))
    places = near(packing.shape[1])
    mask = packing.mask if places is None else packing.mask & places
    return packing.packed(attend(a, b, c, mask).transpose(1, 2))


def allowed(longest: int, causal: bool, window: int | None, device: torch.device) -> Tensor | None:
    """Which token may look at which, by their places alone: (L, L), or None where all may."""
    if not causal and (window is None or window >= longest):
        return None
    place = torch.arange(longest, device=device)
    behind = place[:, None] - place
    near = behind.abs() < (window or longest)  # transformers counts a window with the token itself, on each side
    return near & (behind >= 0) if causal else near


def plain_attention(scaling: float | None) -> Attend:
    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)

    return attend


def capped_attention(size: int, scaling: float | None, cap: float) -> Attend:
    """Attention whose scores are bent to stay below `cap` (Gemma 2, arXiv 2408.00118, §2)."""
    scale = size**-0.5 if scaling is None else scaling

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        scores = torch.tanh((q @ k.transpose(2, 3)) * scale / cap) * cap
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return torch.softmax(scores, dim=-1) @ v

    return attend
