"""The pretrained model, packed: it says what plain transformers and plain peft say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.attention.varlen
from conftest import on_threads
from near import LAYERS, near
from peft import PeftModel
from stacks import stacked, take
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModel, AutoTokenizer, BertModel

import metanlp
from metanlp.algorithms import Maml
from metanlp.backbone import Backbone, Lora, View
from metanlp.backbone.attention import agrees, allowed, by_kernel, by_runs, packed_attention
from metanlp.backbone.cpu_threads import at_a_time, side_by_side, whole_passes
from metanlp.backbone.encoder import Options
from metanlp.backbone.packing import FEW, Packing, join, pack, parts
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Pass, Weights
from metanlp.learner.artefact import write_artefact

Texts = Sequence[tuple[str, ...]]

SINGLES: Texts = [("hello",), ("please cancel my order, it came too late and broken",), ("the a of",), ("what?",)]
PAIRS: Texts = [("is it raining", "yes, all day long and all night"), ("no", "a"), ("the long first text of two", "b")]
POOLINGS = ("all", "first", "second", "cls")
EVERY_VIEW = [f"{kind}.{n}.{pooling}" for kind in ("adapted", "frozen") for n in range(1, 5) for pooling in POOLINGS]


@pytest.fixture(scope="module")
def everything(tiny: Path) -> Backbone:
    """Adapters in all layers, every view there is."""
    return Backbone.load(str(tiny), Lora(rank=4, layers="all"), views=EVERY_VIEW, precision="fp32")


def one_batch(net: Backbone, texts: Texts) -> Batch:
    return pack(net.encode(texts), range(len(texts)), [0] * len(texts), 2)


def stirred(theta: Weights, seed: int, size: float = 0.2) -> Weights:
    """Adapters that do something: a fresh B is zero."""
    generator = torch.Generator().manual_seed(seed)
    return {key: value + size * torch.randn(value.shape, generator=generator) for key, value in theta.items()}


def fresh(net: Backbone, seed: int = 0) -> Weights:
    return net.init(torch.Generator().manual_seed(seed))


def padded_views(model: Any, folder: Path, texts: Texts, views: Sequence[str]) -> Tensor:
    """What a careful user of transformers computes: padded, one row at a time in the pooling."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    columns = [list(column) for column in zip(*texts, strict=True)]
    encoded = tokenizer(*columns, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model.eval()(**encoded, output_hidden_states=True).hidden_states
    read = [[_read(states, encoded, row, View.parse(view)) for view in views] for row in range(len(texts))]
    return torch.stack([torch.stack(vectors) for vectors in read])


def _read(states: Any, encoded: Any, row: int, view: View) -> Tensor:
    wanted = {"all": (None, 0, 1), "first": (0,), "second": (1,)}
    if view.pooling == "cls":
        return states[view.layer][row, 0]
    real = encoded["attention_mask"][row].bool()
    mine = torch.tensor([owner in wanted[view.pooling] for owner in encoded.sequence_ids(row)]) & real
    return states[view.layer][row][mine if mine.any() else real].mean(0)


# Packed is plain.


@pytest.mark.parametrize("texts", [SINGLES, PAIRS], ids=["singles", "pairs"])
def test_every_view_of_a_pack_is_that_of_plain_transformers_on_padded_input(
    everything: Backbone, tiny: Path, texts: Texts
) -> None:
    found = everything.features(fresh(everything), one_batch(everything, texts))
    plain = AutoModel.from_pretrained(tiny, attn_implementation="eager")
    near(found, padded_views(plain, tiny, texts, EVERY_VIEW), LAYERS)


@pytest.mark.parametrize("layers", ["top half", "all"])
@pytest.mark.parametrize("targets", ["attention", "all linear"])
def test_a_saved_adapter_in_plain_peft_gives_the_same_features(
    tiny: Path, tmp_path: Path, layers: Any, targets: Any
) -> None:
    views = ("adapted.3.second", "adapted.4.all", "adapted.4.cls")
    lora = Lora(rank=4, alpha=12, layers=layers, targets=targets)
    net = Backbone.load(str(tiny), lora, views=views, precision="fp32")
    theta = stirred(fresh(net), 1)
    write_artefact(tmp_path, "learner", net, theta, {})
    plain = PeftModel.from_pretrained(AutoModel.from_pretrained(tiny), str(tmp_path))
    batch = one_batch(net, PAIRS)
    found, expected = net.features(theta, batch), padded_views(plain, tiny, PAIRS, views)
    near(found, expected, LAYERS)
    assert not torch.allclose(found, net.features(fresh(net), batch), atol=0.1)  # the adapter does something


def test_the_trunk_is_exact(tiny: Path) -> None:
    """Adapters in the top half say the same whether the lower layers are recalled or run."""
    top = Backbone.load(str(tiny), Lora(rank=4), precision="fp32")
    full = Backbone.load(str(tiny), Lora(rank=4, layers="all"), views=top.view_names, precision="fp32")
    theta = stirred(fresh(top), 2)
    everywhere = {key: theta.get(key, torch.zeros_like(value)) for key, value in fresh(full).items()}
    batch = one_batch(top, PAIRS)
    near(top.features(theta, batch), full.features(everywhere, batch))
    assert len(theta) == len(everywhere) / 2


def test_a_trunk_computed_before_is_used_again(net: Backbone) -> None:
    batch = one_batch(net, SINGLES)
    ready = net.with_trunk(batch)
    assert net.with_trunk(ready) is ready
    assert batch.trunk is None
    theta = stirred(fresh(net), 3)
    assert torch.equal(net.features(theta, ready), net.features(theta, batch))


def test_bf16_is_near_fp32(tiny: Path, net: Backbone) -> None:
    """Within 3 % of the largest feature: bf16 keeps 8 bits, and the features come from 4 layers."""
    half = Backbone.load(str(tiny), net.options.adapt, precision="bf16")
    theta, batch = stirred(fresh(net), 4), one_batch(net, PAIRS)
    exact, found = net.features(theta, batch), half.features(theta, batch)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 0.03 * exact.abs().max()


# Tasks in one pass.


def test_tasks_in_one_pass_give_what_they_give_alone(net: Backbone, toy_pass: Pass) -> None:
    singles = [episode.query for episode in toy_pass.episodes]
    parts = [weights.expand(stirred(fresh(net), seed), 1) for seed in range(len(singles))]
    together = net.features(stacked(parts), toy_pass.query)
    apart = torch.cat([net.features(w, batch) for w, batch in zip(parts, singles, strict=True)])
    near(together, apart)


def test_weights_without_a_task_axis_are_the_same_for_all(net: Backbone, toy_pass: Pass) -> None:
    theta = stirred(fresh(net), 1)
    stack = weights.expand(theta, toy_pass.query.count_tasks)
    one, many = (net.features(w, toy_pass.query) for w in (theta, stack))
    near(one, many)


def test_gradients_of_tasks_in_one_pass_are_those_alone(net: Backbone, toy_pass: Pass) -> None:
    singles = [episode.query for episode in toy_pass.episodes]
    stack = weights.leaves(weights.expand(stirred(fresh(net), 1), len(singles)))
    together = weights.gradient(net.features(stack, toy_pass.query).square().sum(), stack)
    for task, batch in enumerate(singles):
        alone = weights.leaves(take(weights.detach(stack), task))
        expected = weights.gradient(net.features(alone, batch).square().sum(), alone)
        difference = weights.norm(weights.add(take(together, task), expected, -1.0))
        assert difference < 5e-6 * weights.norm(expected)  # sums of hundreds of terms, rounded in another order


def test_a_pack_keeps_rows_and_targets(net: Backbone) -> None:
    tokens = net.encode(SINGLES)
    both = join([pack(tokens, [2, 0], [1, 0], 2), pack(tokens, [3, 1, 1], [2, 0, 1], 3)])
    order = [2, 0, 3, 1, 1]
    for text, n in enumerate(order):
        assert (
            both.ids[both.example_of == text].tolist() == tokens.ids[tokens.starts[n] : tokens.starts[n + 1]].tolist()
        )
    assert both.lengths.tolist() == tokens.lengths()[order].tolist()
    assert both.task_of.tolist() == [0, 0, 1, 1, 1]
    assert both.targets.tolist() == [1, 0, 2, 0, 1]
    assert both.ways.tolist() == [2, 3]
    assert both.max_ways == 3
    assert both.ends.tolist() == [int(both.lengths[:2].sum()), both.count_tokens]
    assert both.positions[both.example_of == 2].tolist() == list(range(int(both.lengths[2])))


def test_equally_long_texts_of_a_task_stand_side_by_side(net: Backbone) -> None:
    tokens = net.encode(SINGLES)
    rows = [2, 0, 3, 1, 0, 2]
    both = join([pack(tokens, rows, [0] * 6, 2), pack(tokens, rows, [0] * 6, 2)])
    as_they_stand = [length for count, length in both.runs for _ in range(count)]
    assert as_they_stand == sorted(tokens.lengths()[rows].tolist()) * 2
    starts = np.cumsum([0, *as_they_stand])
    for start, stop in pairwise(starts.tolist()):
        assert both.positions[start:stop].tolist() == list(range(stop - start))
        assert len(set(both.example_of[start:stop].tolist())) == 1


# Part by part.


def test_parts_add_up_to_the_whole(net: Backbone, toy_pass: Pass) -> None:
    batch = net.with_trunk(toy_pass.query)
    theta = weights.expand(stirred(fresh(net), 1), batch.count_tasks)
    whole = net.features(theta, batch)
    adapted = [number for number, view in enumerate(net.views) if view.adapted]
    for most in (1, 40, 10**6):
        found = parts(batch, most)
        for name in ("ids", "positions", "segments", "example_of"):
            assert torch.equal(torch.cat([getattr(part, name) for part in found]), getattr(batch, name))
        assert (len(found) > 1) == (most < 10**6)
        assert all(part.count_tokens >= FEW for part in found)
        assert all(abs(part.count_tokens - max(most, FEW)) <= batch.max_length for part in found[:-1])
        read = torch.stack([net.features(theta, part) for part in found])
        near(read.sum(0)[:, adapted], whole[:, adapted])
        assert ((read[:, :, adapted] != 0).any(-1).any(-1).sum(0) == 1).all()  # each text is in one part


@pytest.mark.parametrize("threads", [2, 3])
def test_parts_side_by_side_give_what_one_thread_gives(net: Backbone, toy_pass: Pass, threads: int) -> None:
    theta = weights.leaves(stirred(fresh(net), 1))

    def computed() -> tuple[Tensor, Weights]:
        x = net.features(theta, toy_pass.support)
        return x.detach(), weights.gradient(x.square().sum(), theta)

    features, gradient = computed()
    with on_threads(threads):
        side, by = computed()
        assert torch.get_num_threads() == threads
    near(side, features)
    near(by, gradient, LAYERS)


def test_side_by_side_a_call_has_one_core(two_threads: None) -> None:
    """torch gives a thread that computes for the first time the number of threads that was set last."""

    def cores() -> int:
        torch.ones(300, 300).matmul(torch.ones(300, 300)).exp().sum()
        return torch.get_num_threads()

    assert side_by_side([cores] * 4) == [1] * 4
    assert side_by_side([cores]) == [1]
    assert torch.get_num_threads() == 2


def test_whole_passes_have_the_same_bits_however_they_are_dealt(
    net: Backbone, toy_pass: Pass, two_threads: None
) -> None:
    theta, cores, cpu = stirred(fresh(net), 1), os.cpu_count() or 1, torch.device("cpu")

    def read() -> tuple[int, Tensor]:
        return torch.get_num_threads(), net.features(theta, toy_pass.support)

    together, alone = whole_passes([read] * 4, cpu, max(4, cores)), whole_passes([read], cpu, max(4, cores))
    assert [threads for threads, _ in together + alone] == [1] * 5
    assert (at_a_time(cpu, cores), at_a_time(cpu, cores - 1), at_a_time(torch.device("meta"), 64)) == (2, 1, 1)
    assert all(torch.equal(x, together[0][1]) for _, x in together + alone)
    assert [threads for threads, _ in whole_passes([read] * 4, cpu, cores - 1)] == [2] * 4
    assert [threads for threads, _ in whole_passes([read] * 4, torch.device("meta"), max(4, cores))] == [2] * 4


def test_threads_that_call_at_once_do_not_meet(net: Backbone, toy_pass: Pass) -> None:
    """A call of the model swaps weights into its modules: two in one tree would compute with each other's."""
    batch, thetas = net.with_trunk(toy_pass.query), [stirred(fresh(net), seed) for seed in range(4)]
    alone = [net.features(theta, batch) for theta in thetas]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for found, expected in zip(pool.map(lambda w: net.features(w, batch), thetas), alone, strict=True):
                assert torch.equal(found, expected)


def test_what_a_part_can_not_do_is_raised_once(net: Backbone) -> None:
    def fails() -> None:
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        side_by_side([fails, fails])
    assert side_by_side([torch.is_grad_enabled] * 2) == [True, True]
    with torch.no_grad():
        assert side_by_side([torch.is_grad_enabled] * 2) == [False, False]


def test_second_derivatives_ask_for_the_math_kernel(net: Backbone, toy_pass: Pass) -> None:
    """Then nothing runs side by side, and a pass can be differentiated twice."""
    theta = weights.leaves(stirred(fresh(net), 1))
    with on_threads(2):
        with sdpa_kernel(SDPBackend.MATH):
            x = net.features(theta, toy_pass.query)
            first = torch.autograd.grad(x.square().sum(), list(theta.values()), create_graph=True)
            second = torch.autograd.grad(sum(g.square().sum() for g in first), list(theta.values()))
        x = net.features(theta, toy_pass.query)
        once = torch.autograd.grad(x.square().sum(), list(theta.values()), create_graph=True)
        with pytest.raises(RuntimeError, match="differentiate"):
            torch.autograd.grad(sum(g.square().sum() for g in once), list(theta.values()))
    assert all(g.isfinite().all() for g in second)
    assert max(float(g.abs().max()) for g in second) > 0


@pytest.mark.slow
def test_gradient_checkpoints_change_memory_and_no_gradient(
    tiny: Path, net: Backbone, toy_pass: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metanlp.backbone.encoder.PART", 64)
    saving = Backbone.load(str(tiny), net.options.adapt, precision="fp32", gradient_checkpoint=True)
    maml = Maml()
    theta = stirred(maml.init(net, torch.Generator().manual_seed(0)), 1, size=0.05)
    plain, saved = (maml.meta_grad(backbone, theta, toy_pass).grad for backbone in (net, saving))
    with on_threads(1):  # of graphs in other threads nothing can be seen
        held = [_held(backbone, weights.leaves(theta), toy_pass.query) for backbone in (net, saving)]
        monkeypatch.setattr("metanlp.backbone.encoder.WHOLE", 64)  # a pass larger than that needs no option for it
        large = maml.meta_grad(net, theta, toy_pass).grad
        held.append(_held(net, weights.leaves(theta), toy_pass.query))
    near(saved, plain, LAYERS)
    near(large, plain, LAYERS)
    assert max(held[1:]) < held[0] / 5


def _held(net: Backbone, theta: Weights, batch: Batch) -> int:
    """Bytes that the graph of a pass holds until its gradient is taken."""
    sizes: dict[int, int] = {}

    def hold(tensor: Tensor) -> Tensor:
        sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    ready = net.with_trunk(batch)
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        kept = net.features(theta, ready)
    assert kept.requires_grad
    return sum(sizes.values())


# State.


def test_nothing_in_a_backbone_changes(tiny: Path, toy_pass: Pass) -> None:
    net = Backbone.load(str(tiny), Lora(rank=4), precision="fp32")
    trees = (net._plain, net._adapted)
    before = [weights.checksum(tree.state_dict()) for tree in trees]
    maml = Maml()
    theta = maml.init(net, torch.Generator().manual_seed(0))
    maml.meta_grad(net, theta, toy_pass)
    maml.adapt(net, theta, toy_pass.support)
    assert [weights.checksum(tree.state_dict()) for tree in trees] == before
    assert not any(p.grad is not None for tree in trees for p in tree.parameters())


def test_both_trees_share_their_tensors(net: Backbone) -> None:
    plain = {p.data_ptr() for p in net._plain.parameters()}
    adapted = {p.data_ptr() for name, p in net._adapted.named_parameters() if ".lora_" not in name}
    assert len(plain & adapted) > 30  # embeddings, and the upper layers as far as frozen views read


def test_init_depends_on_the_generator_alone(net: Backbone) -> None:
    assert weights.equal(fresh(net, 1), fresh(net, 1))
    assert not weights.equal(fresh(net, 1), fresh(net, 2))
    assert all(value.any() == (".lora_A." in key) for key, value in fresh(net).items())


def test_hidden_states_of_all_tokens(net: Backbone) -> None:
    batch = one_batch(net, SINGLES)
    hidden = net.hidden(fresh(net), batch)
    assert hidden.shape == (batch.count_tokens, net.width)
    mean = hidden[batch.example_of == 1].mean(0)
    last = net.view_names.index("adapted.4.all")
    near(net.features(fresh(net), batch)[1, last], mean)


def test_work_counts_layers_that_run(net: Backbone, everything: Backbone) -> None:
    batch = one_batch(net, SINGLES)
    # Two of four layers adapted; the frozen views need all four once, the trunk is among them.
    assert net.work(batch, 3) == round(batch.count_tokens * (4 + 3 * 2) / 4)
    assert everything.work(batch, 3) == batch.count_tokens * (1 + 3)


# Refusals.


class KeepsItsAttention(BertModel):
    """A model on which transformers' switch has no effect."""

    def set_attn_implementation(self, *_: object, **__: object) -> None:
        pass


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_probe_refuses_an_attention_that_is_not_ours(tiny: Path, attention: str) -> None:
    model = KeepsItsAttention.from_pretrained(tiny, attn_implementation=attention)
    with pytest.raises(RuntimeError, match="its attention is not ours"):
        Backbone(model, AutoTokenizer.from_pretrained(tiny), Options(Lora(rank=4)), base="stubborn")


@pytest.mark.parametrize(
    "keyword",
    [{"attention_mask": torch.ones(1)}, {"dropout": 0.1, "softcap": 1.0}, {"s_aux": 4.0}, {"head_mask": torch.ones(1)}],
)
def test_packed_attention_refuses_what_it_would_pass_over(net: Backbone, keyword: dict[str, Any]) -> None:
    batch = one_batch(net, SINGLES)
    x = torch.ones(1, 2, batch.count_tokens, 4)
    arguments: dict[str, Any] = {"attention_mask": None, "packing": Packing(batch)} | keyword
    with pytest.raises(NotImplementedError, match=next(iter(keyword))):
        packed_attention(torch.nn.Identity(), x, x, x, **arguments)


def unequal_lengths(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ends: Tensor,
    ends_k: Tensor,
    most: int,
    most_k: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
) -> Tensor:
    """What torch's documentation says of `varlen_attn`, which runs on GPUs only: text by text."""
    assert ends.dtype == torch.int32
    assert most == most_k == ends.diff().max()
    assert ends.equal(ends_k)
    left, right = (size if size >= 0 else most for size in window_size)
    found = []
    for begin, end in ends.unfold(0, 2, 1).tolist():
        place = torch.arange(end - begin)
        behind = place[:, None] - place
        mask = (behind <= left) & (-behind <= right)
        one = (x[begin:end].transpose(0, 1) for x in (q, k, v))
        found.append(
            torch.nn.functional.scaled_dot_product_attention(*one, attn_mask=mask, scale=scale).transpose(0, 1)
        )
    return torch.cat(found)


@pytest.mark.parametrize(("causal", "window"), [(False, None), (True, None), (False, 2), (True, 2)])
def test_a_kernel_for_unequal_lengths_is_called_as_it_is_documented(
    net: Backbone, causal: bool, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", unequal_lengths)
    packing = Packing(join([one_batch(net, SINGLES), one_batch(net, SINGLES[:2])]))
    q, k, v = torch.randn(3, packing.batch.count_tokens, 2, 8, generator=torch.Generator().manual_seed(0))
    places = partial(allowed, causal=causal, window=window, device=torch.device("cpu"))
    expected = by_runs(packing, q, k, v, partial(nn.functional.scaled_dot_product_attention, scale=0.3), places)
    near(by_kernel(packing, q, k, v, 0.3, causal, window), expected)


def test_a_kernel_that_is_not_there_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch has none for CPUs. One that is off, or not differentiable, is not used either."""
    cpu = torch.device("cpu")
    assert not agrees(cpu, torch.bfloat16, 2, 16)
    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", unequal_lengths)
    assert agrees.__wrapped__(cpu, torch.bfloat16, 2, 16)
    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", lambda q, *_, **__: 1.1 * q)
    assert not agrees.__wrapped__(cpu, torch.bfloat16, 2, 16)


def test_views_are_written_as_they_are_read() -> None:
    assert all(str(View.parse(view)) == view for view in (*EVERY_VIEW, "adapted2.4.all", "adapted9.3.cls"))


@pytest.mark.parametrize("view", ["", "adapted", "adapted.4", "frozen.x.all", "adapted.4.mean", "both.4.all",
                                  "adapted1.4.all", "adapted10.4.all", "frozen2.4.all"])  # fmt: skip
def test_a_view_that_is_none(view: str) -> None:
    with pytest.raises(InputError, match=r"KIND\.LAYER\.POOLING"):
        View.parse(view)


def test_no_set_of_adapters_is_left_out(tiny: Path) -> None:
    with pytest.raises(InputError, match="read set 3 of the adapters, and none reads set 2"):
        Backbone.load(str(tiny), Lora(rank=4), views=["adapted.4.all", "adapted3.4.all"])


@pytest.mark.parametrize("view", ["adapted.2.all", "frozen.0.all", "frozen.5.all"])
def test_a_view_that_this_backbone_can_not_read(tiny: Path, view: str) -> None:
    with pytest.raises(InputError, match=f"view '{view}' reads layer"):
        Backbone.load(str(tiny), Lora(rank=4), views=[view])


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="could not be loaded") as caught:
        Backbone.load(str(tmp_path))
    assert "\n" not in str(caught.value)


OFFLINE = """
import sys
from metanlp.backbone import Backbone, Lora
for name in ("lab/plain", "lab/sentences"):
    print(*Backbone.load(name, Lora(rank=4)).view_names)
"""


@pytest.mark.slow
def test_a_model_in_the_cache_is_read_offline(tiny: Path, tmp_path: Path) -> None:
    """Whatever program put it there: one that knew nothing of sentence-transformers asked for no `modules.json`."""
    for name in ("plain", "sentences"):
        snapshot = tmp_path / "hub" / f"models--lab--{name}" / "snapshots" / ("0" * 40)
        shutil.copytree(tiny, snapshot)
        (snapshot.parents[1] / "refs").mkdir()
        (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    (snapshot / "modules.json").write_text(
        '[{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "1"}]'
    )
    (snapshot / "1").mkdir()
    (snapshot / "1" / "config.json").write_text('{"pooling_mode": "cls"}')
    root = str(Path(next(iter(metanlp.__path__))).parent)
    env = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": root}
    ended = subprocess.run([sys.executable, "-c", OFFLINE], env=env, capture_output=True, text=True, timeout=120)
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["adapted.4.all", "adapted.4.cls"], ended.stderr


def test_an_architecture_without_layers(tiny: Path) -> None:
    model = BertModel.from_pretrained(tiny)
    model.config.model_type = "mamba"
    model.config.num_hidden_layers = 5
    with pytest.raises(InputError, match="a mamba model can't be adapted: it has no list of 5 layers"):
        Backbone(model, AutoTokenizer.from_pretrained(tiny), Options(), base="mamba")


@pytest.mark.parametrize("rank", [-4, 0, 6])
def test_a_rank_that_is_not_possible(rank: int) -> None:
    with pytest.raises(InputError, match="multiple of 4"):
        Lora(rank=rank)


def test_the_name_is_never_a_path(net: Backbone, tiny: Path) -> None:
    assert net.name == f"./{tiny.name}"
    assert len(net.base.sha256) == 64


def test_long_texts_are_cut(tiny: Path) -> None:
    short = Backbone.load(str(tiny), Lora(rank=4), precision="fp32", max_length=7)
    assert short.encode([("a " * 50,), ("a",)]).lengths().tolist() == [7, 3]
    assert short.encode([("a " * 50, "b " * 50)]).lengths().tolist() == [7]
    with pytest.raises(InputError, match="tiny-bert reads at most 128 tokens, but max_length is 129"):
        Backbone.load(str(tiny), max_length=129)


def test_texts_that_were_cut_or_are_unknown_are_counted(tiny: Path) -> None:
    net = Backbone.load(str(tiny), max_length=8)
    assert not net.notice()
    # The last is as long as may be: its words are 6 tokens, with two special ones around them.
    texts = [("a " * 50,), ("☃ ☃ ☃",), ("a b",), ("",), (" ".join("abacab"),)]
    tokens = net.encode(texts)
    assert (tokens.cut, tokens.unknown) == (1, 1)
    net.encode([("☃", "☃ " * 50)])
    assert net.notice() == (
        "2 of 6 texts that were read were cut after 8 tokens; "
        "2 of 6 texts that were read consist mostly of pieces that the tokenizer does not know"
    )
