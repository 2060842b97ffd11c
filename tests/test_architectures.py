"""Every architecture says, run our way, what plain transformers and plain peft say of it on padded input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from metanlp import weights
from metanlp.artefact import write_artefact
from metanlp.backbone import Backbone, Lora, View
from metanlp.backbone.encoder import Options
from metanlp.backbone.families import FAMILIES, read_off
from metanlp.backbone.packing import join, pack
from metanlp.types import Batch, Tokens, Weights

VOCABULARY, DEPTH = 100, 4
SIZES = {"hidden_size": 32, "num_hidden_layers": DEPTH, "num_attention_heads": 2, "intermediate_size": 48}
GROUPED = SIZES | {"num_key_value_heads": 1, "head_dim": 16}
WINDOW = {"sliding_window": 6}  # texts here are longer
TINY: dict[str, dict[str, Any]] = {
    "bert": SIZES,
    "electra": SIZES | {"embedding_size": 16},
    "roberta": SIZES,
    "xlm-roberta": SIZES,
    "distilbert": {"dim": 32, "n_layers": DEPTH, "n_heads": 2, "hidden_dim": 48},
    "albert": SIZES | {"embedding_size": 16},
    "modernbert": SIZES | {"global_attn_every_n_layers": 2, "local_attention": 8, "cls_token_id": 2, "sep_token_id": 3},
    "gpt2": {"n_embd": 32, "n_layer": DEPTH, "n_head": 2, "n_positions": 140},
    "llama": GROUPED,
    "qwen2": GROUPED,
    "qwen3": GROUPED,
    "gemma": GROUPED,
    "gemma2": GROUPED | WINDOW | {"attn_logit_softcapping": 1.0, "query_pre_attn_scalar": 16},
    "gemma3_text": GROUPED | WINDOW | {"query_pre_attn_scalar": 16},
    "gemma3_text, both ways": GROUPED  # as EmbeddingGemma
    | WINDOW
    | {"query_pre_attn_scalar": 16, "use_bidirectional_attention": True},
    "mistral": GROUPED | WINDOW,
    "mpnet": SIZES,
    "deberta-v2": SIZES
    | {"relative_attention": True, "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    # Not in the table: read off the model.
    "ernie": SIZES,
}
POOLINGS = ("all", "second", "cls", "last")
LENGTHS = (3, 14, 1, 9, 11)


def tiny_model(kind: str, **larger: int) -> Any:
    """A model of random weights, large enough that texts differ."""
    given = {"vocab_size": VOCABULARY, "max_position_embeddings": 140, "pad_token_id": 1, "bos_token_id": 2,
             "eos_token_id": 3, "initializer_range": 0.3, **TINY[kind], **larger}  # fmt: skip
    if "n_positions" in given:
        del given["max_position_embeddings"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModel.from_config(AutoConfig.for_model(kind.split(",")[0], **given)).eval()


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


def opened(folder: Path, lora: Lora, views: tuple[str, ...] = ()) -> Backbone:
    return Backbone.load(str(folder), lora, views=views, precision="fp32")


def every_view(lowest: int) -> tuple[str, ...]:
    adapted = [f"adapted.{n}.{pooling}" for n in range(lowest + 1, DEPTH + 1) for pooling in POOLINGS]
    return *adapted, *(f"frozen.{n}.{pooling}" for n in range(1, DEPTH + 1) for pooling in POOLINGS)


def texts() -> Tokens:
    """Rows of random tokens; the second half of each counts as its second text."""
    chance = np.random.default_rng(0)
    starts = np.cumsum([0, *LENGTHS])
    second = np.concatenate([1 + (np.arange(n) >= n // 2) for n in LENGTHS])
    total = int(starts[-1])
    return Tokens(chance.integers(4, VOCABULARY, total), np.zeros(total, np.int64), second, starts)


def whole() -> Batch:
    return pack(texts(), range(len(LENGTHS)), [0] * len(LENGTHS), 2)


def stirred(net: Backbone, seed: int = 1) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    theta = net.init(generator)
    return {key: value + 0.2 * torch.randn(value.shape, generator=generator) for key, value in theta.items()}


def plainly(model: Any, views: tuple[str, ...]) -> Tensor:
    """Padded to the longest, eager attention, pooled row by row."""
    tokens, longest = texts(), max(LENGTHS)
    ids, mask = torch.full((len(LENGTHS), longest), 1), torch.zeros(len(LENGTHS), longest, dtype=torch.long)
    for row, (start, end) in enumerate(zip(tokens.starts, tokens.starts[1:], strict=False)):
        ids[row, : end - start], mask[row, : end - start] = torch.from_numpy(tokens.ids[start:end]), 1
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    states = {**dict(enumerate(out.hidden_states)), DEPTH: out.last_hidden_state}
    return torch.stack(
        [torch.stack([read(states, row, length, View.parse(v)) for v in views]) for row, length in enumerate(LENGTHS)]
    )


def read(states: dict[int, Tensor], row: int, length: int, view: View) -> Tensor:
    begin = {"second": length // 2, "last": length - 1}.get(view.pooling, 0)
    return states[view.layer][row, begin : 1 if view.pooling == "cls" else length].mean(0)


def test_every_architecture_of_the_table_is_tested() -> None:
    assert set(FAMILIES) < set(TINY)


def test_features_are_those_of_plain_transformers(folder: Path) -> None:
    lowest = 0 if folder.name == "tiny-albert" else DEPTH // 2
    net = opened(folder, Lora(rank=4), every_view(lowest))
    expected = plainly(AutoModel.from_pretrained(folder, attn_implementation="eager"), net.view_names)
    torch.testing.assert_close(net.features(net.init(torch.Generator().manual_seed(0)), whole()), expected,
                               atol=1e-5, rtol=1e-5)  # fmt: skip


@pytest.mark.parametrize("targets", ["attention", "all linear"])
@pytest.mark.parametrize("layers", ["top half", "all"])
def test_the_saved_adapter_opens_with_plain_peft(folder: Path, tmp_path: Path, layers: Any, targets: Any) -> None:
    views = tuple(f"adapted.{DEPTH}.{pooling}" for pooling in POOLINGS)
    net = opened(folder, Lora(rank=4, alpha=12, layers=layers, targets=targets), views)
    theta = stirred(net)
    write_artefact(tmp_path, "learner", net, theta, {})
    base = AutoModel.from_pretrained(folder, attn_implementation="eager")
    model: Any = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    found = net.features(theta, whole())
    torch.testing.assert_close(found, plainly(model, views), atol=3e-5, rtol=1e-5)
    torch.testing.assert_close(plainly(model.merge_and_unload(), views), found, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, net.features(net.init(torch.Generator().manual_seed(0)), whole()), atol=0.01)


def test_tasks_in_one_pass_are_as_alone(folder: Path) -> None:
    """Features and their gradients."""
    net = opened(folder, Lora(rank=4, targets="all linear"))
    parts = [pack(texts(), rows, [0] * len(rows), 2) for rows in ([1, 0], [2], [3, 4, 1])]
    stack = weights.leaves(weights.stack([weights.expand(stirred(net, seed), 1) for seed in range(3)]))
    together = net.features(stack, join(parts))
    asked = torch.randn(together.shape, generator=torch.Generator().manual_seed(5))
    grad = weights.gradient((together * asked).sum(), stack)
    row = 0
    for task, batch in enumerate(parts):
        own = weights.leaves(weights.take(weights.detach(stack), task))
        alone = net.features(own, batch)
        torch.testing.assert_close(together[row : row + len(alone)], alone, atol=1e-5, rtol=1e-5)
        expected = weights.gradient((alone * asked[row : row + len(alone)]).sum(), own)
        row += len(alone)
        distance = weights.norm(weights.add(weights.take(grad, task), expected, -1.0))
        assert distance < 1e-4 * weights.norm(expected)


def test_the_trunk_changes_nothing(folder: Path) -> None:
    top = opened(folder, Lora(rank=4))
    full = opened(folder, Lora(rank=4, layers="all"), top.view_names)
    theta = stirred(top)
    everywhere = full.init(torch.Generator().manual_seed(0)) | theta
    torch.testing.assert_close(top.features(theta, whole()), full.features(everywhere, whole()), atol=1e-6, rtol=1e-6)


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
    net = Backbone(model, byte_level(), Options(Lora(rank=4)), name="tiny-gpt2")
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
    found = read_off(model, DEPTH)
    assert found.layers == known.layers
    # DeBERTa's query and key are left out of the table: one of their inputs is no text.
    assert set(known.attention + known.feed_forward) <= set(found.attention + found.feed_forward)
    assert not found.packed


def test_what_can_not_be_packed_is_padded() -> None:
    assert {kind for kind, family in FAMILIES.items() if not family.packed} == {"mpnet", "deberta-v2"}
