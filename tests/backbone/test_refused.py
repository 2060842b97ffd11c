"""Models that can't be used end in one line, never in a traceback; code that a model's folder brings is never run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import pack_rows
from near import LAYERS, near
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertJapaneseTokenizer

from metanlp.backbone import Backbone
from metanlp.backbone.memory_estimate import estimate
from metanlp.backbone.options import Options
from metanlp.backbone.pretrained import outline
from metanlp.core.errors import InputError

DEEP = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
GROUPS = ("q_groups", "k_groups", "v_groups", "post_attention_groups", "intermediate_groups", "output_groups")
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "t5": ({"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2}, "encoder and a decoder"),
    "mamba": ({"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}, "incompatible"),
    "squeezebert": (DEEP | {"embedding_size": 32} | dict.fromkeys(GROUPS, 1), "no linear layers"),
    "canine": (DEEP | {"max_position_embeddings": 200}, "max_pool1d"),
    "vit": (DEEP | {"image_size": 32}, ""),
    "clip": ({}, "no list of its layers"),
}
JAPANESE = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"今日は雨晴れ"]
CODE = """
open({canary!r}, "w").close()
from transformers import *
class OwnConfig(BertConfig): pass
class Own(BertModel): pass
class OwnTokenizer(BertTokenizerFast): pass
"""
OPENED = """
import sys
from metanlp import Backbone
for folder in sys.argv[1:]:
    try:
        Backbone.load(folder)
    except Exception as error:
        print(type(error).__name__, error)
"""
FORKED = """
import multiprocessing, sys, torch
torch.set_num_threads(2)
from metanlp import Backbone, Learner, Maml
net = Backbone.load(sys.argv[1])
learner = Learner(Maml(), net, Maml().init(net, torch.Generator().manual_seed(0)))
model = learner.adapt([("good text here", "a"), ("bad one", "b")] * 8)
work = multiprocessing.get_context("fork").Process(target=model.predict, args=(["good", "bad text"] * 200,))
work.start(); work.join(60)
sys.exit(1 if work.is_alive() and not work.kill() else work.exitcode)
"""


def saved(kind: str, settings: dict[str, Any], tiny: Path, folder: Path) -> Path:
    """A tiny model of random weights, beside the tokenizer of another."""
    given = {"vocab_size": 100, **settings} if kind not in ("vit", "clip") else settings
    config: Any = AutoConfig.for_model(kind, **given)
    if kind == "clip":  # its weights would be large
        config.save_pretrained(folder)
    else:
        AutoModel.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore")  # what transformers says of kernels that are not there
@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_can_not_be_adapted_is_one_line(kind: str, tiny: Path, tmp_path: Path) -> None:
    settings, reason = REFUSED[kind]
    folder = str(saved(kind, settings, tiny, tmp_path))
    asked = (
        [lambda: estimate(outline(folder), Options(), torch.device("cpu"), 100)]
        if kind not in ("vit", "canine", "mamba")
        else []
    )
    asked += [lambda: Backbone.load(folder)] if kind != "clip" else []
    for ask in asked:
        with pytest.raises(
            InputError, match=f"a {kind} model can't be adapted: .*{reason}.*take a model of one of"
        ) as said:
            ask()
        assert "\n" not in str(said.value)


def test_a_model_without_a_longest_text(tiny: Path, tmp_path: Path) -> None:
    """XLNet says −1."""
    size = len(AutoTokenizer.from_pretrained(tiny))
    settings = {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 48, "vocab_size": size}
    net = Backbone.load(str(saved("xlnet", settings, tiny, tmp_path)))
    rows = [{"text": "a longer text of several words", "label": 0}, {"text": "short", "label": 1}]
    theta = net.init(torch.Generator().manual_seed(0))
    both, one = (net.features(theta, pack_rows(some, 2, net.encode)) for some in (rows, rows[1:]))
    near(both[1], one[0], LAYERS)


def test_code_in_a_model_folder_is_never_run(tiny: Path, tmp_path: Path) -> None:
    """Whatever stands on standard input. A tokenizer that transformers knows itself is used without that code."""
    canary, parts = tmp_path / "canary", ("config.json", "tokenizer_config.json")
    own: list[dict[str, Any]] = [
        {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.Own"}},
        {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}},
    ]
    for part, settings in zip(parts, own, strict=True):
        folder = tmp_path / part
        AutoModel.from_pretrained(tiny).save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
        (folder / "own.py").write_text(CODE.format(canary=str(canary)))
        (folder / part).write_text(json.dumps(json.loads((folder / part).read_text()) | settings))
    command = [sys.executable, "-W", "ignore", "-c", OPENED, *(str(tmp_path / part) for part in parts)]
    done = subprocess.run(command, input="y\n" * 9, text=True, capture_output=True, timeout=120, check=True)
    assert not canary.exists()
    (said,) = done.stdout.splitlines()
    assert said.startswith("InputError")
    assert "it needs code from its own folder, which is never run" in said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_computes_after_its_parent_has(tiny: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(tiny)]
    subprocess.run(command, check=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "2"})


@pytest.mark.parametrize("lacks", ["pooler.dense.weight", "encoder.layer.0.output.dense.bias"])
def test_weights_that_no_file_has(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], lacks: str) -> None:
    """A model of random weights answers as if nothing were; only a pooler, which nothing reads, may be without."""
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    kept = {key: value for key, value in load_file(folder / "model.safetensors").items() if key != lacks}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    if "pooler" not in lacks:
        with pytest.raises(InputError, match=f"1 of its weights are in no file, {re.escape(lacks)} is the first"):
            Backbone.load(str(folder))
    else:
        near(read(Backbone.load(str(folder))), read(Backbone.load(str(tiny))), LAYERS)
    assert capfd.readouterr() == ("", "")


def read(net: Backbone) -> torch.Tensor:
    """Features of one text."""
    batch = pack_rows([{"text": "a text", "label": 0}], 2, net.encode)
    return net.features(net.init(torch.Generator().manual_seed(0)), batch)


def test_a_tokenizer_without_places_is_said_when_the_model_is_opened(tiny: Path, tmp_path: Path) -> None:
    """Those of Python alone, such as the Japanese BERT's."""
    folder = tmp_path / "japanese"
    shutil.copytree(tiny, folder)
    for file in folder.glob("*token*"):
        file.unlink()
    (tmp_path / "words.txt").write_text("\n".join(JAPANESE), encoding="utf-8")
    BertJapaneseTokenizer(
        str(tmp_path / "words.txt"), word_tokenizer_type="basic", subword_tokenizer_type="character"
    ).save_pretrained(folder)
    with pytest.raises(InputError, match="its tokenizer, BertJapaneseTokenizer, does not tell where in a text"):
        Backbone.load(str(folder))
