"""Every architecture says, run our way, what plain transformers and plain peft say of it on padded input."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from near import INNER_STEPS, LAYERS, near
from peft import PeftModel
from slowly import slow_but
from stacks import stacked, take
from tiny_models import (
    DEPTH,
    TINY,
    opened,
    plainly,
    stirred,
    texts,
    tiny_model,
    whole,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers_of import tokenizer_of
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from metanlp.backbone import Backbone, Lora
from metanlp.backbone.encoder import Options
from metanlp.backbone.families import FAMILIES, read_off
from metanlp.backbone.packing import join, pack
from metanlp.backbone.tokens import encode
from metanlp.core import weights
from metanlp.learner.artefact import write_artefact

POOLINGS = ("all", "second", "cls", "last")


@pytest.fixture(scope="module", params=TINY)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(kind: str, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder as it would come from a hub."""
    folder = tmp_path_factory.mktemp("models") / f"tiny-{kind}"
    tiny_model(kind).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


def every_view(lowest: int) -> tuple[str, ...]:
    adapted = [f"adapted.{n}.{pooling}" for n in range(lowest + 1, DEPTH + 1) for pooling in POOLINGS]
    return *adapted, *(f"frozen.{n}.{pooling}" for n in range(1, DEPTH + 1) for pooling in POOLINGS)


def test_every_architecture_of_the_table_is_tested() -> None:
    assert set(FAMILIES) < set(TINY)


def test_features_are_those_of_plain_transformers(folder: Path) -> None:
    lowest = 0 if folder.name == "tiny-albert" else DEPTH // 2
    net = opened(folder, Lora(rank=4), every_view(lowest))
    expected = plainly(AutoModel.from_pretrained(folder, attn_implementation="eager"), net.view_names)
    near(net.features(net.init(torch.Generator().manual_seed(0)), whole()), expected, LAYERS)  # fmt: skip


@pytest.mark.parametrize(
    ("layers", "targets"),
    slow_but([("top half", "all linear")], product(("top half", "all"), ("attention", "all linear"))),
)
def test_the_saved_adapter_opens_with_plain_peft(folder: Path, tmp_path: Path, layers: Any, targets: Any) -> None:
    views = tuple(f"adapted.{DEPTH}.{pooling}" for pooling in POOLINGS)
    net = opened(folder, Lora(rank=4, alpha=12, layers=layers, targets=targets), views)
    theta = stirred(net)
    write_artefact(tmp_path, "learner", net, theta, {})
    base = AutoModel.from_pretrained(folder, attn_implementation="eager")
    model: Any = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    found = net.features(theta, whole())
    near(found, plainly(model, views), INNER_STEPS)
    near(plainly(model.merge_and_unload(), views), found, INNER_STEPS)
    assert not torch.allclose(found, net.features(net.init(torch.Generator().manual_seed(0)), whole()), atol=0.01)


def test_tasks_in_one_pass_are_as_alone(folder: Path) -> None:
    """Features and their gradients."""
    net = opened(folder, Lora(rank=4, targets="all linear"))
    parts = [pack(texts(), rows, [0] * len(rows), 2) for rows in ([1, 0], [2], [3, 4, 1])]
    stack = weights.leaves(stacked([weights.expand(stirred(net, seed), 1) for seed in range(3)]))
    together = net.features(stack, join(parts))
    asked = torch.randn(together.shape, generator=torch.Generator().manual_seed(5))
    grad = weights.gradient((together * asked).sum(), stack)
    row = 0
    for task, batch in enumerate(parts):
        own = weights.leaves(take(weights.detach(stack), task))
        alone = net.features(own, batch)
        near(together[row : row + len(alone)], alone, LAYERS)
        expected = weights.gradient((alone * asked[row : row + len(alone)]).sum(), own)
        row += len(alone)
        near(take(grad, task), expected, LAYERS)


def test_the_trunk_changes_nothing(folder: Path) -> None:
    top = opened(folder, Lora(rank=4))
    full = opened(folder, Lora(rank=4, layers="all"), top.view_names)
    theta = stirred(top)
    everywhere = full.init(torch.Generator().manual_seed(0)) | theta
    near(top.features(theta, whole()), full.features(everywhere, whole()))


def byte_level() -> PreTrainedTokenizerFast:
    """As GPT-2's: every byte a token, nothing before, between or after the texts."""
    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inside = Tokenizer(models.BPE(vocab=letters, merges=[]))
    inside.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=inside)


def test_two_texts_never_run_into_each_other() -> None:
    """Where the tokenizer puts nothing between them, a line break does it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_config(AutoConfig.for_model("gpt2", **TINY["gpt2"], vocab_size=300))
    net = Backbone(model, byte_level(), Options(Lora(rank=4)), base="tiny-gpt2")
    apart, shifted, single = (net.encode([texts]) for texts in (("ab", "c"), ("a", "bc"), ("abc",)))
    assert [len(tokens.ids) for tokens in (apart, shifted, single)] == [4, 4, 3]
    assert apart.ids.tolist() != shifted.ids.tolist()
    assert apart.segments.tolist() == [1, 1, 2, 2]


def test_a_causal_model_is_read_at_its_last_token() -> None:
    assert {kind for kind, family in FAMILIES.items() if family.pooling == "last"} == {
        "gpt2", "llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "mistral"
    }  # fmt: skip


LISTED = [kind for kind, family in FAMILIES.items() if not family.shared and not family.conv1d]


@pytest.mark.parametrize("kind", LISTED)
def test_reading_off_finds_what_the_table_says(kind: str) -> None:
    """Where the layers are one list of linear layers: what is done for an architecture that the table lacks."""
    model, known = tiny_model(kind), FAMILIES[kind]
    found = read_off(model, kind, DEPTH)
    assert found.layers == known.layers
    # DeBERTa's query and key are left out of the table: one of their inputs is no text.
    assert set(known.attention + known.feed_forward) <= set(found.attention + found.feed_forward)
    assert not found.packed


def test_what_can_not_be_packed_is_padded() -> None:
    assert {kind for kind, family in FAMILIES.items() if not family.packed} == {"mpnet", "deberta-v2"}


@pytest.mark.parametrize("words", [False, True])
def test_a_blank_text_is_a_token_that_says_nothing(words: bool) -> None:
    """GPT-2's tokenizer adds nothing to a text, so that a blank one has no token of its own."""
    tokens = encode(tokenizer_of("gpt2"), [("Maria lives",), ("",), ("in Lima",), ("",)], "", 128, words)
    blank = tokens.starts[[1, 3]]
    assert np.diff(tokens.starts)[[1, 3]].tolist() == [1, 1]
    assert not tokens.segments[blank].any()
    assert tokens.words is None or tokens.words[blank].tolist() == [-1, -1]
    alone = encode(tokenizer_of("gpt2"), [("Maria lives",), ("in Lima",)], "", 128, words)
    assert np.delete(tokens.ids, blank).tolist() == alone.ids.tolist()
    assert tokens.unknown == alone.unknown
