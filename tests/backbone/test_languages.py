"""Models that mark texts with their language (NLLB, mBART, mBART-50): losses and texts are those of plain transformers,
and a tag that is missing or unknown is told in a line."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from near import LAYERS, near
from seq2seq_models import BART, LORA, SOURCES, TARGETS, TOKENIZER, net_of, phi_of, stirred
from slowly import slow_but
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
    NllbTokenizer,
)

from metanlp.backbone.languages import codes_of, prompted
from metanlp.backbone.models import options_of
from metanlp.backbone.seq2seq import Seq2Seq
from metanlp.core.errors import InputError
from metanlp.core.settings import to_json
from metanlp.episodes.sentence_pairs import SentencePairs

MARKS = ("<s>", "<pad>", "</s>", "<unk>")
LETTERS = ("▁", *"abcdefghijklmnopqrstuvwxyz")
TAGS = {"nllb": ("eng_Latn", "deu_Latn"), "mbart": ("en_XX", "de_DE"), "mbart50": ("en_XX", "de_DE")}


def tokenizer_of(kind: str) -> Any:
    if kind == "nllb":
        return NllbTokenizer(vocab={piece: number for number, piece in enumerate((*MARKS, *LETTERS))}, merges=[])
    pieces = [(mark, 0.0) for mark in MARKS] + [(letter, -1.0) for letter in LETTERS]
    kinds: dict[str, Any] = {"mbart": MBartTokenizer, "mbart50": MBart50Tokenizer}
    codes = list(codes_of(kinds[kind]()))
    return kinds[kind](vocab=[*pieces, *((code, 0.0) for code in codes), ("<mask>", 0.0)])


def model_of(kind: str, words: int) -> Any:
    config: Any = M2M100Config if kind == "nllb" else MBartConfig
    make: Any = M2M100ForConditionalGeneration if kind == "nllb" else MBartForConditionalGeneration
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(config(vocab_size=words, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2, **BART)).eval()


def made(kind: str) -> tuple[Any, Any, Seq2Seq]:
    """A tokenizer, a plain model, and ours of the same weights, from English to German."""
    tokenizer = tokenizer_of(kind)
    model = model_of(kind, len(tokenizer))
    net = Seq2Seq(model_of(kind, len(tokenizer)), tokenizer, LORA, base=kind, max_length=24)
    tokenizer.src_lang, tokenizer.tgt_lang = TAGS[kind]
    return tokenizer, model, net.between(TAGS[kind])


@pytest.mark.parametrize("kind", TAGS)
def test_the_loss_is_that_of_plain_transformers(kind: str) -> None:
    """Given labels, which transformers shifts by itself; text by text, nothing padded."""
    tokenizer, model, net = made(kind)
    pool, adapters = SentencePairs(*net.encode(SOURCES, TARGETS)), net.init(torch.Generator().manual_seed(0))
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        given = tokenizer(source, text_target=target, return_tensors="pt")
        expected = model(input_ids=given["input_ids"], labels=given["labels"]).loss
        found = net.loss(adapters, pool.draw(np.array([row]), np.random.default_rng(0), 0))
        near(found.detach(), expected.detach(), LAYERS)


@pytest.mark.parametrize(
    ("kind", "beams"), slow_but([("nllb", 3), ("mbart", 1), ("mbart50", 1)], product(TAGS, (1, 3)))
)
def test_texts_are_those_of_plain_transformers(kind: str, beams: int) -> None:
    """mBART's target begins with its language where others begin with the end of a text, and they write it first."""
    tokenizer, model, net = made(kind)
    code = tokenizer.convert_tokens_to_ids(TAGS[kind][1])
    begins = {"decoder_start_token_id": code} if kind == "mbart" else {"forced_bos_token_id": code}
    expected = list[str]()
    for source in SOURCES:
        read = tokenizer(source, return_tensors="pt")
        ids = model.generate(input_ids=read["input_ids"], attention_mask=read["attention_mask"], num_beams=beams,
                             do_sample=False, max_new_tokens=24, **begins)  # fmt: skip
        expected.append(tokenizer.decode(ids[0], skip_special_tokens=True).strip())
    phi = phi_of(net.init(torch.Generator().manual_seed(0))) | {"head/bias": torch.zeros(1, len(tokenizer))}
    assert net.generate(phi, SOURCES, beams) == expected
    other = net.between((TAGS[kind][0], "fra_Latn" if kind == "nllb" else "fr"))  # the same model, at the same time
    assert other.generate(phi, SOURCES, beams) != expected
    assert net.generate(phi, SOURCES, beams) == expected


def test_a_tag_is_the_models_own_or_begins_it() -> None:
    net = made("mbart")[2]
    assert net.between(("en", "fr")).languages == ("en_XX", "fr_XX")
    with pytest.raises(
        InputError, match=r"the model has no language 'fra_Latn'; write its tag as the model does, such as fr_XX"
    ):
        net.between(("en", "fra_Latn"))
    with pytest.raises(
        InputError, match=r"a language tag is missing: nllb marks each text with its language; give each exam"
    ):
        Seq2Seq(model_of("nllb", len(tokenizer_of("nllb"))), tokenizer_of("nllb"), LORA, base="nllb").encode(
            ["a"], ["b"]
        )
    assert codes_of(TOKENIZER) == {}


def test_the_callers_tokenizer_keeps_its_languages() -> None:
    tokenizer = tokenizer_of("mbart")
    Seq2Seq(model_of("mbart", len(tokenizer)), tokenizer, LORA, base="m").between(("fr", "de"))
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("en_XX", None)


def test_a_prompt_names_languages() -> None:
    assert prompted(">>{target_lang}<< ", ("en", "de"), ["a {b}"]) == [">>de<< a {b}"]
    assert prompted("{source_lang}: {source} {target_lang}:", ("en", "de"), ["a"]) == ["en: a de:"]
    assert prompted("{", (), ["a"]) == ["{a"]
    assert prompted("{target_lang.__class__:>9} ", ("en", "de"), ["a"]) == ["{target_lang.__class__:>9} a"]
    with pytest.raises(
        InputError, match=r"a language tag is missing: the prompt '>>\{target_lang\}<<' names languages; give"
    ):
        prompted(">>{target_lang}<<", (), ["a"])


def test_texts_that_were_cut_are_counted_once() -> None:
    net = net_of("marian", LORA)
    assert net.notice() == ""
    phi = phi_of(stirred(net.init(torch.Generator().manual_seed(0))))
    for _ in range(2):
        net.encode(["a bad cab " * 20, "dad"], ["p", "ein b"])
        net.generate(phi, ["a bad cab " * 20])
    assert net.notice() == "1 of 4 texts that were read were cut after 24 tokens"


@pytest.mark.parametrize("wrong", [{"languages": ["en"]}, {"max_length": 0}, {"opens": "AutoModel"}])
def test_options_out_of_a_file_are_checked(wrong: dict[str, Any]) -> None:
    said: dict[str, Any] = to_json(net_of("marian", LORA).options)
    assert options_of(said) == net_of("marian", LORA).options
    with pytest.raises(InputError):
        options_of(said | wrong)
