"""The hot path asks the device nothing: a GPU would stand still for every answer.

The device here is torch's "meta", which has shapes and no numbers. What asks for a number raises, and so does a tensor
whose shape is a number's, or one that was made on another device.
"""

from __future__ import annotations

import pytest
import torch
from kinds import KINDS, LEARN, classes_of, one_token_each, start
from torch import Tensor

from metanlp.algorithms import Algorithm
from metanlp.core import weights
from metanlp.core.types import Batch, Pass, Task, Weights
from metanlp.episodes.sampling import Episodes, Sampling

META = torch.device("meta")
ROWS = {ways: [{"text": f"{n}", "label": n % ways} for n in range(60)] for ways in (2, 3)}
TASKS = tuple(Task(f"given/{ways}", {"train": rows}, ("a", "b", "c")[:ways], "given") for ways, rows in ROWS.items())


class Plain:
    """A linear layer with an adapter on one-hot tokens, on any device: all that a method asks of a backbone."""

    width, view_names, words = 6, ("adapted.1.all", "adapted.1.cls"), 8

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.base = torch.randn(self.width, self.words, generator=torch.Generator().manual_seed(3)).to(device)

    def init(self, generator: torch.Generator) -> Weights:
        sizes = {"one.lora_A.weight": (2, self.words), "one.lora_B.weight": (self.width, 2)}
        return {f"lora/{k}": torch.randn(size, generator=generator).to(self.device) for k, size in sizes.items()}

    def with_trunk(self, batch: Batch) -> Batch:
        return batch.to(self.device)

    def features(self, w: Weights, batch: Batch) -> Tensor:
        down, up = (w[f"lora/one.lora_{side}.weight"] for side in "AB")
        if down.dim() == 3:
            down, up = down[batch.task_of], up[batch.task_of]
        place = torch.arange(len(batch.task_of), device=self.device)
        x = torch.stack([(place * k + batch.targets * 3 + 1.0).sin() for k in range(1, self.words + 1)], 1)
        hidden = x @ self.base.T + (up @ (down @ x[..., None]))[..., 0]
        return torch.stack([hidden.tanh(), hidden.sin()], 1)

    def work(self, batch: Batch, passes: int) -> int:
        return batch.count_tokens * passes


def given() -> Pass:
    """Four episodes of two and of three classes, with other numbers of rows."""
    episodes = Episodes(TASKS, lambda texts, *_: one_token_each(texts), Sampling(shots=(2, 4), queries=3), seed=0)
    (build,) = episodes.passes(0, 4, 4)
    return build()


def meta_grad(algorithm: Algorithm, device: torch.device, episodes: Pass) -> Weights:
    net = Plain(device)
    theta = weights.to(start(algorithm, Plain(torch.device("cpu")), classes_of(TASKS)), device)
    sides = [side.to(device) for side in (episodes.support, episodes.query)]
    return algorithm.meta_grad(net, theta, Pass(episodes.episodes, *sides)).grad


@pytest.mark.parametrize("kind", LEARN)
def test_a_meta_gradient_asks_the_device_nothing(kind: str) -> None:
    algorithm, episodes = KINDS[kind], given()
    assert len({len(e.support.targets) for e in episodes.episodes}) > 1
    found = meta_grad(algorithm, META, episodes)
    plain = meta_grad(algorithm, torch.device("cpu"), episodes)
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in plain.items()}
    assert {value.device for value in found.values()} == {META}


@pytest.mark.parametrize("kind", LEARN)
def test_adapting_and_scoring_ask_the_device_nothing(kind: str) -> None:
    algorithm, episodes, net = KINDS[kind], given(), Plain(META)
    theta = weights.to(algorithm.init(net, torch.Generator().manual_seed(0)), META)
    phi = algorithm.adapt(net, theta, episodes.support.to(META))
    scores = algorithm.scores(net, phi, episodes.query.to(META))
    assert scores.shape == (len(episodes.query.targets), 3)


def test_what_asks_is_found() -> None:
    """The tests above can fail."""
    numbers = torch.ones(3, device=META)
    for ask in (lambda: int(numbers.max()), lambda: numbers.tolist(), lambda: bool(numbers[0] > 0),
                lambda: numbers.nonzero(), lambda: numbers[numbers > 0], lambda: numbers + torch.ones(3)):  # fmt: skip
        with pytest.raises((RuntimeError, NotImplementedError)):
            ask()
