"""A base in 4 or 8 bits: features and gradients are those of plain fp32 layers with the very weights it stands for.

Where bitsandbytes is not installed, or does not compute on this processor, these tests are skipped with its own words;
those of the error line run where it is not installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from near import INNER_STEPS, LAYERS, near
from peft import PeftModel
from slowly import slow_but
from stacks import stacked, take
from tiny_models import DEPTH, TINY, distinct, frozen_tensors, plainly, stirred, texts, tiny_model, whole
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, BitsAndBytesConfig

import metanlp
from metanlp.algorithms import Maml
from metanlp.backbone import Backbone, Lora
from metanlp.backbone import quantize as bits
from metanlp.backbone.memory_estimate import estimate
from metanlp.backbone.packing import join, pack
from metanlp.backbone.pretrained import outline
from metanlp.backbone.quantize import Quantize
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Pass, Weights
from metanlp.learner.artefact import CONFIG, read_artefact, signed, write_artefact
from metanlp.learner.learner import Learner

ROOT = Path(next(iter(metanlp.__path__))).parent
KINDS = ("bert", "albert", "modernbert", "gpt2", "llama", "qwen2", "gemma2", "mpnet")
# On CPUs with AVX-512 the 4-bit kernel is right only for some widths, multiples of 64 among them.
WIDE = {"hidden_size": 64, "intermediate_size": 128, "embedding_size": 64, "head_dim": 32, "n_embd": 64}
CPU, VIEWS = torch.device("cpu"), (f"adapted.{DEPTH}.all", f"frozen.{DEPTH - 1}.last")
INSTALLED = importlib.util.find_spec("bitsandbytes") is not None


@pytest.fixture(scope="module", params=["4bit", "8bit"])
def mode(request: pytest.FixtureRequest) -> Quantize:
    try:
        bits.require_layers(request.param, CPU, torch.float32, nn.Sequential(nn.Linear(64, 1), nn.Linear(128, 1)))
    except InputError as reason:
        pytest.skip(str(reason))
    return request.param


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wide(request.param, tiny, tmp_path_factory.mktemp("models") / request.param)


@pytest.fixture(scope="module")
def bert(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wide("bert", tiny, tmp_path_factory.mktemp("models") / "one-bert")


def write_wide(kind: str, tiny: Path, folder: Path) -> Path:
    sizes = {key: size for key, size in WIDE.items() if key in TINY[kind]}
    tiny_model(kind, vocab_size=1000, **sizes).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


def opened(folder: Path, quantize: Quantize = "none", lora: Lora | None = None, **others: Any) -> Backbone:
    lora = lora or Lora(rank=4, alpha=12, targets="all linear")
    return Backbone.load(str(folder), lora, **{"views": VIEWS, "precision": "fp32", **others}, quantize=quantize)


def plain_copy(folder: Path, mode: Quantize, copy: Path, dtype: torch.dtype = torch.float32) -> Path:
    """The model in fp32, its linear layers' weights rounded to what the quantised ones stand for."""
    config = BitsAndBytesConfig(**bits.settings(mode, dtype))
    rounded: Any = AutoModel.from_pretrained(folder, dtype=dtype, quantization_config=config)
    plain: Any = AutoModel.from_pretrained(folder, dtype=torch.float32).requires_grad_(False)
    changed = 0
    for name, layer in rounded.named_modules():
        if type(layer).__name__ in ("Linear4bit", "Linear8bitLt"):
            weight, target = in_fp32(layer), plain.get_submodule(name)
            weight = weight if isinstance(target, nn.Linear) else weight.T  # GPT-2 keeps its own transposed
            assert 0.002 < float((weight - target.weight).norm() / weight.norm()) < 0.12
            target.weight.data = weight.contiguous()
            changed += 1
    assert changed
    plain.save_pretrained(copy)
    AutoTokenizer.from_pretrained(folder).save_pretrained(copy)
    return copy


def in_fp32(layer: Any) -> Tensor:
    from bitsandbytes.functional import dequantize_4bit

    if hasattr(layer, "quant_state"):
        return dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    return layer.weight.data.float() * layer.weight.SCB[:, None] / 127


def gradient(net: Backbone, w: Weights, batch: Batch) -> Weights:
    """Of a random sum of features."""
    leaves = weights.leaves(w)
    features = net.features(leaves, batch)
    asked = torch.randn(features.shape, generator=torch.Generator().manual_seed(5))
    return weights.gradient((features * asked).sum(), leaves)


def same(found: Tensor, expected: Tensor, ulps: float = LAYERS) -> None:
    """View by view: the features of a middle layer may be large."""
    for one, other in zip(found.unbind(1), expected.unbind(1), strict=True):
        near(one, other, ulps)


# What it computes.


