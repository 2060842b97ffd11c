"""The ways in which the engine can be silently wrong, and for each of them the test that would fail.

| trap | test |
|---|---|
| positions of RoBERTa, XLM-R and MPNet count from the padding's id + 1 | test_architectures.py::test_features_are_those_of_plain_transformers |
| ModernBERT's window is half its setting + 1; shorter texts don't show it | test_engine_traps.py::test_texts_are_longer_than_the_windows, test_architectures.py::test_features_are_those_of_plain_transformers |
| causal models packed as if they looked both ways | test_architectures.py::test_features_are_those_of_plain_transformers |
| grouped keys and values repeated in the wrong order, which one group does not show | test_engine_traps.py::test_grouped_keys_and_values |
| `use_cache`: keys and values kept for tokens that never come | test_engine_traps.py::test_no_keys_and_values_are_kept |
| a keyword that changes attention passed over, as Gemma 2's `softcap` | test_backbone.py::test_packed_attention_refuses_what_it_would_pass_over, test_architectures.py::test_features_are_those_of_plain_transformers |
| MPNet and DeBERTa run on a pack and are wrong | test_architectures.py::test_what_can_not_be_packed_is_padded, test_architectures.py::test_features_are_those_of_plain_transformers |
| the attention's name given at load: MPNet then builds no padding mask | test_architectures.py::test_features_are_those_of_plain_transformers |
| `from_config` gives several models one configuration | test_engine_traps.py::test_models_of_one_configuration_stay_apart |
| a switch of attention without effect, a pack under "eager" | test_backbone.py::test_the_probe_refuses_an_attention_that_is_not_ours |
| DeBERTa's relative positions pass through query and key, with adapters of some task | test_architectures.py::test_tasks_in_one_pass_are_as_alone |
| the same in an architecture that is read off the model | test_engine_traps.py::test_an_adapter_through_which_not_only_texts_go |
| GPT-2's Conv1D merged without `fan_in_fan_out` | test_architectures.py::test_the_saved_adapter_opens_with_plain_peft |
| activation checkpoints inside `functional_call` | test_backbone.py::test_gradient_checkpoints_change_memory_and_no_gradient |
| an adapter of a bare model opened on one with a task head, or the other way round | test_engine_traps.py::test_a_task_head_in_the_folder_leaves_no_trace_in_the_adapter |
| `grouped_mm` with a group without rows | test_engine_traps.py::test_a_task_without_rows |
| `grouped_mm` in bf16 with rank 4, whose rows are no 16 bytes | test_engine_traps.py::test_rank_4_of_several_tasks_beside_a_bf16_model |
| a rank whose rows are no 16 bytes in fp32 | test_backbone.py::test_a_rank_that_is_not_possible |
| T tasks in one pass are T passes only nearly, so that ranks add fixed groups | ../training/test_processes.py::test_exact_is_bitwise_one_process |
| `layers_to_transform` raises on some architectures, and takes any layer of that number on others | test_engine_traps.py::test_adapters_sit_where_they_are_asked_for |
| "all linear" takes the pooler and ALBERT's embedding projection | test_engine_traps.py::test_adapters_sit_where_they_are_asked_for |
| the trunk of a model whose layers return tuples | test_engine_traps.py::test_what_is_padded_has_no_trunk, test_architectures.py::test_the_trunk_changes_nothing |
| ALBERT runs one layer again and again: no layer lies below its adapters | test_engine_traps.py::test_albert_has_no_trunk |
| a second module tree that copies the tensors | test_backbone.py::test_both_trees_share_their_tensors |
"""  # noqa: E501

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from near import INNER_STEPS, LAYERS, near
from peft import PeftModel
from safetensors.torch import load_file
from stacks import stacked, take
from tiny_models import (
    DEPTH,
    LENGTHS,
    SIZES,
    TINY,
    VOCABULARY,
    opened,
    plainly,
    stirred,
    texts,
    tiny_model,
    whole,
)
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertForMaskedLM

from metanlp.backbone import Backbone, Lora
from metanlp.backbone.encoder import Options
from metanlp.backbone.lora import _product
from metanlp.backbone.packing import join, pack
from metanlp.backbone.trunk import Skipped
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.learner.artefact import ADAPTER, write_artefact

