"""Second-order MAML on the tiny BERT: against finite differences and `higher`; what it costs."""

from __future__ import annotations

from abc import ABC
from dataclasses import replace
from pathlib import Path
from typing import Any

import higher
import pytest
import torch
from gradients import ADAM, CLIPPED, FREE, inner_product, slopes
from kinds import start
from near import INNER_STEPS, LAYERS, far, near
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

from metanlp.algorithms import Algorithm, Anil, Maml, MetaSgd, ProtoNet, Reptile
from metanlp.algorithms.inner import Inner
from metanlp.algorithms.steps import twice_differentiable
from metanlp.backbone import Backbone, Lora
from metanlp.core import weights
from metanlp.core.types import Batch, Episode, Pass, Task, Weights
from metanlp.episodes.sampling import Episodes, Sampling, group
from metanlp.forms import FORMS
from metanlp.forms.heads import linear_scores
from metanlp.learner.artefact import ADAPTER_CONFIG

# On the tiny BERT.


@pytest.fixture(scope="module")
def plain(tiny: Path) -> Backbone:
    """Two adapted views of the last layer."""
    views = ["adapted.4.all", "adapted.4.cls"]
    return Backbone.load(str(tiny), Lora(rank=4, alpha=8), views=views, precision="fp32")


def test_second_order_without_steps_is_the_plain_gradient(net: Backbone, toy_pass: Pass) -> None:
    theta = start(ProtoNet(), net)
    one, other = (Maml(Inner(0), second_order=order).meta_grad(net, theta, toy_pass) for order in (False, True))
    assert weights.equal(one.grad, other.grad)
    assert (one.tokens, torch.equal(one.loss, other.loss)) == (other.tokens, True)


def test_second_order_is_that_of_finite_differences(net: Backbone, toy_pass: Pass) -> None:
    """In fp32, along the gradient: first order is far off."""
    inner = Inner(steps=2, lr=0.1, head_lr=0.3, clip=1e9)
    first, second = Maml(inner), Maml(inner, second_order=True)
    theta, few = start(first, net), group(toy_pass.episodes[:2])
    one, two = (algorithm.meta_grad(net, theta, few).grad for algorithm in (first, second))
    length = float(weights.norm(two))
    way = weights.scale(two, 1 / length)
    (slope,) = slopes(second, net, theta, few, [way], 1e-2)
    assert slope == pytest.approx(length, rel=1e-4)
    assert inner_product(one, way) < 0.9 * length


@pytest.mark.parametrize("clip", [0.2, 1e9])
def test_second_order_is_that_of_higher(
    plain: Backbone, tiny: Path, tmp_path: Path, toy_pass: Pass, monkeypatch: pytest.MonkeyPatch, clip: float
) -> None:
    """Plain transformers and plain peft, padded and with eager attention, patched and stepped by `higher`."""
    swap_bases(monkeypatch)
    algorithm = Maml(Inner(steps=2, lr=0.02, head_lr=0.1, clip=clip), second_order=True)
    theta = start(algorithm, plain)
    (tmp_path / ADAPTER_CONFIG).write_bytes(plain.adapter_config())
    for episode in toy_pass.episodes[:2]:
        found = algorithm.meta_grad(plain, theta, group([episode]))
        expected, loss = by_higher(Learnt(tiny, tmp_path, theta, episode), algorithm, theta, episode)
        near(found.loss, loss, LAYERS)
        near(weights.drop(found.grad, *(form.prefix for form in FORMS.values() if form.prefix)), expected, LAYERS)
        first = replace(algorithm, second_order=False).meta_grad(plain, theta, group([episode])).grad
        assert far(weights.pick(first, "lora/"), weights.pick(expected, "lora/")) > 0.01


def swap_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    """`higher` declares (ABC, Module), peft (Module, ABC): no class can inherit from both."""
    theirs: Any = higher.patch._MonkeyPatchBase
    body = {key: value for key, value in vars(theirs).items() if key not in ("__dict__", "__weakref__", "_abc_impl")}
    monkeypatch.setattr(higher.patch, "_MonkeyPatchBase", type(theirs)("Swapped", (nn.Module, ABC), body))


class Learnt(nn.Module):
    """peft's model at θ, and a linear head of zeros for the classes of an episode."""

    def __init__(self, base: Path, config: Path, theta: Weights, episode: Episode) -> None:
        super().__init__()
        model: Any = AutoModel.from_pretrained(base, attn_implementation="eager")
        adapters = LoraConfig.from_pretrained(config)
        adapters.base_model_name_or_path = model.name_or_path
        self.peft: Any = get_peft_model(model, adapters).eval()
        self.named = {name.replace(".default", ""): p for name, p in self.peft.named_parameters() if ".lora_" in name}
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(theta[f"lora/{name}"])
        self.weight = nn.Parameter(torch.zeros(len(episode.classes), 2 * model.config.hidden_size))
        self.bias = nn.Parameter(torch.zeros(len(episode.classes)))

    def forward(self, batch: Batch) -> tuple[Tensor, Weights]:
        """Features of the views (N, 2, D), and the head with an axis for its one task."""
        mine = [batch.example_of == text for text in range(len(batch.lengths))]
        ids, kinds = (nn.utils.rnn.pad_sequence([flat[text] for text in mine], batch_first=True)
                      for flat in (batch.ids, batch.types))  # fmt: skip
        mask = torch.arange(ids.shape[1]) < batch.lengths[:, None]
        x = self.peft(input_ids=ids, token_type_ids=kinds, attention_mask=mask.long()).last_hidden_state
        mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return torch.stack([mean, x[:, 0]], 1), {"head/weight": self.weight[None], "head/bias": self.bias[None]}


