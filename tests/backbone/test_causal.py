"""Decoders after a prompt, under adapters or with all weights: scores, gradients and texts are those of plain
transformers."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from causal_models import KINDS, model_of, net_of, plain_loss, plain_texts
from near import LAYERS, near
from seq2seq_models import (
    LORA,
    ROWS,
    SCALE,
    TOKENIZER,
    check_all_weights_learn,
    check_tasks_apart,
    check_texts,
    merged,
    pool_of,
    stirred,
)
from transformers import AutoConfig, AutoModelForCausalLM

from metanlp.backbone import Lora
from metanlp.backbone.causal import Causal
from metanlp.core import weights
from metanlp.core.errors import InputError


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_that_of_plain_transformers_with_the_adapters_merged(kind: str) -> None:
    net = net_of(kind, LORA)
    adapters, pool = stirred(net.init(torch.Generator().manual_seed(0))), pool_of(net)
    given = pool.draw(np.array(ROWS), np.random.default_rng(0), 0)
    near(
        net.loss(adapters, given).detach(), plain_loss(merged(model_of(kind), adapters, SCALE), *ROWS).detach(), LAYERS
    )


@pytest.mark.parametrize("kind", KINDS)
def test_all_weights_learn_by_the_gradient_of_plain_transformers(kind: str) -> None:
    check_all_weights_learn(net_of(kind, None), model_of(kind), plain_loss, *ROWS)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_tasks_in_one_pass_are_those_of_passes_of_their_own(kind: str) -> None:
    check_tasks_apart(net_of(kind, LORA))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beams", [1, 3])
def test_texts_are_those_of_plain_transformers(kind: str, beams: int) -> None:
    check_texts(net_of(kind, LORA), model_of(kind), plain_texts, beams)


def test_a_long_prompt_keeps_its_end_and_a_target_its_beginning() -> None:
    net = net_of("llama", LORA)
    (long,) = (f"{'a bad cab ' * 20}{end}" for end in ["face"])
    tokens, told = net.encode([long], [long])
    ids, whole = tokens.ids.tolist(), TOKENIZER(long)["input_ids"]
    assert ids[:23] + ids[23:24] == whole[-24:]
    assert told.tolist()[-1] == TOKENIZER.eos_token_id
    assert len(told) == 24
    assert ids[24:] == told.tolist()[:-1]


def test_the_callers_tokenizer_stays_as_it_was() -> None:
    tokenizer = deepcopy(TOKENIZER)
    tokenizer.pad_token = None
    before = tokenizer.padding_side
    Causal(model_of("gpt2"), tokenizer, LORA, base="m")
    assert (tokenizer.padding_side, tokenizer.pad_token) == (before, None)


def test_what_does_not_write_after_a_prompt_is_refused() -> None:
    """An encoder with a vocabulary head opens as a writer, but reads what comes after."""
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    bert = AutoModelForCausalLM.from_config(AutoConfig.for_model("bert", vocab_size=len(TOKENIZER), **size))
    with pytest.raises(InputError, match="a bert model does not write after a prompt"):
        Causal(bert, TOKENIZER, LORA, base="m")
    with pytest.raises(InputError, match="is a prompt of one token; put words before it with --prefix"):
        net_of("gpt2", LORA).encode([""], ["b"])
    ended = deepcopy(TOKENIZER)
    ended.eos_token = None
    with pytest.raises(InputError, match="has no end of text"):
        Causal(model_of("gpt2"), ended, LORA, base="m")


def test_where_adapters_sit() -> None:
    layers = {targets: len(set(net_of("gpt2", Lora(4, layers="all", targets=targets))._layers))
              for targets in ("query and value", "attention", "all linear")}  # fmt: skip
    assert layers == {"query and value": 2, "attention": 4, "all linear": 8}
    fresh = net_of("gpt2", LORA).init(torch.Generator().manual_seed(0))
    assert not any(bool(value.any()) for key, value in fresh.items() if "lora_B" in key)
    assert weights.equal(fresh, net_of("gpt2", LORA).init(torch.Generator().manual_seed(0)))
