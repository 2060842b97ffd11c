"""Encoders and decoders under adapters, or with all weights: scores, gradients and texts are those of plain
transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from near import LAYERS, near
from seq2seq_models import (
    KINDS,
    LORA,
    ROWS,
    SCALE,
    SOURCES,
    TOKENIZER,
    batch_of,
    check_all_weights_learn,
    check_tasks_apart,
    check_texts,
    merged,
    model_of,
    net_of,
    phi_of,
    plain_loss,
    plain_texts,
    stirred,
)

from metanlp.algorithms import Finetune
from metanlp.backbone import Lora, writer
from metanlp.backbone.all_weights import Size
from metanlp.backbone.seq2seq import Seq2Seq
from metanlp.core import weights
from metanlp.core.errors import InputError


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_are_those_of_plain_transformers(kind: str) -> None:
    """With other adapters than fresh ones, which change nothing; the plain model has them merged."""
    net, method = net_of(kind, LORA), Finetune()
    batch = batch_of(net, *ROWS)
    adapters = stirred(net.init(torch.Generator().manual_seed(0)))
    model = merged(model_of(kind), adapters, SCALE)
    expected = plain_loss(model, *ROWS)
    leaves = weights.leaves(adapters)
    loss = method.scores_loss(method.scores(net, phi_of(leaves), batch), batch)[0]
    near(loss.detach(), expected.detach(), LAYERS)
    expected.backward()
    up = next(key for key in adapters if "decoder" in key and "lora_B" in key)
    layer = up.removeprefix("lora/base_model.model.").removesuffix(".lora_B.weight")
    down = adapters[up.replace("lora_B", "lora_A")]
    near(weights.gradient(loss, leaves)[up], 4.0 * model.get_submodule(layer).weight.grad @ down.T, LAYERS)


@pytest.mark.parametrize("kind", KINDS)
def test_all_weights_learn_by_the_gradient_of_plain_transformers(kind: str) -> None:
    check_all_weights_learn(net_of(kind, None), model_of(kind), plain_loss, *ROWS)


@pytest.mark.parametrize("kind", ["marian", "t5"])
@pytest.mark.parametrize("at_once", [2, 32])
def test_tasks_in_one_pass_are_those_of_passes_of_their_own(
    kind: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by its own adapters, also where the longest sentences of tasks differ, so that padding does, and where pairs
    of several tasks go through the model by their lengths."""
    monkeypatch.setattr(writer, "AT_ONCE", at_once)
    check_tasks_apart(net_of(kind, LORA))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beams", [1, 3])
def test_texts_are_those_of_plain_transformers(kind: str, beams: int) -> None:
    check_texts(net_of(kind, LORA), model_of(kind), plain_texts, beams)


def test_a_bias_a_word_decides_what_is_written() -> None:
    net = net_of("marian", LORA)
    phi, word = (
        phi_of(net.init(torch.Generator().manual_seed(0))),
        TOKENIZER("d", add_special_tokens=False)["input_ids"],
    )
    phi["head/bias"][0, word] = 1e4
    assert {*"".join(net.generate(phi, SOURCES[:2], 2)).replace(" ", "")} == {"d"}


def test_a_new_model_is_saved_whole(tmp_path: Path) -> None:
    """It opens with the scores that it had: sinusoids, which no file holds, have not learned."""
    net = Seq2Seq.make(TOKENIZER, Size(1, 16, 2), 24, seed=3)
    theta = stirred(net.init(torch.Generator()))
    assert not [key for key in theta if "positions" in key]
    net.save(theta, tmp_path)
    batch, again = batch_of(net, *ROWS), Seq2Seq.load(str(tmp_path), LORA, max_length=24)
    near(again.features(again.init(torch.Generator()), batch).detach(), net.features(theta, batch).detach(), LAYERS)
    assert again.tokenizer("a face")["input_ids"] == TOKENIZER("a face")["input_ids"]
    assert weights.equal(net.init(torch.Generator()), Seq2Seq.make(TOKENIZER, Size(1, 16, 2), 24, seed=3).init(None))


def test_where_adapters_sit() -> None:
    layers = {targets: set(net_of("bart", Lora(4, layers="top half", targets=targets))._sides)
              for targets in ("query and value", "attention", "all linear")}  # fmt: skip
    assert [len(found) for found in layers.values()] == [2 + 4, 4 + 8, 6 + 10]
    assert all(".1." in name for name in layers["all linear"])


def test_other_models_are_refused(tiny: Path) -> None:
    with pytest.raises(InputError, match="could not be loaded"):
        Seq2Seq.load(str(tiny), LORA)
    model = model_of("bart")
    model.config.decoder_start_token_id = None
    with pytest.raises(InputError, match="has no decoder_start_token_id"):
        Seq2Seq(model, TOKENIZER, LORA, base="m")


def test_no_more_is_read_than_the_model_has_places_for() -> None:
    net = net_of("marian", LORA)
    places = net.config.max_position_embeddings
    longer = Seq2Seq(model_of("marian"), net.tokenizer, LORA, base="m", max_length=places + 24)
    assert longer.max_length == places
    tokens, _ = longer.encode(["word " * 3 * places], ["word " * 3 * places])
    assert tokens.lengths().max() <= places
