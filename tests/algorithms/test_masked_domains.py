"""Methods learn domains of text by the contract that they learn labelled tasks by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from domains_of_text import SAMPLING, passages
from near import INNER_STEPS, LAYERS, near

from metanlp.algorithms import Algorithm, Finetune, Maml, Mapping, Multitask, Reptile
from metanlp.algorithms.base import Inner
from metanlp.backbone import Lora
from metanlp.backbone.packing import lengths_of
from metanlp.backbone.vocabulary import VocabularyBackbone
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Weights
from metanlp.episodes.domains import Domains, Passages
from metanlp.evaluation.domains import HeldOutDomain
from metanlp.forms.masked import Masked
from metanlp.training.meta_train import Plan, outer_loop

TWO = Inner(steps=2, lr=0.3, head_lr=3.0)
METHODS: dict[str, Algorithm] = {
    "multitask": Multitask(TWO), "reptile": Reptile(TWO), "maml": Maml(TWO),
    "maml, second order": Maml(TWO, second_order=True),
}  # fmt: skip


@pytest.fixture(scope="module")
def net(tiny: Path) -> VocabularyBackbone:
    return VocabularyBackbone.load(str(tiny), Lora(rank=4, targets="all linear"), max_length=24, precision="fp32")


@pytest.fixture(scope="module")
def domains(net: VocabularyBackbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("domains")
    return {f"d{number}": passages(folder, net, number) for number in range(5)}


def episodes_of(net: VocabularyBackbone, domains: dict[str, Any], names: tuple[str, ...]) -> Domains:
    return Domains({name: domains[name] for name in names}, SAMPLING, seed=1)


def learned(method: Algorithm, net: VocabularyBackbone, draws: Domains, steps: int) -> Weights:
    theta = method.init(net, torch.Generator().manual_seed(0))
    plan = Plan(steps=steps, meta_batch=2, lr=1e-2, validations=0, patience=0)
    return outer_loop(method, net, theta, draws, plan, {}, validate=None, folder=None, resume=False, ranks=None,
                      name="test", trackers=())[0]  # fmt: skip


def held_out(net: VocabularyBackbone, domains: dict[str, Any], name: str) -> HeldOutDomain:
    return HeldOutDomain(name, domains[name], domains[name], SAMPLING, (4, 8), 3, 40, seed=0)


@pytest.mark.parametrize("kind", METHODS)
def test_the_gradient_is_the_slope_of_the_loss(kind: str, net: VocabularyBackbone, domains: dict[str, Any]) -> None:
    """Two domains in one pass have the gradients of both; multi-task learning's is that of the plain loss."""
    method, draws = METHODS[kind], episodes_of(net, domains, ("d0", "d1"))
    theta = method.init(net, torch.Generator().manual_seed(0))
    theta = {key: value + 0.05 for key, value in theta.items()}
    ((together,), apart) = draws.passes(0, 2, 2), draws.passes(0, 2, 1)
    whole, parts = method.meta_grad(net, theta, together()), [method.meta_grad(net, theta, each()) for each in apart]
    near(whole.loss, torch.cat([part.loss for part in parts]), LAYERS)
    near(weights.pick(whole.grad, "lora/"), weights.pick(weights.total(p.grad for p in parts), "lora/"), INNER_STEPS)
    assert whole.tokens == sum(part.tokens for part in parts) > 0
    if kind == "multitask":
        leaves = weights.leaves(theta)
        sides = (draws[0].support, draws[0].query)
        zero = {"head/bias": torch.zeros(1, net.width)}
        losses = [method.scores_loss(method.scores(net, leaves | zero, side), side) for side in sides]
        plain = weights.gradient(torch.stack(losses).mean(), leaves)
        near(weights.pick(parts[0].grad, "lora/"), weights.pick(plain, "lora/"), LAYERS)


