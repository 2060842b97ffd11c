"""A model with its vocabulary head under adapters: the loss is that of plain transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from masked_models import given, model_of, plain
from near import LAYERS, near
from tiny_models import VOCABULARY
from transformers import AutoTokenizer

from metanlp.algorithms import Finetune
from metanlp.backbone import Lora
from metanlp.backbone.options import Options
from metanlp.backbone.vocabulary import VocabularyBackbone
from metanlp.core.errors import InputError
from metanlp.core.types import Weights

KINDS = ("bert", "roberta", "distilbert", "albert", "electra", "modernbert")


def net_of(kind: str, tiny: Path) -> VocabularyBackbone:
    options = Options(Lora(rank=4, targets="all linear"), precision="fp32")
    return VocabularyBackbone(model_of(kind), AutoTokenizer.from_pretrained(tiny), options, base=kind)


def merged(model: Any, adapters: Weights, scale: float) -> Any:
    """The plain model with each adapter added to its weight."""
    for key, down in adapters.items():
        if key.endswith(".lora_A.weight"):
            name = key.removeprefix("lora/base_model.model.").removesuffix(".lora_A.weight")
            update = adapters[key.replace("lora_A", "lora_B")] @ down
            model.base_model.get_submodule(name).weight.data += scale * update
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_plain_transformers(kind: str, tiny: Path) -> None:
    """With fresh adapters, which change nothing, and with others, merged into the plain model."""
    net, each, method = net_of(kind, tiny), given(), Finetune()
    theta = method.init(net, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    lora = {key: value for key, value in theta.items() if key.startswith("lora/")}
    stirred = {key: value + 0.2 * torch.randn(value.shape, generator=generator) for key, value in lora.items()}
    for adapters, model in ((lora, model_of(kind)), (stirred, merged(model_of(kind), stirred, 16.0 / 4))):
        phi = {key: value[None] for key, value in adapters.items()} | {"head/bias": torch.zeros(1, VOCABULARY)}
        loss = method.scores_loss(method.scores(net, phi, each.batch), each.batch)
        near(loss[0].detach(), plain(model, each).loss.detach(), LAYERS)


def test_a_checkpoint_without_a_head_and_a_tokenizer_without_a_mask(tiny: Path, tmp_path: Path) -> None:
    net = VocabularyBackbone.load(str(tiny), Lora(rank=4), precision="fp32")
    assert net.new
    assert net.width == 1000
    assert net.features(net.init(torch.Generator()), given().batch).shape == (len(given().targets), 1, 1000)
    bare = AutoTokenizer.from_pretrained(tiny)
    bare.mask_token = None
    with pytest.raises(InputError, match="m: its tokenizer has no mask token; take a model that was made with masked"):
        VocabularyBackbone(model_of("bert"), bare, Options(), base="m")
