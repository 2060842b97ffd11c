"""The hypernetwork: what is its own beside the laws of all networks that read a support set, in test_mapping.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import write_tiny
from kinds import WORDS, judged, planted, start
from near import far

from metanlp.algorithms import Hypernet
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone, Lora
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Pass
from metanlp.episodes.sampling import Episodes, Sampling, group
from metanlp.training.optimizer import OuterOptimizer, clipped


def test_every_matrix_is_written_for_the_task(net: Backbone, toy_pass: Pass) -> None:
    algorithm = Hypernet()
    theta = start(algorithm, net)
    phi = algorithm.adapt(net, theta, toy_pass.support)
    for key, value in weights.pick(theta, "lora/").items():
        assert phi[key].shape == (toy_pass.support.count_tasks, *value.shape)
        own = phi[key] - value
        assert (own.flatten(1).norm(dim=1) > 1e-3).all()
        assert (own[0] - own[1]).norm() > 0.05 * own[0].norm()  # other tasks, other adapters


def test_the_views_are_doubted_beside_the_evidence(net: Backbone, toy_pass: Pass) -> None:
    algorithm, support = Hypernet(), toy_pass.support
    theta = start(algorithm, net)
    features = net.features(weights.pick(theta, "lora/"), support)
    found = algorithm.emit(theta, features, support)["views/loss"]
    plain = algorithm.emit(theta | {"hypernet/views": 0 * theta["hypernet/views"]}, features, support)["views/loss"]
    assert torch.equal(plain, algorithm.head.evidence(theta, features, support)["views/loss"])
    assert far({"": found}, {"": plain}) > 0.01


def test_the_order_of_names_in_theta_says_nothing(net: Backbone, toy_pass: Pass) -> None:
    """A file gives them back in another."""
    algorithm = Hypernet()
    theta = start(algorithm, net)
    other = dict(reversed(theta.items()))
    assert weights.equal(*(algorithm.adapt(net, w, toy_pass.support) for w in (theta, other)))


def test_the_cost_is_what_runs(net: Backbone, toy_pass: Pass) -> None:
    """The support set goes through the model twice, at θ and with what is written, each forward and backward."""
    algorithm = Hypernet()
    tokens = algorithm.meta_grad(net, start(algorithm, net), toy_pass).tokens
    assert tokens == net.work(toy_pass.support, 4) + net.work(toy_pass.query, 2)


def test_how_much_is_learned(net: Backbone) -> None:
    """The figure of the docstring, and of which order it is for the adapters of a real model."""
    algorithm = Hypernet(basis=8, width=64)
    theta = algorithm.init(net, torch.Generator().manual_seed(0))
    adapters, rank, w = weights.pick(theta, "lora/"), 4, 64
    bases = sum(value.numel() for key, value in theta.items() if key.startswith("hypernet/basis/"))
    rest = sum(value.numel() for key, value in theta.items() if key.startswith("hypernet/")) - bases
    assert bases == 8 / rank * sum(value.numel() for value in adapters.values())
    seeds = w * (len(adapters) + 1 + len(net.view_names))
    assert rest == w * (len(net.view_names) * net.width + 17 * w + rank * 8) + seeds + 8  # two blocks of 4 heads


def test_the_network_alone_learns_a_planted_family(tmp_path: Path) -> None:
    """θ's adapters stay as they began, so that all there is to learn is what to write."""
    write_tiny(tmp_path, WORDS)
    net = Backbone.load(str(tmp_path), Lora(rank=4, alpha=8, layers="all"), views=["adapted.4.all"], precision="fp32")
    sampling = Sampling(shots=(4, 4), queries=8)
    episodes = Episodes(tuple(map(planted, range(6))), net.encode, sampling, seed=1)
    held = group([Episodes([planted(n)], net.encode, sampling, seed=2)[0] for n in range(100, 106)])
    algorithm = Hypernet()
    outer = OuterOptimizer(algorithm.init(net, torch.Generator().manual_seed(0)), weight_decay=0.0)
    before = judged(algorithm, net, outer.theta, held)
    for step in range(40):
        (build,) = episodes.passes(4 * step, 4, 4)
        grad = algorithm.meta_grad(net, outer.theta, build()).grad
        outer.step(clipped(weights.scale(weights.pick(grad, "hypernet/"), 1 / 4), 1.0), rate=0.005)
    assert before < 0.7
    assert judged(algorithm, net, outer.theta, held) > 0.9


@pytest.mark.parametrize("settings", [{"basis": 0}, {"width": 30}, {"layers": 0}, {"inner": Inner(steps=1)}])
def test_settings_that_are_not_possible(settings: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"not possible|no gradient step"):
        Hypernet(**settings)  # pyright: ignore[reportArgumentType]
