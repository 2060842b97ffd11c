"""A model with a vocabulary head: the same numbers as plain transformers, in every architecture."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from masked_models import given, model_of, plain
from near import LAYERS, near
from tiny_models import VOCABULARY
from transformers import AutoModelForMaskedLM, AutoTokenizer

from metanlp.algorithms.likelihood import Likelihood, bits_per_token
from metanlp.backbone.all_weights import Size
from metanlp.backbone.masked_lm import MaskedLM
from metanlp.backbone.new_tokenizer import train_tokenizer
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import MaskedPass

KINDS = ("bert", "roberta", "xlm-roberta", "distilbert", "albert", "electra", "modernbert")
WORDS = ["the", "cat", "sat", "on", "the", "mat", "and", "the", "dog", "lay", "under", "the", "table"]


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_are_those_of_plain_transformers(kind: str, tokenizer: Any) -> None:
    model, each = model_of(kind), given()
    out = plain(model, each)
    out.loss.backward()
    net = MaskedLM(model_of(kind), tokenizer, kind, precision="fp32")
    theta = net.init(torch.Generator())
    found = Likelihood().meta_grad(net, theta, each)
    expected = {f"base/{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    near(found.loss[0], out.loss.detach(), LAYERS)
    assert all(not value.any() for key, value in found.grad.items() if key not in expected)  # a pooler's
    near(weights.pick(found.grad, *expected), expected, LAYERS)


@pytest.mark.parametrize("kind", ["bert", "albert", "modernbert"])
def test_what_is_saved_has_the_same_logits(kind: str, tokenizer: Any, tmp_path: Path) -> None:
    net, each = MaskedLM(model_of(kind), tokenizer, kind, precision="fp32"), given()
    theta = {key: value + 0.1 for key, value in net.init(torch.Generator()).items()}
    net.save(theta, tmp_path)
    opened = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    logits = plain(opened, each).logits
    at = each.batch.example_of[each.places], each.batch.positions[each.places]
    near(net.logits(theta, each), logits[at].detach(), LAYERS)
    assert AutoTokenizer.from_pretrained(tmp_path)("a b")["input_ids"] == tokenizer("a b")["input_ids"]
    again = MaskedLM.load(str(tmp_path), precision="fp32")
    assert again.new == ()
    assert weights.equal(again.init(torch.Generator()), theta)


def test_an_encoder_without_a_head_gets_one_tied_to_its_embeddings(tiny: Path, tmp_path: Path) -> None:
    net, same, other = (MaskedLM.load(str(tiny), seed=seed, precision="fp32") for seed in (0, 0, 1))
    theta = net.init(torch.Generator())
    assert net.new
    assert all("cls." in name for name in net.new)
    assert "base/cls.predictions.decoder.weight" not in theta
    assert weights.equal(theta, same.init(torch.Generator()))
    assert not weights.equal(theta, other.init(torch.Generator()))
    net.save(theta, tmp_path)
    opened = cast(Any, AutoModelForMaskedLM.from_pretrained(tmp_path))
    assert opened.cls.predictions.decoder.weight is opened.bert.embeddings.word_embeddings.weight
    each = given()
    at = each.batch.example_of[each.places], each.batch.positions[each.places]
    near(net.logits(theta, each), plain(opened.eval(), each).logits[at].detach(), LAYERS)


def test_dropout_is_a_function_of_seed_and_number(tokenizer: Any) -> None:
    each, quiet = given(), MaskedLM(model_of("bert"), tokenizer, "bert", precision="fp32")
    net, other = (
        MaskedLM(model_of("bert"), tokenizer, "bert", dropout=0.3, seed=seed, precision="fp32") for seed in (0, 1)
    )
    theta = net.init(torch.Generator())
    state = torch.get_rng_state()
    first, again = net.logits(theta, each), net.logits(theta, each)
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, quiet.logits(theta, each))
    assert not torch.equal(first, other.logits(theta, each))
    later = MaskedPass(each.batch, each.places, each.targets, 1)
    assert not torch.equal(first, net.logits(theta, later))
    assert net.config.hidden_dropout_prob == 0.1, "what is saved keeps the architecture's own"


def test_half_precision_is_near_and_its_gradient_is_whole(tokenizer: Any) -> None:
    each = given()
    exact, half = (MaskedLM(model_of("bert"), tokenizer, "bert", precision=p) for p in ("fp32", "bf16"))
    theta = exact.init(torch.Generator())
    assert abs(float(exact.loss(theta, each)) / float(half.loss(theta, each)) - 1) < 0.05
    grad = Likelihood().meta_grad(half, theta, each).grad
    assert {value.dtype for value in grad.values()} == {torch.float32}


def test_bits_of_a_model_that_knows_nothing(tokenizer: Any) -> None:
    net = MaskedLM(model_of("bert"), tokenizer, "bert", precision="fp32")
    zero = weights.zeros(net.init(torch.Generator()))
    near(bits_per_token(net, zero, [given()]), [float(np.log2(VOCABULARY))])


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_a_tokenizer_of_ones_own(kind: Any, tmp_path: Path) -> None:
    made = train_tokenizer([" ".join(WORDS)] * 20, kind, 400, lower=True)
    ids = made("The CAT sat")["input_ids"]
    assert (ids[0], ids[-1]) == (made.cls_token_id, made.sep_token_id)
    assert made.decode(ids, skip_special_tokens=True).strip() == "the cat sat"
    assert made.mask_token_id not in ids
    net = MaskedLM.make(made, Size(2, 16, 2), 16, seed=1)
    theta = net.init(torch.Generator())
    assert weights.equal(theta, MaskedLM.make(made, Size(2, 16, 2), 16, seed=1).init(torch.Generator()))
    net.save(theta, tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("the cat")["input_ids"] == made("the cat")["input_ids"]
    if kind == "bpe":  # any text can be told
        assert made.unk_token_id not in made("日本 \N{GRINNING FACE}")["input_ids"]


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_equal_texts_give_an_equal_tokenizer(kind: Any) -> None:
    """Though nearly all of their pieces are equally frequent, and letters are more than the alphabet may hold."""
    chance = random.Random(0)
    letters = [
        chr(number) for number in (*range(97, 123), *range(0x3B1, 0x3C9), *range(0x430, 0x450), *range(0x5D0, 0x5EA))
    ]
    texts = [" ".join("".join(chance.choices(letters, k=4)) for _ in range(30)) for _ in range(40)]
    made = {train_tokenizer(texts, kind, 420, lower=True).backend_tokenizer.to_str() for _ in range(4)}
    assert len(made) == 1


@pytest.mark.parametrize(("kind", "least"), [("bpe", 261), ("wordpiece", 105)])
def test_a_vocabulary_below_its_alphabet(kind: Any, least: int) -> None:
    with pytest.raises(InputError, match=f"from {least}"):
        train_tokenizer(["a b"], kind, least - 1, lower=True)


def test_what_can_not_be_pretrained(tokenizer: Any) -> None:
    with pytest.raises(InputError, match="a mpnet model can't be pretrained here; take albert, bert"):
        MaskedLM(model_of("mpnet"), tokenizer, "m")
    bare = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    bare.mask_token = None
    with pytest.raises(InputError, match="has no mask token"):
        MaskedLM(model_of("bert"), bare, "m")
    with pytest.raises(InputError, match="the width a multiple of the heads"):
        Size(2, 30, 4)