@pytest.mark.parametrize("layers", slow_but(["all"], ["top half", "all"]))
def test_features_and_gradients_are_those_of_the_rounded_weights(
    folder: Path, mode: Quantize, layers: Any, tmp_path: Path
) -> None:
    """On a CPU both sides multiply the same numbers in fp32, in 8 bits rounded in another order, so that they differ by
    fp32's rounding (6e-8) alone, added up and made larger by four layers, and by four more backward. The gradient comes
    after a pass without one, and through the quantised layers above an adapter."""
    lora = Lora(rank=4, alpha=12, layers=layers, targets="all linear")
    net, copy = opened(folder, mode, lora), opened(plain_copy(folder, mode, tmp_path), lora=lora)
    theta = stirred(net)
    with torch.no_grad():
        without = net.features(theta, whole())
    same(without, copy.features(theta, whole()))
    near(gradient(net, theta, whole()), gradient(copy, theta, whole()), LAYERS)
    same(net.features(theta, whole()), without)


def test_tasks_in_one_pass_are_as_alone(folder: Path, mode: Quantize) -> None:
    net = opened(folder, mode)
    parts = [pack(texts(), rows, [0] * len(rows), 2) for rows in ([1, 0], [2], [3, 4, 1])]
    stack = stacked([weights.expand(stirred(net, seed), 1) for seed in range(3)])
    together = net.features(stack, join(parts))
    alone = [net.features(take(stack, task), batch) for task, batch in enumerate(parts)]
    same(together, torch.cat(alone))


