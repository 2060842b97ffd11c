"""`make machines` is worth nothing where torch does not take the kernels and threads that it asks for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from near import near

ROOT = Path(__file__).parents[2]


@pytest.mark.numbers
def test_torch_computes_with_the_kernels_and_threads_asked_for() -> None:
    taken = torch.backends.cpu.get_cpu_capability().lower()
    assert os.environ.get("ATEN_CPU_CAPABILITY", taken) == taken
    assert torch.get_num_threads() == int(os.environ.get("OMP_NUM_THREADS", "1"))


def test_what_compares_numbers_is_marked(request: pytest.FixtureRequest) -> None:
    """The bare minimum: the promises of equal bits."""
    marked = {item.originalname for item in request.session.items if item.get_closest_marker("numbers")}
    here = {item.originalname for item in request.session.items}
    promises = {"test_stopped_and_resumed_is_undisturbed", "test_more_processes_learn_what_one_learns",
                "test_a_learner_and_what_it_became_come_back_to_the_bit",
                "test_features_are_those_of_plain_transformers"}  # fmt: skip
    assert promises & here <= marked


def test_floats_are_compared_by_one_rule() -> None:
    """`near` takes its bounds from size and precision; a fixed `atol` holds on one processor."""
    for path in (ROOT / "tests").rglob("*.py"):
        if path != Path(__file__):
            text = path.read_text(encoding="utf-8")
            assert "assert_close" not in text, path
            assert "assert_allclose" not in text, path


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_near_scales_with_the_numbers(size: float) -> None:
    a = size * torch.rand(100, generator=torch.Generator().manual_seed(0))
    near(a + 30e-7 * size, a)
    with pytest.raises(AssertionError, match="allowed are 64"):
        near(a + 100e-7 * size, a)
    near(a.double() + 1e-15 * size, a.double())
    with pytest.raises(AssertionError):
        near(a.double() + 1e-12 * size, a.double())
    with pytest.raises(AssertionError):
        near(a.clone().fill_(torch.nan), a)