def test_passages_lower_the_bits_of_a_domain_that_was_never_seen(
    net: VocabularyBackbone, domains: dict[str, Any]
) -> None:
    """By more after meta-training, and more passages by more; the model is random, so that words are all there is."""
    held, draws = held_out(net, domains, "d4"), episodes_of(net, domains, ("d0", "d1", "d2", "d3"))
    method = Maml(TWO)
    fresh, theta = method.init(net, torch.Generator().manual_seed(0)), learned(method, net, draws, 30)

    def bits(given: Weights, steps: int, k: int) -> float:
        chosen = replace(method, inner=replace(TWO, steps=steps))
        return float(np.mean([held.bits(chosen, net, chosen.adapt(net, given, s)).sum() for s in held.supports[k]]))

    for k in (4, 8):
        assert bits(theta, 2, k) < bits(theta, 0, k)
        assert bits(theta, 2, k) < 0.95 * bits(fresh, 2, k)


def test_every_method_is_judged_on_the_same_masked_tokens(net: VocabularyBackbone, domains: dict[str, Any]) -> None:
    one, same, other = (held_out(net, domains, name) for name in ("d4", "d4", "d3"))
    for a, b in ((one.blocks, same.blocks), *((one.supports[k], same.supports[k]) for k in (4, 8))):
        assert all(torch.equal(x.ids, y.ids) and torch.equal(x.targets, y.targets) for x, y in zip(a, b, strict=True))
    before = [block.ids.clone() for block in one.blocks]
    theta = Finetune(TWO).init(net, torch.Generator().manual_seed(0))
    one.bits(Finetune(TWO), net, Finetune(TWO).adapt(net, theta, one.supports[4][0]))
    assert all(torch.equal(x, y.ids) for x, y in zip(before, one.blocks, strict=True))
    assert not torch.equal(one.blocks[0].ids, other.blocks[0].ids)


def test_bits_are_those_of_all_masked_tokens(net: VocabularyBackbone, domains: dict[str, Any]) -> None:
    held, method = held_out(net, domains, "d4"), Finetune(TWO)
    phis = [method.adapt(net, method.init(net, torch.Generator().manual_seed(0)), s) for s in held.supports[4]]
    each = [held.bits(method, net, phi) for phi in phis]
    found = [held.measures(method, net, phi)["bits"] for phi in phis]
    sample = held.sample(found, 4)
    near(sample.sets.tolist(), [float(bits.sum() / held.counts.sum()) for bits in each])
    assert sample.blocks.shape == held.counts.shape
    near(float(found[0][2]), float(np.delete(each[0], 1).sum() / np.delete(held.counts, 1).sum()))
    scores = method.scores(net, phis[0], held.blocks[0])
    told = torch.log2(scores.softmax(1)[torch.arange(len(scores)), held.blocks[0].targets])
    near(float(each[0][0]), -float(told.sum()), LAYERS)


def test_an_episode_is_a_function_of_its_number(net: VocabularyBackbone, domains: dict[str, Any]) -> None:
    """No passage is on both sides, and every copy of one hides other words; domains are drawn equally often."""
    copied = replace(SAMPLING, copies=3)
    draws, same, other = (Domains(domains, copied, seed) for seed in (1, 1, 2))
    assert draws.checksum(0, 5) == same.checksum(0, 5) != other.checksum(0, 5)
    for number in range(20):
        each = draws[number]
        assert not {*each.support_rows} & {*each.query_rows}
        assert 2 <= len(each.support_rows) <= 4 == len(each.query_rows)
        assert len(each.support.lengths) == 3 * len(each.support_rows)
        assert 0.2 < len(each.support.targets) / (each.support.count_tokens - 2 * len(each.support.lengths)) <= 0.35
    texts = np.split(draws[0].support.ids.numpy(), np.cumsum(lengths_of(draws[0].support))[:-1])
    assert len({text.tobytes() for text in texts}) > len(draws[0].support_rows)
    assert {draws[number].task for number in range(40)} == {*domains}
    with pytest.raises(InputError, match="shots, queries and copies from 1 up"):
        Passages(copies=0)


def test_what_can_not_learn_it_says_so() -> None:
    assert Reptile.learns(Masked())
    assert not Mapping.learns(Masked())
