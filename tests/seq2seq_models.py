"""Tiny models with an encoder and a decoder, sentences for them, and what plain transformers says of these."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from near import LAYERS, near
from transformers import AutoConfig, AutoModelForSeq2SeqLM
from transformers.pytorch_utils import Conv1D

from metanlp.algorithms import Maml
from metanlp.algorithms.base import Inner
from metanlp.algorithms.likelihood import Likelihood
from metanlp.backbone import Lora
from metanlp.backbone.new_tokenizer import train_tokenizer
from metanlp.backbone.packing import join
from metanlp.backbone.seq2seq import Seq2Seq
from metanlp.backbone.writer import Writer
from metanlp.core.types import Batch, Weights
from metanlp.episodes.sentence_pairs import SentencePairs
from metanlp.learner.learner import Learner

SIDES = {f"{side}_{what}": value for side in ("encoder", "decoder")
         for what, value in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 48))}  # fmt: skip
LORA, SCALE = Lora(rank=4, layers="all", targets="all linear"), 16.0 / 4  # of the adapters' update
ROWS = (3, 0, 2, 4)  # of unlike lengths
BART = {"d_model": 32, "dropout": 0.0, "max_position_embeddings": 40, "init_std": 0.3, **SIDES}
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
KINDS = {"marian": BART, "bart": BART, "mbart": BART, "t5": T5, "mt5": T5}
SOURCES = ("a bad cab", "dad", "a cad had a bad head", "bead", "a face", "be a dad")
TARGETS = ("ein b", "p", "ein kopf bei dem kopf", "perle", "ein kopf", "sei ein p")
# Learned once: ties are broken in another way in every process.
TOKENIZER = train_tokenizer([*SOURCES, *TARGETS], "bpe", 261 + 10, False, written=True)


def model_of(kind: str) -> Any:
    ids = {"pad_token_id": TOKENIZER.pad_token_id, "eos_token_id": TOKENIZER.eos_token_id,
           "decoder_start_token_id": TOKENIZER.pad_token_id, "vocab_size": len(TOKENIZER)}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(kind, **ids, **KINDS[kind])).eval()
    model.generation_config.forced_eos_token_id = None
    return model


def net_of(kind: str, adapt: Lora | None) -> Seq2Seq:
    return Seq2Seq(model_of(kind), TOKENIZER, adapt, base=kind, max_length=24)


def pool_of(net: Writer) -> SentencePairs:
    return SentencePairs(*net.encode(SOURCES, TARGETS))


def batch_of(net: Writer, *rows: int) -> Batch:
    return pool_of(net).draw(np.array(rows), np.random.default_rng(0), 0).batch


def plain_loss(model: Any, *rows: int) -> torch.Tensor:
    """Padded, with labels, as `DataCollatorForSeq2Seq` would give it."""
    read = TOKENIZER([SOURCES[row] for row in rows], padding=True, return_tensors="pt")
    labels = TOKENIZER(text_target=[TARGETS[row] for row in rows], padding=True, return_tensors="pt")["input_ids"]
    labels = labels.masked_fill(labels == TOKENIZER.pad_token_id, -100)
    begin = torch.full((len(rows), 1), TOKENIZER.pad_token_id)
    given = torch.cat([begin, labels[:, :-1]], 1).masked_fill(torch.cat([begin, labels[:, :-1]], 1) == -100, 0)
    return model(input_ids=read["input_ids"], attention_mask=read["attention_mask"], decoder_input_ids=given,
                 labels=labels).loss  # fmt: skip


def plain_texts(model: Any, beams: int) -> list[str]:
    """The sources in one padded batch."""
    read = TOKENIZER(list(SOURCES), padding=True, return_tensors="pt")
    ids = model.generate(input_ids=read["input_ids"], attention_mask=read["attention_mask"], num_beams=beams,
                         do_sample=False, max_new_tokens=24)  # fmt: skip
    return [text.strip() for text in TOKENIZER.batch_decode(ids, skip_special_tokens=True)]


def stirred(adapters: Weights, seed: int = 1) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {key: value + 0.2 * torch.randn(value.shape, generator=generator) for key, value in adapters.items()}


def merged(model: Any, adapters: Weights, scale: float) -> Any:
    """The plain model with each adapter added to its weight."""
    for key, down in adapters.items():
        if key.endswith(".lora_A.weight"):
            name = key.removeprefix("lora/base_model.model.").removesuffix(".lora_A.weight")
            update = adapters[key.replace("lora_A", "lora_B")] @ down
            layer = model.get_submodule(name)
            layer.weight.data += scale * (update.T if isinstance(layer, Conv1D) else update)
    return model


def phi_of(adapters: Weights) -> Weights:
    return {key: value[None] for key, value in adapters.items()} | {"head/bias": torch.zeros(1, len(TOKENIZER))}


def check_tasks_apart(net: Writer) -> None:
    """Tasks of one pass have the scores of passes of their own, each under other adapters."""
    each = [batch_of(net, 3, 1), batch_of(net, 2), batch_of(net, 0, 5, 4)]
    phis = [stirred(net.init(torch.Generator().manual_seed(0)), seed) for seed in (1, 2, 3)]
    together = net.features({key: torch.stack([phi[key] for phi in phis]) for key in phis[0]}, join(each))
    alone = [net.features(phi, batch) for phi, batch in zip(phis, each, strict=True)]
    near(together.detach(), torch.cat(alone).detach(), LAYERS)
    near(net.features(phis[0], batch_of(net, 3))[:, 0].detach(), alone[0][: len(batch_of(net, 3).targets), 0].detach(),
         LAYERS)  # fmt: skip


def check_texts(net: Writer, model: Any, plain_texts: Callable[[Any, int], list[str]], beams: int) -> None:
    """What is written under adapters is what the plain model writes that has them merged."""
    adapters = stirred(net.init(torch.Generator().manual_seed(0)))
    assert net.generate(phi_of(adapters), SOURCES, beams) == plain_texts(merged(model, adapters, SCALE), beams)


def check_all_weights_learn(net: Writer, model: Any, plain_loss: Callable[..., torch.Tensor], *rows: int) -> None:
    """Loss and gradient of every weight are plain transformers'."""
    found = Likelihood().meta_grad(
        net, net.init(torch.Generator()), pool_of(net).draw(np.array(rows), np.random.default_rng(0), 0)
    )
    expected = plain_loss(model, *rows)
    expected.backward()
    near(found.loss[0], expected.detach(), LAYERS)
    plain = {f"base/{name}": value.grad for name, value in model.named_parameters() if value.grad is not None}
    near({key: found.grad[key] for key in plain}, plain, LAYERS)


def tiny_translator(folder: Path) -> Learner:
    """A learner that writes, and its model beside it, as recipes/translation.py leaves them."""
    model_of("marian").save_pretrained(str(folder / "model"))
    TOKENIZER.save_pretrained(str(folder / "model"))
    net = Seq2Seq.load(str(folder / "model"), LORA, max_length=24, prompt=">>{target_lang}<< ")
    learner = Learner(Maml(Inner(2, 0.05, 1.0)), net, net.init(torch.Generator().manual_seed(0)))
    learner.save(folder)
    return learner
