"""What a caller has set in PyTorch changes no result, to the bit, and is set as before afterwards."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from slowly import slow_but
from test_learner import NEW, ROWS

from metanlp.algorithms import Maml
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone, Lora
from metanlp.core import weights
from metanlp.core.types import Task
from metanlp.episodes.sampling import Episodes, Sampling
from metanlp.learner.learner import Adapted, Learner
from metanlp.training.meta_train import Plan, meta_train


@contextmanager
def float64() -> Generator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        assert torch.get_default_dtype() == torch.float64
        torch.set_default_dtype(torch.float32)


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": float64,
    "device": lambda: torch.device("meta"),
}


def modes() -> tuple[Any, ...]:
    """All that a caller can see of them."""
    return (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"),
            torch.get_default_dtype(), torch.get_default_device())  # fmt: skip


def everything(tiny: Path, tasks: tuple[Task, ...], folder: Path) -> tuple[np.ndarray, ...]:
    """From loading and training to answers: what a caller gets of the public doors."""
    net = Backbone.load(str(tiny), Lora(rank=4, alpha=8), precision="fp32")
    episodes = Episodes(tasks, net.encode, Sampling(shots=(1, 2), queries=2, ways=3), seed=3)
    learner = meta_train(Maml(inner=Inner(steps=1, lr=0.1, head_lr=0.1)), net, episodes, Plan(steps=1, meta_batch=2))
    learner.save(folder / "learner")
    adapted = Learner.load(folder / "learner", base=str(tiny)).adapt(ROWS)
    adapted.save(folder / "adapted")
    again = Adapted.load(folder / "adapted", base=str(tiny))
    return adapted.logits(NEW), again.scores(NEW), learner.left_out(ROWS), learner.adapt(ROWS).logits(NEW)


@pytest.fixture(scope="module")
def plain(tiny: Path, toy_tasks: tuple[Task, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, ...]:
    return everything(tiny, toy_tasks, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("mode", slow_but(["inference", "float64"], MODES))
def test_training_adapting_and_answering(
    mode: str, plain: tuple[np.ndarray, ...], tiny: Path, toy_tasks: tuple[Task, ...], tmp_path: Path
) -> None:
    with MODES[mode]():
        before = modes()
        found = everything(tiny, toy_tasks, tmp_path)
        assert modes() == before
    for one, other in zip(found, plain, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


def test_weights_that_were_made_in_inference_mode(net: Backbone) -> None:
    theta = Maml().init(net, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        frozen = weights.clone(theta)
    assert np.array_equal(
        Learner(Maml(), net, frozen).adapt(ROWS).logits(NEW), Learner(Maml(), net, theta).adapt(ROWS).logits(NEW)
    )