def test_a_pass_in_parts_has_the_same_gradient(bert: Path, mode: Quantize, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metanlp.backbone.encoder.PART", 12)
    net, saving = opened(bert, mode), opened(bert, mode, gradient_checkpoint=True)
    near(gradient(saving, stirred(net), whole()), gradient(net, stirred(net), whole()), LAYERS)


def test_bf16_is_that_of_the_rounded_weights_in_bf16(bert: Path, mode: Quantize, tmp_path: Path) -> None:
    """Within 3 % of the largest feature, as bf16 is from fp32. Adapters and their gradients are fp32."""
    net = opened(bert, mode, precision="bf16")
    copy = opened(plain_copy(bert, mode, tmp_path, torch.bfloat16), precision="bf16")
    theta = stirred(net)
    found = net.features(theta, whole())
    assert found.dtype == torch.float32
    same(found.bfloat16(), copy.features(theta, whole()), 4)
    rounded = {key: value.bfloat16() for key, value in gradient(net, theta, whole()).items()}
    near(rounded, gradient(copy, theta, whole()), 8)
    assert {value.dtype for value in gradient(net, theta, whole()).values()} == {torch.float32}


def test_a_meta_step_is_that_of_the_rounded_weights(bert: Path, mode: Quantize, tmp_path: Path, toy_pass: Pass) -> None:
    """MAML's inner and outer gradient, on the embedded tasks."""
    net, copy = opened(bert, mode), opened(plain_copy(bert, mode, tmp_path))
    algorithm = Maml()
    theta = algorithm.init(net, torch.Generator().manual_seed(0))
    found, expected = (algorithm.meta_grad(each, theta, toy_pass) for each in (net, copy))
    near(found.grad, expected.grad, INNER_STEPS)
    near(found.loss, expected.loss, INNER_STEPS)


# What it holds and what it leaves.


def test_both_trees_share_one_set_of_quantised_tensors(folder: Path, mode: Quantize) -> None:
    """To the byte what the estimate says before anything is loaded; and far less than without."""
    net = opened(folder, mode, views=(f"adapted.{DEPTH}.all", f"frozen.{DEPTH}.all"))
    trees = (net._plain, net._adapted)
    needed = estimate(outline(str(folder)), net.options, CPU, 0).weights
    assert sum(distinct(tensor for tree in trees for tensor in frozen_tensors(tree))) == needed
    linear = sum(part.weight.numel() for part in outline(str(folder)).modules() if bits.is_linear(part))
    saved = estimate(outline(str(folder)), opened(folder).options, CPU, 0).weights - needed
    pooler = 64 * 64 if folder.name in ("bert", "albert", "mpnet") else 0  # not kept, with or without
    assert saved > (3.3 if mode == "4bit" else 2.9) * (linear - pooler)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_the_saved_adapter_opens_with_plain_peft_on_the_whole_model(
    kind: str, mode: Quantize, tiny: Path, tmp_path: Path
) -> None:
    folder = write_wide(kind, tiny, tmp_path / kind)
    views = tuple(f"adapted.{DEPTH}.{pooling}" for pooling in ("all", "second", "last"))
    net = opened(folder, mode, views=views)
    theta = stirred(net)
    write_artefact(tmp_path / "saved", "learner", net, theta, {})
    base = AutoModel.from_pretrained(folder, attn_implementation="eager")
    model = PeftModel.from_pretrained(base, str(tmp_path / "saved")).eval()
    exact = opened(folder, views=views)
    near(plainly(model, views), exact.features(theta, whole()), INNER_STEPS)
    assert net.base.sha256 == exact.base.sha256 != ""


def test_a_learner_loads_as_it_was_trained(bert: Path, mode: Quantize, tmp_path: Path) -> None:
    net = opened(bert, mode)
    write_artefact(tmp_path, "learner", net, stirred(net), {"algorithm": {}, "record": {}})
    assert json.loads((tmp_path / CONFIG).read_text())["backbone"]["quantize"] == mode
    again = read_artefact(tmp_path, "learner", base=str(bert), device="cpu")
    assert again.net.options == net.options
    assert torch.equal(again.net.features(again.weights, whole()), net.features(stirred(net), whole()))


# What is refused.


@pytest.mark.parametrize("width", [32, 64, 80, 96, 100, 128, 160, 192, 312, 320])
def test_a_width_is_taken_only_if_it_is_computed_right(width: int, mode: Quantize) -> None:
    """bitsandbytes 0.50 reads rows of 80 or 96 weights in 4 bits wrongly on CPUs with AVX-512, and says nothing."""
    import bitsandbytes as bnb

    weight = torch.randn(32, width, generator=torch.Generator().manual_seed(1))
    layer: Any = bnb.nn.Linear4bit(width, 32, bias=False, compress_statistics=True, quant_type="nf4")
    if mode == "8bit":
        layer = bnb.nn.Linear8bitLt(width, 32, bias=False, has_fp16_weights=False)
    layer.load_state_dict({"weight": weight})
    layer = layer.to("cpu")
    right = float((in_fp32(layer) - weight).norm() / weight.norm()) < 0.12
    if right:
        bits.require_layers(mode, CPU, torch.float32, nn.Linear(width, 8))
    else:
        with pytest.raises(InputError, match=f"layers of width {width} "):
            bits.require_layers(mode, CPU, torch.float32, nn.Linear(width, 8))


@pytest.mark.skipif(not INSTALLED, reason="bitsandbytes is not installed")
def test_a_device_that_is_not_served_is_one_line(bert: Path) -> None:
    with pytest.raises(InputError, match="does not compute layers of width 64 as it should on this meta") as said:
        bits.require_layers("4bit", torch.device("meta"), torch.float32, outline(str(bert)))
    assert "\n" not in str(said.value)


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="bitsandbytes is not installed")
def test_bitsandbytes_says_nothing_on_its_own() -> None:
    """peft imports it wherever it is installed, and it would warn of a package that it misses."""
    ended = subprocess.run(
        [sys.executable, "-c", "import metanlp.backbone"], capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.skipif(INSTALLED, reason="bitsandbytes is installed")
@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
def test_without_bitsandbytes_it_is_said_before_anything_is_loaded(quantize: Any, tmp_path: Path, tiny: Path) -> None:
    """The folder holds no weights, and would be refused later."""
    (tmp_path / "config.json").write_text((tiny / "config.json").read_text())
    with pytest.raises(InputError, match=rf"weights in {quantize} .* need bitsandbytes.*install 'metanlp\[quantize\]'"):
        Backbone.load(str(tmp_path), quantize=quantize)


@pytest.mark.parametrize("command", ["recipe", "adapt"])
def test_without_bitsandbytes_a_command_ends_in_one_line(command: str, net: Backbone, tmp_path: Path) -> None:
    """In a process that finds what is installed and nothing else."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    there = "import importlib.util as u, sys; sys.exit(u.find_spec('bitsandbytes') is not None)"
    if subprocess.run([sys.executable, "-c", there], env=env).returncode:
        pytest.skip("bitsandbytes is installed")
    words = [str(ROOT / "recipes/demo.py"), "--quantize", "4bit"]
    if command == "adapt":
        taught_in_four_bits(net, tmp_path / "learner")
        (tmp_path / "rows.csv").write_text("text,label\nwhere is it,delivery\nrefund me,payment\n")
        words = ["-c", "from metanlp.cli.commands import main; main()", "adapt", "--from", str(tmp_path / "learner"),
                 "--examples", str(tmp_path / "rows.csv")]  # fmt: skip
    words += ["--out", str(tmp_path / "out")]
    ended = subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == ("weights in 4bit (--quantize) need bitsandbytes, which is not installed; pip install "
                            "'metanlp[quantize]'\n")  # fmt: skip
    assert not (tmp_path / "out").exists()


def taught_in_four_bits(net: Backbone, folder: Path) -> None:
    """The files of a learner that another machine made."""
    algorithm = Maml()
    Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0))).save(folder)
    settings = json.loads((folder / CONFIG).read_text())
    settings["backbone"]["quantize"] = "4bit"
    (folder / CONFIG).write_bytes(signed(settings))
