"""What a run needs of memory, told from a model's shapes alone, against what is then held."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Here, mini_tasks
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import TINY, distinct, frozen_tensors, stirred, tiny_model, whole
from torch import Tensor
from transformers import AutoTokenizer

import metanlp
from metanlp.algorithms import Algorithm, Anil, Hypernet, Maml, ProtoNet, Reptile
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone, Lora
from metanlp.backbone.memory_estimate import MemoryEstimate, estimate, of_gpu, refuse, tasks_per_pass
from metanlp.backbone.options import Options
from metanlp.backbone.pretrained import outline
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Pass, Task, Weights
from metanlp.episodes.sampling import Sampling, largest_pass

ROOT = Path(next(iter(metanlp.__path__))).parent
CPU = torch.device("cpu")
SAMPLING = Sampling(shots=(4, 8), queries=8, ways=5)


def opened(kind: str, **options: Any) -> tuple[Backbone, MemoryEstimate]:
    """A tiny model, and the estimate for as many tokens as `whole()` has."""
    lora = Lora(rank=4, targets="all linear")
    tokenizer = AutoTokenizer.from_pretrained(options.pop("tokenizer"))
    net = Backbone(tiny_model(kind), tokenizer, Options(lora, **options), base=kind)
    return net, estimate(tiny_model(kind).to("meta"), net.options, CPU, whole().count_tokens)


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_are_right_to_the_byte(kind: str, precision: Any, tiny: Path) -> None:
    net, needed = opened(kind, precision=precision, tokenizer=tiny, views=("adapted.4.all", "frozen.4.all"))
    assert sum(distinct(t for tree in (net._plain, net._adapted) for t in frozen_tensors(tree))) == needed.weights


@pytest.mark.parametrize("kind", ["bert", "albert", "gpt2", "llama", "deberta-v2"])
def test_what_learns_is_counted(kind: str, tiny: Path) -> None:
    """θ, gradient and two moments, as much for φ, and the places in the model: 9 times 4 bytes."""
    net, needed = opened(kind, precision="fp32", tokenizer=tiny)
    assert needed.learned == 36 * sum(value.numel() for value in stirred(net).values())


@pytest.mark.parametrize("kind", [kind for kind in TINY if kind not in ("mpnet", "deberta-v2", "ernie")])
def test_the_activations_of_a_pass_are_at_most_the_estimate(kind: str, tiny: Path) -> None:
    """Within a factor of 2.6 of what autograd keeps."""
    net, needed = opened(kind, precision="fp32", tokenizer=tiny)
    held = kept(net, whole())
    assert held <= needed.activations <= 2.6 * held


def test_minilm_needs_at_most_the_estimate() -> None:
    net = Backbone.load("minilm", Lora(rank=16, targets="all linear"), precision="fp32")
    batch = whole()
    needed = estimate(outline("minilm"), net.options, CPU, batch.count_tokens)
    assert sum(distinct(t for tree in (net._plain, net._adapted) for t in frozen_tensors(tree))) == needed.weights
    held = kept(net, batch)
    assert held <= needed.activations <= 2.5 * held


@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_the_inner_steps_of_second_order_are_at_most_the_estimate(kind: str, checkpoints: bool, tiny: Path) -> None:
    """A step within a factor of 3 of what autograd keeps of it, with checkpoints too; first order keeps one pass."""
    net, _ = opened(kind, precision="fp32", tokenizer=tiny, gradient_checkpoint=checkpoints)
    side = net.with_trunk(whole())
    given, tokens, held, needed = Pass((), side, side), side.count_tokens, dict[int, int](), dict[int, int]()
    for steps in (1, 3):
        algorithm = Maml(Inner(steps), second_order=True)
        theta = algorithm.init(net, torch.Generator().manual_seed(0)) | stirred(net)
        held[steps] = saved(net, theta, lambda a=algorithm, w=theta: a.meta_grad(net, w, given))
        estimated = estimate(tiny_model(kind).to("meta"), net.options, CPU, *algorithm.cost().rows(tokens, tokens))
        needed[steps] = estimated.activations
        assert held[steps] <= needed[steps]
    assert held[3] - held[1] <= needed[3] - needed[1] <= 3 * (held[3] - held[1])
    assert Maml(Inner(3)).cost().rows(tokens, tokens) == ProtoNet().cost().rows(tokens, tokens) == (2 * tokens, 0)


def test_what_is_kept_at_once_is_counted_by_rows() -> None:
    """So many times the support set and the query rows."""
    inner, found = Inner(steps=3), dict[Algorithm, tuple[int, int]]()
    found[Maml(inner, second_order=True)] = (210, 300)  # at θ, at φ, and in each step
    found[Anil(inner, second_order=True)] = (110, 0)  # its steps do not go through the model
    found[Maml(Inner(0), second_order=True)] = found[Maml(inner)] = found[Reptile(inner)] = (110, 0)
    found[Maml(inner, multi_step=0.5)] = (330, 0)
    found[Maml(inner, multi_step=0.5, second_order=True)] = (230, 300)
    found[Hypernet()] = (210, 0)
    assert {algorithm: algorithm.cost().rows(100, 10) for algorithm in found} == found


def kept(net: Backbone, batch: Batch) -> int:
    """Bytes that autograd keeps of one pass, weights apart."""
    leaves, batch = weights.leaves(stirred(net)), net.with_trunk(batch)
    return saved(net, leaves, lambda: net.features(leaves, batch).sum())


def saved(net: Backbone, theta: Weights, run: Callable[[], object]) -> int:
    """Bytes that autograd keeps while this runs, weights apart."""
    found: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    known = [*theta.values(), *frozen_tensors(net._plain), *frozen_tensors(net._adapted)]
    ours = {tensor.untyped_storage().data_ptr() for tensor in known}
    return sum(distinct(tensor for place, tensor in found.items() if place not in ours))


def test_checkpoints_and_bits_save_what_they_should(tiny: Path) -> None:
    model, tokens, lora, cuda = outline(str(tiny)), 50_000, Lora(targets="all linear"), torch.device("cuda")
    every = {
        (bits, parts): estimate(model, Options(lora, quantize=bits, gradient_checkpoint=parts), cuda, tokens)
        for bits in ("none", "4bit", "8bit")
        for parts in (False, True)
    }
    plain = every["none", False]
    assert 2 * every["none", True].activations < plain.activations
    assert every["4bit", False].weights < every["8bit", False].weights < plain.weights
    assert every["none", True].activations < every["8bit", True].activations < plain.activations
    assert {needed.learned for needed in every.values()} == {plain.learned}
    cpu = estimate(model, Options(lora, precision="fp32"), CPU, tokens)
    assert every["none", True].activations <= cpu.activations < plain.activations


def test_the_largest_pass_is_that_of_a_training_episode_or_of_a_test_task() -> None:
    """Rows of 27 bytes of text, 12 tokens by the estimate; 300 bytes are cut."""
    short = [{"text": "x" * 27, "label": n % 3} for n in range(30)]
    long = [{"text_a": "x" * 150, "text_b": "ü" * 75, "label": n % 8} for n in range(400)]
    three, eight = task("three", short, 3), task("eight", long, 8)
    assert largest_pass([three], [], SAMPLING, 16, 128) == 3 * 16 * 12
    assert largest_pass([three, eight], [], SAMPLING, 16, 64) == 5 * 16 * 64
    assert largest_pass([three], [eight], SAMPLING, 16, 64) == 8 * 16 * 64
    assert largest_pass([], [], SAMPLING, 16, 64) == 0


def task(name: str, rows: list[dict[str, Any]], ways: int) -> Task:
    return Task(name, {"train": rows}, tuple(map(str, range(ways))), source=name)


@pytest.mark.parametrize("name", ["mini/emotions", "mini/answer_match", "mini/intents_home", "mini/formality"])
def test_rows_are_not_longer_than_the_estimate(name: str, net: Backbone) -> None:
    """In the word pieces of MiniLM."""
    found = mini_tasks()[name]
    tokenizer = Backbone.load("minilm", Lora(rank=4)).tokenizer
    rows = found.pools["train"]
    tokens = tokenizer([" ".join(v for v in row.values() if isinstance(v, str)) for row in rows])["input_ids"]
    mean = sum(map(len, tokens)) / len(rows)
    each = largest_pass([], [found], SAMPLING, 100, 128) / (100 * len(found.labels))
    assert mean <= each <= 1.8 * mean


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_store_of_all_texts_holds_what_is_estimated(precision: Any, tiny: Path) -> None:
    net = Backbone.load(str(tiny), Lora(rank=4), precision=precision, store_gb=1.0)
    batch = whole()
    net.with_trunk(batch)
    needed = estimate(outline(str(tiny)), net.options, CPU, 0, stored=(len(batch.lengths), batch.count_tokens))
    assert net.store is not None
    assert net.store.held == needed.store


# What people see.


def test_a_second_set_of_adapters_is_counted(tiny: Path) -> None:
    views = ("adapted.4.all", "frozen.4.all")
    (_, one), (net, both) = (opened("bert", precision="fp32", tokenizer=tiny, views=each)
                             for each in (views, (*views, "adapted2.4.all")))  # fmt: skip
    assert both.learned == 2 * one.learned == 36 * sum(value.numel() for value in stirred(net).values())
    assert abs(both.activations - 2 * one.activations) <= 2, "two roundings"


def test_the_line_says_what_is_what() -> None:
    said = str(MemoryEstimate(weights=91_000_000, learned=12_000_000, activations=300_000_000))
    assert said == "about 0.4 GB: 0.09 weights, 0.01 adapters and optimizer, 0.3 a pass"
    assert str(MemoryEstimate(90_000_000, 10_000_000, 300_000_000, passes=2)) == (
        "about 0.7 GB: 0.09 weights, 0.01 adapters and optimizer, 2 × 0.3 a pass"
    )
    assert str(MemoryEstimate(90_000_000, 10_000_000, 300_000_000, store=1_000_000_000)) == (
        "about 1.4 GB: 0.09 weights, 0.01 adapters and optimizer, 1.0 stored, 0.3 a pass"
    )


def test_too_little_is_refused_in_one_line() -> None:
    refuse("the run", 8_000_000_000, 8_000_000_000)
    with pytest.raises(InputError) as said:
        refuse("the run", 8_000_000_001, 7_900_000_000)
    assert str(said.value) == ("the run would take about 8.0 GB of memory, and 7.9 GB are free; take --quantize 4bit, "
                               "--gradient-checkpoint or a smaller --model")  # fmt: skip


def test_a_model_that_can_not_fit_is_refused_before_it_is_loaded(here: Here, tiny: Path, tmp_path: Path) -> None:
    """A folder that holds no weights: loading them would be refused in other words."""
    config = json.loads((tiny / "config.json").read_text())
    huge = config | {"hidden_size": 65_536, "intermediate_size": 262_144, "num_hidden_layers": 400}
    (tmp_path / "huge").mkdir()
    (tmp_path / "huge" / "config.json").write_text(json.dumps(huge))
    words = ["--model", tmp_path / "huge", "--threads", "1", "--out", tmp_path / "out"]
    code, out, said = here("python", ROOT / "recipes" / "demo.py", *words)
    assert code == 2
    assert out.startswith("memory: about ")
    assert said.count("\n") == 1
    assert "GB are free; take --quantize 4bit, --gradient-checkpoint or a smaller --model" in said
    assert not (tmp_path / "out").exists()


@given(st.integers(1, 64), st.integers(1, 16), st.integers(0, 10**11), st.integers(1, 10**10), st.integers(0, 10**10))
def test_episodes_share_a_pass_where_they_fit(
    meta_batch: int, processes: int, gpu: int, activations: int, weights_: int
) -> None:
    """A divisor of the meta-batch; what it takes is there; every process has a pass; the next divisor would not do."""
    needed = MemoryEstimate(weights_, activations // 10, activations)

    def fits(n: int) -> bool:
        return meta_batch % n == 0 and needed.of(n, 1).total <= 0.8 * gpu and meta_batch // n >= processes

    chosen = tasks_per_pass(needed, gpu, meta_batch, processes)
    assert chosen == max([n for n in range(1, meta_batch + 1) if fits(n)], default=1)


def test_a_cpu_has_one_episode_a_pass() -> None:
    assert tasks_per_pass(MemoryEstimate(0, 1, 1), of_gpu(CPU), 8, 1) == 1


def test_heads_of_training_tasks_are_rows_of_all_features() -> None:
    model, views = tiny_model("bert").to("meta"), ("adapted.4.all", "frozen.4.all")
    plain, guided = (estimate(model, Options(Lora(), views), CPU, 100, head_rows=rows) for rows in (0, 10))
    assert guided.heads == 4 * 10 * 2 * model.config.hidden_size
    assert guided.total - plain.total == guided.of(4, 1).heads == guided.heads
