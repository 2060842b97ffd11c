"""Token-packed passes: all sequences lie end to end, and only attention looks at where one ends.

Linear layers, norms and adapters see no padding. Letters: P packed tokens, N sequences, L the longest,
H heads, d head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from metanlp.ragged import spread
from metanlp.types import Batch, Tokens, Trunk

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
    """The given texts of one task, end to end, in the order given. `targets` are those of the units: the texts, or
    `by_word` the words in which some token begins, text by text as `words_of` lists them."""
    picked = np.asarray(rows, dtype=np.int64)
    lengths = tokens.lengths()[picked]
    ends = np.cumsum(lengths)
    example_of = np.repeat(np.arange(len(picked)), lengths)
    positions = np.arange(int(ends[-1])) - np.repeat(ends - lengths, lengths)
    places = spread(tokens.starts, picked)
    unit_of = None
    if by_word:
        group, _, unit_of = words_of(tokens, picked)
    elif group is None:
        group = np.arange(len(picked))
    return Batch(
        ids=torch.from_numpy(tokens.ids[places]),
        positions=torch.from_numpy(positions),
        types=torch.from_numpy(tokens.types[places]),
        segments=torch.from_numpy(tokens.segments[places]),
        example_of=torch.from_numpy(example_of),
        lengths=torch.from_numpy(lengths),
        task_of=torch.zeros(len(group), dtype=torch.long),
        targets=torch.as_tensor(targets),
        group=torch.from_numpy(group),
        ways=torch.tensor([ways]),
        ends=torch.tensor([int(ends[-1])], dtype=torch.int32),
        max_length=int(lengths.max()),
        max_ways=ways,
        form=form,
        unit_of=None if unit_of is None else torch.from_numpy(unit_of),
    )


def words_of(tokens: Tokens, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The words in which tokens of these texts begin: place of the text in `rows` (N,), word of the text (N,), and of
    each token the number of its word in these two, N for none: (P,). Words may be missing where a text was cut."""
    assert tokens.words is not None, "encode with words=True"
    text_of = np.repeat(np.arange(len(rows)), tokens.lengths()[rows])
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
        task_of=cat("task_of", before([b.count_tasks for b in batches])),
        targets=torch.cat([nn.functional.pad(b.targets, (0, most - b.max_ways)) if b.targets.dim() > 1 else b.targets
                           for b in batches]),
        group=cat("group", texts),
        ends=cat("ends", before([b.count_tokens for b in batches])).to(torch.int32),
        max_length=max(b.max_length for b in batches),
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
    """Runs of whole texts, of about `most` tokens each; every task keeps its number, with texts or without."""
    ends = batch.lengths.cumsum(0).tolist()
    first = [n for n, end in enumerate(ends) if n == 0 or (end - 1) // most > (ends[n - 1] - 1) // most]
    return [_texts(batch, start, stop, ends) for start, stop in zip(first, [*first[1:], len(ends)], strict=True)]


def padded_ends(batch: Batch) -> Tensor:
    """Where each task's places end in the padded grid: (T,) int32. A task without texts ends where the one before it
    does."""
    texts = torch.where(batch.ends > 0, batch.example_of[(batch.ends.long() - 1).clamp(min=0)] + 1, 0)
    return (texts * batch.max_length).int()


def _texts(batch: Batch, start: int, stop: int, ends: Sequence[int]) -> Batch:
    begin, end = ends[start - 1] if start else 0, ends[stop - 1]
    of_tokens = {name: getattr(batch, name)[begin:end] for name in ("ids", "positions", "types", "segments")}
    low, high, unit_of = start, stop, None
    if batch.unit_of is not None:
        low, high = torch.searchsorted(batch.group, torch.tensor([start, stop]).to(batch.group)).tolist()
        unit_of = batch.unit_of[begin:end]
        unit_of = torch.where(unit_of == len(batch.task_of), high - low, unit_of - low)
    of_units = {name: getattr(batch, name)[low:high] for name in ("task_of", "targets", "group")}
    trunk = batch.trunk and Trunk(batch.trunk.states[begin:end], batch.trunk.frozen[low:high])
    places: dict[str, Any] = {
        "lengths": batch.lengths[start:stop],
        "example_of": batch.example_of[begin:end] - start,
        "ends": (batch.ends - begin).clamp(0, end - begin),
    }
    return replace(batch, **of_tokens, **of_units, **places, unit_of=unit_of, trunk=trunk)


@dataclass(frozen=True)
class Packing:
    """Travels with one call of the model, as a keyword, down to every layer."""

    slots: Tensor  # (P,) place of each token in the padded grid of N × L, flattened
    shape: tuple[int, int]  # (N, L)
    mask: Tensor  # (N, 1, 1, L) True where a token is
    recall: Tensor | None = None  # (1, P, hidden) what the layers below the adapters gave; None where they run
    states: list[Tensor] = field(default_factory=list)  # (1, P, hidden) each, written by the layers as they run
    attended: list[str] = field(default_factory=list)  # the attention blocks that went through `packed_attention`

    @staticmethod
    def of(batch: Batch, recall: Tensor | None = None) -> Packing:
        shape = (batch.lengths.shape[0], batch.max_length)
        grid = torch.arange(batch.max_length, device=batch.lengths.device)
        return Packing(
            slots=batch.example_of * batch.max_length + batch.positions,
            shape=shape,
            mask=(grid < batch.lengths[:, None])[:, None, None],
            recall=None if recall is None else recall[None],
        )

    def padded(self, flat: Tensor) -> Tensor:
        """(P, …) -> (N, L, …), zeros where no token is. `index_copy` has a fast backward, unlike indexing."""
        count, longest = self.shape
        grid = flat.new_zeros(count * longest, *flat.shape[1:]).index_copy(0, self.slots, flat)
        return grid.view(count, longest, *flat.shape[1:])

    def packed(self, grid: Tensor) -> Tensor:
        """(N, L, …) -> (P, …), the inverse of `padded`."""
        return grid.flatten(0, 1).index_select(0, self.slots)


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

    It pads inside itself only. Keywords that would change the result are refused rather than passed over.
    """
    unknown = sorted(name for name, what in others.items() if what is not None and name not in HARMLESS)
    if unknown or attention_mask is not None or dropout:
        raise NotImplementedError(f"packed attention does not know {unknown or ['attention_mask', 'dropout']}")
    packing.attended.append(type(module).__name__)
    heads, size = query.shape[1], query.shape[3]
    # bf16 attention is slow on CPUs (42 % of a pass when measured), so it runs in fp32 there.
    kind = torch.float32 if query.device.type == "cpu" else query.dtype
    q, k, v = (packing.padded(x[0].transpose(0, 1).to(kind)).transpose(1, 2) for x in (query, key, value))
    if k.shape[1] != heads:  # grouped queries: Ainslie et al. 2023
        k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    mask = packing.mask & allowed(packing.shape[1], causal, sliding_window, query.device)
    if softcap is None:
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
    else:
        out = capped_attention(q, k, v, mask, size**-0.5 if scaling is None else scaling, softcap)
    return packing.packed(out.transpose(1, 2)).view(1, -1, heads, size).to(query.dtype), None


def allowed(longest: int, causal: bool, window: int | None, device: torch.device) -> Tensor:
    """Which token may look at which, by their places alone: True, or (L, L)."""
    if not causal and (window is None or window >= longest):
        return torch.ones((), dtype=torch.bool, device=device)
    place = torch.arange(longest, device=device)
    behind = place[:, None] - place
    near = behind.abs() < (window or longest)  # transformers counts a window with the token itself, on each side
    return near & (behind >= 0) if causal else near


def capped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scaling: float, cap: float) -> Tensor:
    """Attention whose scores are bent to stay below `cap` (Gemma 2, arXiv 2408.00118, §2)."""
    scores = torch.tanh((q @ k.transpose(2, 3)) * scaling / cap) * cap
    return torch.softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min), dim=-1) @ v
