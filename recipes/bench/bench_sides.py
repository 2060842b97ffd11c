"""The two sides of `bench_engine.py`: the engine and the plain loop, on the same episodes with the same start."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from plain_loop import PlainEpisode, PlainMaml
from torch import Tensor

from metanlp import Backbone, Episodes, Lora, Plan, Sampling
from metanlp.algorithms.base import Net
from metanlp.algorithms.inner import Inner, InnerLoop, last, trajectory
from metanlp.backbone import quantize as bits
from metanlp.backbone.pretrained import folder_of, outline
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, MetaGrad, Pass, Task, Weights
from metanlp.forms import FORMS
from metanlp.forms.heads import linear_scores
from metanlp.tasks.taskset import read
from metanlp.training.meta_train import meta_step
from metanlp.training.processes import Ranks

WAYS, SHOTS, BATCH, RANK, LR = 3, 8, 8, 8, 0.1
SHAPES = [(rows, *size) for rows in (512, 1024, 4096) for size in ((1, 1), (1, 4), (4, 1))]  # of GEMMs, × hidden size


@dataclass(frozen=True)
class LinearMaml(InnerLoop):
    """First-order MAML with the plain loop's head: linear, learned, the same for every task."""

    inner: Inner = Inner(steps=5, lr=LR, head_lr=LR, clip=1e9)

    def init(self, net: Net, generator: torch.Generator) -> Weights:
        """Adapters and head off zero, so that all have a gradient."""
        start = net.init(generator) | {"head/weight": torch.zeros(WAYS, net.width), "head/bias": torch.zeros(WAYS)}
        return {key: value + 0.02 * torch.randn(value.shape, generator=generator) for key, value in start.items()}

    def meta_grad(self, net: Net, theta: Weights, episodes: Pass) -> MetaGrad:
        support, query = net.with_trunk(episodes.support), net.with_trunk(episodes.query)

        def loss(phi: Weights, batch: Batch) -> Tensor:
            scores = linear_scores(phi["head/weight"], phi["head/bias"], net.features(phi, batch), batch)
            return self.scores_loss(scores, batch)

        phi = last(trajectory(lambda w: loss(w, support), weights.expand(theta, support.count_tasks), self.inner))
        phi = weights.leaves(phi)
        asked = loss(phi, query)
        grad = {key: value.sum(0) for key, value in weights.gradient(asked.sum(), phi).items()}
        tokens = net.work(support, 2 * self.inner.steps) + net.work(query, 2)
        return MetaGrad(grad, asked.detach(), tokens)


def seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def in_turn(*calls: Callable[[], object]) -> list[float]:
    return [seconds(call) for call in calls]


@dataclass(frozen=True)
class Bench:
    """The same episodes for the engine and for the plain loop."""

    net: Backbone
    episodes: Episodes
    theta: Weights
    algorithm: LinearMaml = LinearMaml()

    @staticmethod
    def of(model: str, data: str, layers: Any = "all", precision: Any = "auto") -> "Bench":
        net = Backbone.load(model, Lora(RANK, 2 * RANK, layers, "query and value"), precision=precision,
                            views=[f"adapted.{depth_of(model)}.all"])  # fmt: skip
        episodes = Episodes(enough(data), net.encode, Sampling((SHOTS, SHOTS), SHOTS, WAYS), seed=0)
        return Bench(net, episodes, LinearMaml().init(net, torch.Generator().manual_seed(0)))

    def step(self, batch: int = BATCH) -> Weights:
        plan = Plan(steps=1, meta_batch=batch)
        return meta_step(self.algorithm, self.net, self.theta, self.episodes, plan, 0, Ranks.alone())[0]

    def plain(self, model: str) -> "Plain":
        names = [path.rsplit(".", 1)[1] for path in self.net.family.targets("query and value")]
        loop = PlainMaml(folder_of(model), RANK, 2 * RANK, range(self.net.lowest, self.net.depth), names)
        return Plain(self, loop)


@dataclass(frozen=True)
class Plain:
    bench: Bench
    model: PlainMaml

    def episodes(self, pad_to: int | None = None) -> list[PlainEpisode]:
        found: list[PlainEpisode] = []
        for number in range(BATCH):
            episode = self.bench.episodes[number]
            (task,) = [task for task in self.bench.episodes.tasks if task.name == episode.task]
            rows = first_rows(task)
            sides = [self.model.tokenised([rows[n] for n in chosen], pad_to)
                     for chosen in (episode.support_rows, episode.query_rows)]  # fmt: skip
            found.append(PlainEpisode(sides[0], episode.support.targets, sides[1], episode.query.targets))
        return found

    def step(self, episodes: Sequence[PlainEpisode]) -> Weights:
        theta, inner = self.bench.theta, self.bench.algorithm.inner
        mine = {name: theta[key_of(name)] for name in self.model.adapters}
        head = {name: theta[f"head/{name}"] for name in ("weight", "bias")}
        grad = self.model.meta_step(mine, head, episodes, inner.steps, inner.lr)
        return {key_of(name): value for name, value in grad.items()}


def key_of(name: str) -> str:
    """The plain loop's name of a tensor -> ours."""
    return f"lora/{name.replace('.default.weight', '.weight')}" if "lora" in name else f"head/{name}"


def first_rows(task: Task) -> list[tuple[str, ...]]:
    """Texts of the rows that a pool has: without repeats."""
    form = FORMS[task.form]
    return [form.texts(row)[0] for row in {form.key(row): row for row in reversed(task.pools["train"])}.values()][::-1]


def depth_of(model: str) -> int:
    config: Any = outline(model).config
    return int(config.num_hidden_layers)


def tasks_of(names: str) -> list[Task]:
    """Those of one label a text."""
    root = os.environ.get("METANLP_DATA")
    return [task for task in read(names, data_root=Path(root) if root else None) if FORMS[task.form].single_label]


def enough(names: str) -> list[Task]:
    """Tasks whose episodes have three classes."""
    able = [t for t in tasks_of(names) if sum(n > SHOTS for n in map(len, rows_by_class(t))) >= WAYS]
    if not able:
        raise InputError(f"--data {names}: no task has {WAYS} classes with more than {SHOTS} rows")
    return able


def rows_by_class(task: Task) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in task.labels]
    for number, row in enumerate(task.pools["train"]):
        found[row["label"]].append(number)
    return found


def useful_work(bench: Bench, model: str) -> float:
    """Operations that the linear layers need for a meta-batch, without padding: forward, and back to activations."""
    block = cast(Any, outline(model)).get_submodule(bench.net.family.layers)[0]
    sizes = [bits.sizes(block.get_submodule(path)) for path in bench.net.family.targets("all linear")]
    sides = [(e.support.count_tokens, e.query.count_tokens) for e in map(bench.episodes.__getitem__, range(BATCH))]
    tokens = sum(bench.algorithm.inner.steps * support + query for support, query in sides)
    return 4.0 * tokens * bench.net.depth * sum(a * b for a, b in sizes)


def gemm_rate(net: Backbone) -> float:
    """The best rate of a matrix product at the precision in use, operations a second."""
    dtype = torch.bfloat16 if net.options.precision == "bf16" else torch.float32
    best = 0.0
    for rows, inner, outer in SHAPES:
        x, w = (
            torch.randn(rows, inner * net.width, dtype=dtype),
            torch.randn(outer * net.width, inner * net.width, dtype=dtype),
        )
        calls = [seconds(lambda x=x, w=w: torch.nn.functional.linear(x, w)) for _ in range(12)]
        best = max(best, 2 * x.numel() * w.shape[0] / median(calls))
    return best
