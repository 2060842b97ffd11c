"""Which precision the frozen weights get, and that it stays with a learner."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from metanlp.algorithms import ProtoNet
from metanlp.backbone import Backbone, Lora
from metanlp.backbone.quantize import Precision, decide
from metanlp.learner.learner import Learner

CPU = torch.device("cpu")


@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_what_is_asked_for_is_taken(asked: Precision) -> None:
    assert decide(asked, CPU) == asked


@pytest.mark.slow
def test_auto_is_fp32_with_the_kernels_of_older_processors() -> None:
    code = "import torch; from metanlp.backbone.quantize import decide; print(decide('auto', torch.device('cpu')))"
    environ = os.environ | {"ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["fp32"]


@pytest.mark.slow  # a timing, which other jobs on the machine can spoil
@pytest.mark.skipif(decide("auto", CPU) == "fp32", reason="this processor has no products in bf16")
def test_where_auto_is_bf16_its_products_are_faster() -> None:
    x, w = torch.randn(1024, 384), torch.randn(1536, 384)

    def seconds(x: Tensor, w: Tensor) -> float:
        begun = time.perf_counter()
        torch.nn.functional.linear(x, w)
        return time.perf_counter() - begun

    plain, half = (
        min(seconds(x.to(dtype), w.to(dtype)) for _ in range(30)) for dtype in (torch.float32, torch.bfloat16)
    )
    assert half < plain


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_saved_learner_keeps_the_precision_that_it_was_tested_in(
    tiny: Path, tmp_path: Path, precision: Precision
) -> None:
    net = Backbone.load(str(tiny), Lora(rank=4), precision=precision)
    Learner(ProtoNet(), net, ProtoNet().init(net, torch.Generator().manual_seed(0))).save(tmp_path / "learner")
    assert Learner.load(tmp_path / "learner", base=str(tiny)).net.options.precision == precision
