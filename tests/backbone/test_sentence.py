"""A sentence-transformers folder is read as its own library reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import on_threads
from near import LAYERS, near
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from torch import Tensor, nn
from torch.nn.functional import normalize

from metanlp.algorithms import Maml
from metanlp.backbone import Backbone, Lora
from metanlp.backbone.packing import pack
from metanlp.core.errors import InputError
from metanlp.learner.learner import Learner

TEXTS = ["the order came late", "hello", "could you cancel my order, please, it came too late and it is broken"]


def saved(tiny: Path, folder: Path, pooling: Any, *after: nn.Module, **settings: Any) -> SentenceTransformer:
    transformer: Any = modules.Transformer(str(tiny))
    pool = modules.Pooling(32, pooling_mode=pooling)
    model = SentenceTransformer(modules=[transformer, pool, *after, modules.Normalize()], device="cpu", **settings)
    model.save(str(folder))
    return model


def frozen_vectors(net: Backbone, texts: list[str] = TEXTS) -> Tensor:
    """What the first frozen view reads, at length one."""
    batch = pack(net.encode([(text,) for text in texts]), range(len(texts)), [0] * len(texts), 2)
    features = net.features(net.init(torch.Generator().manual_seed(0)), batch)
    first = next(number for number, name in enumerate(net.view_names) if name.startswith("frozen."))
    return normalize(features[:, first], dim=-1)


@pytest.mark.parametrize(
    ("pooling", "ours"), [("mean", "all"), ("cls", "cls"), ("lasttoken", "last"), ("mean_sqrt_len_tokens", "all")]
)
def test_pooling_is_the_folder_s(tiny: Path, tmp_path: Path, pooling: str, ours: str) -> None:
    model = saved(tiny, tmp_path / "st", pooling)
    net = Backbone.load(str(tmp_path / "st"), Lora(rank=4), precision="fp32")
    assert net.view_names[0] == f"adapted.4.{ours}"
    near(frozen_vectors(net), torch.tensor(model.encode(TEXTS)), LAYERS)


def test_the_flags_of_older_folders(tiny: Path, tmp_path: Path) -> None:
    saved(tiny, tmp_path / "st", "mean")
    flags = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (tmp_path / "st" / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    model = SentenceTransformer(str(tmp_path / "st"), device="cpu")
    net = Backbone.load(str(tmp_path / "st"), Lora(rank=4), precision="fp32")
    assert net.view_names[0] == "adapted.4.cls"
    near(frozen_vectors(net), torch.tensor(model.encode(TEXTS)), LAYERS)


@pytest.mark.parametrize("width", [24, 32, 48])
def test_dense_layers_are_passed(tiny: Path, tmp_path: Path, width: int) -> None:
    """As in EmbeddingGemma: two of them, wider inside; the result may be of another width than the model."""
    torch.manual_seed(0)
    dense = (modules.Dense(32, 64, activation_function=nn.Identity()), modules.Dense(64, width, bias=False))
    model = saved(tiny, tmp_path / "st", "mean", *dense)
    net = Backbone.load(str(tmp_path / "st"), Lora(rank=4), precision="fp32")
    assert net.view_names[0] == "adapted.4.sentence"
    assert net.width == max(32, width)
    expected = torch.tensor(model.encode(TEXTS))
    near(frozen_vectors(net)[:, :width], expected, LAYERS)
    with on_threads(2):  # texts are read in two parts, and a layer may make something of nothing
        near(frozen_vectors(net)[:, :width], expected, LAYERS)


def test_prompts_stand_in_front(tiny: Path, tmp_path: Path) -> None:
    prompts = {"query": "question: ", "Classification": "task: sort | ", "document": ""}
    model = saved(tiny, tmp_path / "st", "mean", prompts=prompts)
    net = Backbone.load(str(tmp_path / "st"), Lora(rank=4), precision="fp32")
    assert net.options.prompt == "task: sort | ", "no default: the one for classification"
    expected = torch.tensor(model.encode(TEXTS, prompt_name="Classification"))
    near(frozen_vectors(net), expected, LAYERS)
    bare = Backbone.load(str(tmp_path / "st"), Lora(rank=4), precision="fp32", prompt="")
    near(frozen_vectors(bare), torch.tensor(model.encode(TEXTS)), LAYERS)


def test_the_default_prompt_comes_first(tiny: Path, tmp_path: Path) -> None:
    prompts = {"query": "question: ", "classification": "sort: "}
    saved(tiny, tmp_path / "st", "mean", prompts=prompts, default_prompt_name="query")
    assert Backbone.load(str(tmp_path / "st"), Lora(rank=4)).options.prompt == "question: "


def test_a_learner_keeps_its_prompt(tiny: Path, tmp_path: Path) -> None:
    """Also where the folder says something else."""
    saved(tiny, tmp_path / "st", "mean", prompts={"classification": "sort: "})
    net = Backbone.load(str(tmp_path / "st"), Lora(rank=4), precision="fp32", prompt="label: ")
    algorithm = Maml()
    Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0))).save(tmp_path / "learner")
    again = Learner.load(tmp_path / "learner", base=str(tmp_path / "st"))
    assert again.net.options == net.options
    near(frozen_vectors(again.net), frozen_vectors(net))


@pytest.mark.parametrize(
    ("pooling", "said"), [("max", "max"), (("mean", "cls"), "cls and mean|mean and cls"), ("weightedmean", "weighted")]
)
def test_a_pooling_that_is_not_known(tiny: Path, tmp_path: Path, pooling: Any, said: str) -> None:
    saved(tiny, tmp_path / "st", pooling)
    with pytest.raises(InputError, match=rf"st: its vectors are pooled by ({said}).*known are cls, mean"):
        Backbone.load(str(tmp_path / "st"))


def test_a_module_that_is_not_known(tiny: Path, tmp_path: Path) -> None:
    saved(tiny, tmp_path / "st", "mean", modules.LayerNorm(32))
    with pytest.raises(InputError, match=r"st: its modules\.json asks for 'LayerNorm'"):
        Backbone.load(str(tmp_path / "st"))