def by_higher(model: Learnt, algorithm: Maml, theta: Weights, episode: Episode) -> tuple[Weights, Tensor]:
    """Gradient and loss of one episode."""
    inner, heads = algorithm.inner, weights.leaves(weights.pick(theta, "head/", "views/"))
    lora, head = list(model.named.values()), [model.weight, model.bias]
    sgd = torch.optim.SGD([{"params": lora, "lr": inner.lr}, {"params": head, "lr": inner.head_lr}])

    def shortened(grads: list[Tensor | None]) -> list[Tensor | None]:
        length = torch.cat([g.flatten() for g in grads if g is not None]).norm()
        return [None if g is None else g * (inner.clip / length).clamp(max=1) for g in grads]

    # At θ and not at `fast`, which starts there: the steps go down the support loss at given evidence.
    evidence = algorithm.head.evidence(heads, model(episode.support)[0], episode.support)
    with higher.innerloop_ctx(model, sgd, copy_initial_weights=False) as (fast, steps):
        for _ in range(inner.steps):
            features, residual = fast(episode.support)
            scores, counted = algorithm.head.left_out(heads, evidence | residual, features, episode.support)
            loss = FORMS["classify"].loss(scores, episode.support, counted).sum()
            steps.step(loss, grad_callback=shortened)
        features, residual = fast(episode.support)
        phi = algorithm.head.finish(heads, evidence | residual, features, episode.support)
        scores = linear_scores(phi["head/weight"], phi["head/bias"], fast(episode.query)[0], episode.query)
        loss = nn.functional.cross_entropy(scores, episode.query.targets)
        keys = [*(f"lora/{name}" for name in model.named), *heads]
        grads = torch.autograd.grad(loss, [*lora, *heads.values()])
    return dict(zip(keys, grads, strict=True)), loss.detach()[None]


@pytest.mark.parametrize(
    "algorithm",
    [kind(inner, second_order=True) for kind, inner in ((Maml, FREE), (Maml, ADAM), (MetaSgd, CLIPPED))],
    ids=["sgd", "adam", "meta_sgd"],
)
def test_where_no_row_counts_second_order_is_finite(
    net: Backbone, toy_tasks: tuple[Task, ...], algorithm: Algorithm
) -> None:
    """One shot a class: no support gradient, and the slope of its length would be 0 / 0."""
    given = group([Episodes(toy_tasks[:1], net.encode, Sampling(shots=(1, 1)), seed=0)[0]])
    theta = algorithm.init(net, torch.Generator().manual_seed(0))
    grad = algorithm.meta_grad(net, theta, given).grad
    assert weights.finite(grad)
    assert weights.norm(weights.pick(grad, "lora/"))


@pytest.mark.slow
def test_gradient_checkpoints_change_no_second_order_gradient(
    tiny: Path, net: Backbone, toy_pass: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metanlp.backbone.encoder.PART", 64)
    saving = Backbone.load(str(tiny), net.options.adapt, precision="fp32", gradient_checkpoint=True)
    algorithm = Maml(Inner(steps=2), second_order=True)
    theta = start(algorithm, net)
    plainly, saved = (algorithm.meta_grad(backbone, theta, toy_pass).grad for backbone in (net, saving))
    near(saved, plainly, INNER_STEPS)


@pytest.mark.slow
def test_the_cost_is_what_runs(net: Backbone, toy_tasks: tuple[Task, ...]) -> None:
    """Operations a token, by torch's own count, are those of first order, to a fifth: attention and adapters weigh much
    in so small a model. The fused attention is not in that count, so all run with the other."""
    given = group([Episodes(toy_tasks[:1], net.encode, Sampling(shots=(4, 8)), seed=5)[0]])
    inner = Inner(steps=3)

    def operations(algorithm: Algorithm) -> float:
        theta = start(algorithm, net)
        with twice_differentiable(), FlopCounterMode(display=False) as counter:
            found = algorithm.meta_grad(net, theta, given)
        return counter.get_total_flops() / found.tokens

    usual = operations(Maml(inner))
    for algorithm in (
        ProtoNet(), Anil(inner), Anil(inner, second_order=True), Maml(inner, second_order=True),
        Maml(inner, multi_step=0.5), Maml(inner, second_order=True, multi_step=0.5), Reptile(inner),
        MetaSgd(inner, second_order=True), Maml(replace(ADAM, steps=2), second_order=True),
    ):  # fmt: skip
        assert operations(algorithm) == pytest.approx(usual, rel=0.2)