VIEW = (f"adapted.{DEPTH}.all",)


def made(kind: str, **settings: Any) -> Any:
    """A model of random weights with these settings beside the usual ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        known = {"vocab_size": VOCABULARY, "max_position_embeddings": 140, "pad_token_id": 1, "initializer_range": 0.3}
        return AutoModel.from_config(AutoConfig.for_model(kind, **known | SIZES | settings)).eval()


def backbone(model: Any, tiny: Path, lora: Lora | None = None, **options: Any) -> Backbone:
    given = {"precision": "fp32", "views": VIEW} | options
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    return Backbone(model, tokenizer, Options(lora or Lora(rank=4), **given), base=f"tiny-{model.config.model_type}")


def fresh(net: Backbone) -> dict[str, Tensor]:
    return net.init(torch.Generator().manual_seed(0))


def test_every_test_of_the_table_exists() -> None:
    named = re.findall(r"([\w./]+\.py)::(\w+)", str(__doc__))
    assert len(named) >= str(__doc__).count("\n| ")  # every row has one
    for file, name in named:
        tree = ast.parse((Path(__file__).parent / file).read_text(encoding="utf-8"))
        assert name in {part.name for part in tree.body if isinstance(part, ast.FunctionDef)}, f"{file}::{name}"


# Attention.


@pytest.mark.parametrize("kind", ["modernbert", "gemma2", "gemma3_text", "mistral"])
def test_texts_are_longer_than_the_windows(kind: str) -> None:
    """Else the tests of features would not see a window at all."""
    assert 1 < tiny_model(kind).config.sliding_window < max(LENGTHS) - 1


def test_grouped_keys_and_values(tiny: Path) -> None:
    """Heads 1 and 2 share the first group, 3 and 4 the second."""
    settings = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    net = backbone(made("llama", **settings), tiny)
    expected = plainly(made("llama", **settings), VIEW)
    near(net.features(fresh(net), whole()), expected, LAYERS)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
def test_no_keys_and_values_are_kept(kind: str, tiny: Path) -> None:
    net = backbone(tiny_model(kind), tiny, views=(*VIEW, f"frozen.{DEPTH}.all"))
    kept: list[object] = []
    for tree in net._trees.mine():
        tree.register_forward_hook(lambda *call: kept.append(getattr(call[-1], "past_key_values", None)))
    net.features(fresh(net), whole())
    assert kept == [None, None]


def test_models_of_one_configuration_stay_apart(tiny: Path) -> None:
    """A backbone switches the attention in the configuration: not in that of somebody else's model."""
    config = AutoConfig.for_model("bert", vocab_size=VOCABULARY, **SIZES)
    mine, theirs = AutoModel.from_config(config).eval(), AutoModel.from_config(config).eval()
    assert mine.config is theirs.config, "transformers has mended it; the test can go"
    before = plainly(theirs, VIEW)
    said = config.to_dict()
    backbone(mine, tiny)
    assert torch.equal(plainly(theirs, VIEW), before)
    assert (config.to_dict(), theirs.config._attn_implementation) == (said, "sdpa")


# Adapters.


def test_an_adapter_through_which_not_only_texts_go(tiny: Path) -> None:
    """DeBERTa's first version is not in the table; its relative positions have projections of their own."""
    model = made("deberta", relative_attention=True, pos_att_type=["p2c", "c2p"], max_relative_positions=8)
    with pytest.raises(
        InputError, match=r"not only texts go through its layer encoder\.layer\.2\.attention\.self\.pos"
    ):
        backbone(model, tiny)


