"""The second text of a pair, where it stands in the first."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from near import LAYERS, near
from test_architectures import byte_level

from metanlp.backbone import Backbone, Lora
from metanlp.backbone.packing import pack
from metanlp.backbone.phrase import phrase_in, segments_of

PAIRS = [
    ("please cancel my order today", "my order"),  # in the middle
    ("Order it", "order"),  # where a text begins, in another case
    ("is it raining", "yes, all day long"),  # nowhere
    ("reorder my orders", "order"),  # inside of words only
]


@pytest.fixture(scope="module")
def net(tiny: Path) -> Backbone:
    views = [f"frozen.2.{pooling}" for pooling in ("all", "first", "second", "phrase")]
    return Backbone.load(str(tiny), Lora(rank=4), views=views, precision="fp32")


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("U.S. beat Spain", "U.S.", (0, 4)),
        ("a (b) c", " (b)\n", (2, 5)),
        ("New\u00a0York, new york", "new york", (10, 18)),
        ("İstanbul and istanbul", "istanbul", (0, 8)),  # whose lower case is longer
        ("anything", "", None),
        ("anything", "thing", None),
        ("", "thing", None),
    ],
)
def test_whole_words_in_any_case(first: str, second: str, found: tuple[int, int] | None) -> None:
    assert phrase_in(first, second) == found


def marked(net: Backbone, pair: tuple[str, str]) -> list[str]:
    tokens = net.encode([pair])
    return net.tokenizer.convert_ids_to_tokens(tokens.ids[tokens.segments == 3].tolist())


def test_a_phrase_and_the_tokens_beside_it_are_marked(net: Backbone) -> None:
    words = net.tokenizer.tokenize
    assert marked(net, PAIRS[0]) == [words("cancel")[-1], *words("my order"), words("today")[0]]
    assert marked(net, PAIRS[1]) == [*words("order"), words("it")[0]]
    assert marked(net, PAIRS[2]) == marked(net, PAIRS[3]) == []


def test_a_byte_is_a_token_too() -> None:
    one = byte_level()("see ab now", "\nab")[0]
    assert segments_of(one, "see ab now", "\nab") == [1, 1, 1, 3, 3, 3, 3, 1, 1, 1, 2, 2, 2]


def test_a_phrase_that_was_cut_off_is_none(tiny: Path) -> None:
    short = Backbone.load(str(tiny), Lora(rank=4), max_length=16)
    tokens = short.encode([("what is it " * 20 + "order", "order")])
    assert set(tokens.segments) == {0, 1, 2}


def test_the_view_reads_the_phrase_else_the_second_text(net: Backbone, tiny: Path) -> None:
    tokens = net.encode(PAIRS)
    batch = pack(tokens, range(len(PAIRS)), [0] * len(PAIRS), 2)
    views = net.features(net.init(torch.Generator().manual_seed(0)), batch)
    whole, first, second, phrase = views.unbind(1)
    for n in (2, 3):
        assert torch.equal(phrase[n], second[n])
    plain = net.base.encoder(dtype=torch.float32).eval()
    for n, pair in enumerate(PAIRS[:2]):
        encoded = net.tokenizer(*pair, return_tensors="pt")
        with torch.no_grad():
            states = plain(**encoded, output_hidden_states=True).hidden_states[2][0]
        of = torch.from_numpy(net.encode([pair]).segments)
        near(phrase[n], states[of == 3].mean(0), LAYERS)
        near(first[n], states[(of == 1) | (of == 3)].mean(0), LAYERS)
        assert not torch.equal(phrase[n], second[n])
        assert not torch.equal(whole[n], first[n])


def test_a_single_text_is_read_whole(net: Backbone) -> None:
    batch = pack(net.encode([("cancel my order",)]), [0], [0], 2)
    whole, _, _, phrase = net.features(net.init(torch.Generator().manual_seed(0)), batch).unbind(1)
    assert torch.equal(whole, phrase)
