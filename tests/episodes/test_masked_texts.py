"""A corpus as tokens, its order, and what of it is hidden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from metanlp.core.errors import InputError
from metanlp.episodes.corpus import Chunks, Epochs, MaskedChunks, Masking, Vocabulary, choose, replaced, shuffled

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def chunks(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Chunks:
    folder = tmp_path_factory.mktemp("corpus")
    texts = [" ".join(["please", "open", "the", "window"] * (1 + number % 17)) + f" {number}" for number in range(50)]
    return Chunks.write(folder, texts, AutoTokenizer.from_pretrained(tiny), 32)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**31))
def test_a_shuffle_is_a_permutation(count: int, seed: int) -> None:
    places = shuffled(np.arange(count), count, (seed, 0))
    assert sorted(places) == list(range(count))
    assert np.array_equal(shuffled(np.arange(count)[::-1], count, (seed, 0)), places[::-1])


def test_epochs_have_orders_of_their_own() -> None:
    orders = {tuple(shuffled(np.arange(50), 50, (0, epoch))) for epoch in range(5)}
    assert len(orders) == 5
    assert tuple(range(50)) not in orders
    spread = shuffled(np.arange(2000), 2000, (0, 0))
    assert abs(np.corrcoef(spread, np.arange(2000))[0, 1]) < 0.1


def test_no_token_of_a_text_is_lost(chunks: Chunks, tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    ids, kinds, starts = chunks.take(np.arange(len(chunks)))
    assert np.diff(starts).max() == 32
    assert set(ids[kinds == 0]) == {tokenizer.cls_token_id, tokenizer.sep_token_id}
    assert (ids[starts[:-1]] == tokenizer.cls_token_id).all()
    first = tokenizer(" ".join(["please", "open", "the", "window"]) + " 0")["input_ids"]
    assert ids[: starts[1]].tolist() == first
    assert chunks.counts(1000).sum() == (kinds > 0).sum()


@pytest.mark.parametrize("rate", [0.15, 0.3])
@pytest.mark.parametrize("whole", [True, False])
def test_what_is_hidden(chunks: Chunks, rate: float, whole: bool) -> None:
    _, kinds, _ = chunks.take(np.arange(len(chunks)))
    hidden = choose(kinds, Masking(rate, whole), RNG(0))
    assert not hidden[kinds == 0].any()
    assert rate - 0.01 < hidden.sum() / (kinds > 0).sum() <= rate + 1e-3
    later = kinds == 2
    if whole:
        assert (hidden[later] == hidden[np.flatnonzero(later) - 1]).all()
    assert not np.array_equal(hidden, choose(kinds, Masking(rate, whole), RNG(1)))


def test_at_least_one_word_is_hidden() -> None:
    assert choose(np.array([0, 1, 2, 0]), Masking(0.01), RNG(0)).tolist() == [False, True, True, False]


def test_eight_of_ten_are_masked_one_is_another_one_is_itself() -> None:
    ids, hidden = np.full(40_000, 7), np.arange(40_000) % 4 == 0
    read = replaced(ids, hidden, Vocabulary(4, np.arange(5, 100)), RNG(0))
    assert (read[~hidden] == 7).all()
    shares = [(read[hidden] == 4).mean(), (read[hidden] == 7).mean()]
    assert 0.78 < shares[0] < 0.82
    assert 0.08 < shares[1] < 0.13
    assert set(np.unique(read)) == {4, *range(5, 100)}


def test_a_pass_is_a_function_of_its_number(chunks: Chunks) -> None:
    draws = Epochs(MaskedChunks(chunks, Vocabulary(4, np.arange(5, 1000)), Masking()), 8, seed=3)
    again = Epochs(MaskedChunks(chunks, Vocabulary(4, np.arange(5, 1000)), Masking()), 8, seed=3)
    assert draws.checksum(5, 2) == again.checksum(5, 2) != draws.checksum(6, 2)
    other = Epochs(MaskedChunks(chunks, Vocabulary(4, np.arange(5, 1000)), Masking()), 8, seed=4)
    assert draws.checksum(5, 1) != other.checksum(5, 1)


def test_an_epoch_reads_every_chunk_once_and_masks_it_anew(chunks: Chunks) -> None:
    draws = Epochs(MaskedChunks(chunks, Vocabulary(4, np.arange(5, 1000)), Masking()), len(chunks), seed=0)
    first, second = draws[0], draws[1]
    assert first.batch.count_tokens == second.batch.count_tokens == chunks.tokens
    assert len(first.batch.lengths) == len(chunks)
    assert not np.array_equal(np.sort(first.targets.numpy()), np.sort(second.targets.numpy()))


def test_targets_are_what_stood_there(chunks: Chunks) -> None:
    """With a mask that no text holds, whatever else is read is a target or unchanged."""
    draws = Epochs(MaskedChunks(chunks, Vocabulary(4, np.array([999])), Masking(0.3)), 4, seed=0)
    each = draws[0]
    rows = shuffled(np.arange(4), len(chunks), (0, 0))
    ids, _, starts = chunks.take(rows)
    order = np.concatenate([np.arange(starts[n], starts[n + 1]) for n in np.argsort(np.diff(starts), kind="stable")])
    restored = each.batch.ids.clone()
    restored[each.places] = each.targets
    assert restored.tolist() == ids[order].tolist()


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0])
def test_rates_that_can_not_be(rate: float) -> None:
    with pytest.raises(InputError, match="masking rate"):
        Masking(rate)