@pytest.mark.parametrize("targets", ["attention", "all linear"])
@pytest.mark.parametrize("kind", TINY)
def test_adapters_sit_where_they_are_asked_for(kind: str, targets: Any, tiny: Path) -> None:
    """In blocks of the top half, on each of the layers named, and nowhere else."""
    net = backbone(tiny_model(kind), tiny, Lora(rank=4, targets=targets))
    family = net.family
    inside = family.attention + (family.feed_forward if targets == "all linear" else ())
    numbers = [0] if family.shared else range(DEPTH // 2, DEPTH)
    wanted = {
        f"lora/base_model.model.{family.layers}.{number}.{name}.lora_{side}.weight"
        for number in numbers for name in inside for side in "AB"
    }  # fmt: skip
    assert fresh(net).keys() == wanted
    assert family.layers.split(".")[0] in dict(tiny_model(kind).named_children())
    assert "pooler" not in " ".join(wanted)


def test_albert_has_no_trunk(tiny: Path) -> None:
    net = backbone(tiny_model("albert"), tiny)
    batch = net.with_trunk(whole())
    assert batch.trunk is not None
    assert (net.lowest, batch.trunk.states.shape[1]) == (0, 0)
    assert net.work(batch, 3) == 3 * batch.count_tokens  # all of it runs each time
    assert len(fresh(net)) == 2 * len(net.family.attention)
    theta, nothing = stirred(net), fresh(net)
    only_last = backbone(tiny_model("albert"), tiny, views=("adapted.1.all",))
    moved = only_last.features(theta, whole()) - only_last.features(nothing, whole())
    assert moved.abs().max() > 0.01  # the first of its runs has adapters too


@pytest.mark.parametrize("kind", ["mpnet", "deberta-v2", "ernie"])
def test_what_is_padded_has_no_trunk(kind: str, tiny: Path) -> None:
    """Their layers return tuples, which a layer that stands for the trunk would have to mirror: all of them run."""
    net = backbone(tiny_model(kind), tiny)
    batch = net.with_trunk(whole())
    assert batch.trunk is not None
    assert batch.trunk.states.shape[1] == 0
    assert net.work(batch, 3) == 3 * batch.count_tokens
    assert not any(isinstance(part, Skipped) for part in net._adapted.modules())


def test_a_task_without_rows() -> None:
    """As in a part of a pass: it changes nothing for the others, and its adapter has no gradient."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 8, generator=generator, requires_grad=True)
    matrices = torch.randn(4, 4, 8, generator=generator, requires_grad=True)
    found = _product(x, matrices, torch.tensor([3, 3, 7, 7], dtype=torch.int32))
    asked = torch.randn(found.shape, generator=generator)
    found_grads = torch.autograd.grad((found * asked).sum(), (x, matrices))
    expected = torch.cat([x[:3] @ matrices[0].T, x[3:] @ matrices[2].T])
    grads = torch.autograd.grad((expected * asked).sum(), (x, matrices))
    near((found, *found_grads), (expected, *grads))
    assert not found_grads[1][[1, 3]].any()


def test_rank_4_of_several_tasks_beside_a_bf16_model(tiny: Path) -> None:
    net = backbone(tiny_model("bert"), tiny, Lora(rank=4), precision="bf16")
    parts = [pack(texts(), rows, [0] * len(rows), 2) for rows in ([1, 0], [2], [3, 4])]
    stack = weights.leaves(stacked([weights.expand(stirred(net, seed), 1) for seed in range(3)]))
    together = net.features(stack, join(parts))
    alone = torch.cat([net.features(take(stack, task), batch) for task, batch in enumerate(parts)]).detach()
    near(together.bfloat16(), alone, 4)
    assert weights.finite(weights.gradient(together.sum(), stack))


def test_a_task_head_in_the_folder_leaves_no_trace_in_the_adapter(tiny: Path, tmp_path: Path) -> None:
    """Its checkpoint calls the encoder `bert.encoder`; the adapter is one of the bare model, and peft loads it there
    without a word."""
    config = tiny_model("bert").config
    BertForMaskedLM(config).save_pretrained(tmp_path / "masked")
    assert all(key.startswith(("bert.", "cls.")) for key in load_file(tmp_path / "masked" / "model.safetensors"))
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "masked")
    net = opened(tmp_path / "masked", Lora(rank=4), VIEW)
    theta = stirred(net)
    write_artefact(tmp_path / "learner", "learner", net, theta, {})
    assert all(key.startswith("base_model.model.encoder.layer.") for key in load_file(tmp_path / "learner" / ADAPTER))
    model: Any = PeftModel.from_pretrained(AutoModel.from_pretrained(tmp_path / "masked"), str(tmp_path / "learner"))
    near(net.features(theta, whole()), plainly(model.eval(), VIEW), INNER_STEPS)
