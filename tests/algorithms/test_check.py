"""`check_algorithm`: what keeps the contract passes, and of what breaks it the law is named."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from kinds import KINDS, USUAL, made
from slowly import slow_but
from torch import Tensor

from metanlp import check_algorithm
from metanlp.algorithms import Algorithm, Maml, ProtoNet
from metanlp.algorithms.base import Net
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, MetaGrad, Pass, Weights
from metanlp.forms import Form


@pytest.mark.parametrize("kind", slow_but(USUAL, KINDS))
def test_every_method_passes(kind: str) -> None:
    algorithm = made(kind)
    check_algorithm(algorithm)
    assert algorithm == made(kind)


@dataclass(frozen=True)
class Own(ProtoNet):
    """A user's method that does one thing wrong."""

    wrong: str = ""

    def init(self, net: Net, generator: torch.Generator) -> Weights:
        if self.wrong == "draws":
            torch.rand(1)
        return super().init(net, generator)

    def adapting(
        self, net: Net, theta: Weights, support: Batch, steps: Collection[int]
    ) -> Iterator[tuple[int, Weights]]:
        if self.wrong == "in place":
            theta["head/scale"] += 1
        for step, phi in super().adapting(net, theta, support, steps):
            if self.wrong == "mixes":
                phi = phi | {"head/bias": phi["head/bias"] - phi["head/weight"].mean()}
            yield step, weights.drop(phi, "head/") if self.wrong == "undeclared" else phi

    def head_scores(self, phi: Weights, features: Tensor, batch: Batch) -> Tensor:
        found = super().head_scores(phi, features, batch)
        return found.nan_to_num(neginf=0.0) if self.wrong == "beyond" else found

    def meta_grad(self, net: Net, theta: Weights, episodes: Pass) -> MetaGrad:
        given = super().meta_grad(net, theta, episodes)
        if self.wrong == "mean":
            return replace(given, grad=weights.scale(given.grad, 1 / len(given.loss)))
        foreign = {"head/other": torch.zeros(1)} if self.wrong == "foreign" else {}
        return replace(given, grad=given.grad | foreign)

    def recipes(self) -> tuple[Algorithm, ...]:
        return (Maml(),) if self.wrong == "recipe" else (self,)

    def left_out(self, net: Net, theta: Weights, support: Batch) -> tuple[Tensor, Tensor]:
        if self.wrong == "crash":
            raise KeyError("head/weigth")
        return super().left_out(net, theta, support)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("draws", "randomness: `init` draws from torch's global generator"),
        ("in place", "purity: `adapt` changes θ"),
        ("undeclared", "declarations: `linear_head` is declared, and φ has no head/weight and head/bias"),
        ("beyond", "scores: `scores` are not −inf beyond a task's own classes"),
        ("mixes", "independence: task 0 has other scores in a pass with others than alone"),
        ("crash", "left-out scores: KeyError: 'head/weigth'"),
        ("mean", "meta-gradient: the gradient of a pass is not the sum over its episodes"),
        ("foreign", "meta-gradient: `meta_grad` gives gradients that are not of θ"),
        ("recipe", "recipes: `recipes` gives another method"),
    ],
)
def test_a_broken_law_is_named(wrong: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        check_algorithm(Own(wrong=wrong))
    assert str(caught.value).startswith(f"Own breaks the law of {said}")
    assert "\n" not in str(caught.value)


def test_a_method_for_other_rows_is_told_so() -> None:
    @dataclass(frozen=True)
    class Numbers(Maml):
        @classmethod
        def learns(cls, form: Form) -> bool:
            return not form.single_label

    with pytest.raises(InputError, match="Numbers does not learn 'classify'"):
        check_algorithm(Numbers())
