"""The rows of `bench_engine.py`: each function measures some of its keys."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from bench_options import Options
from bench_sides import BATCH, SHOTS, Bench, gemm_rate, in_turn, rows_by_class, seconds, tasks_of, useful_work
from plain_loop import PlainClassifier, pipeline_of

from metanlp import Backbone, Episodes, Learner, Lora, Maml, Plan, Sampling
from metanlp.backbone.pretrained import folder_of
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.evaluation.external import SetFit
from metanlp.experiment.options import Experiment
from metanlp.experiment.prepare import make
from metanlp.tasks.taskset import read
from metanlp.training.meta_train import meta_step
from metanlp.training.processes import Ranks
from metanlp.training.task_heads import TaskHeads

STORED, SMALL = ("multitask", "protonet", "maml"), 200  # methods, and rows a task, for the figures of the store


@dataclass
class Figures:
    """Measurements by key."""

    asked: Options
    found: dict[str, list[float]] = field(default_factory=dict)

    def wanted(self, *keys: str) -> bool:
        return not self.asked.only or bool({*keys} & {*self.asked.only})

    def add(self, **values: float) -> None:
        for key, value in values.items():
            self.found.setdefault(key, []).append(value)
        print(*(f"{key} {value:.4g}" for key, value in values.items()), file=sys.stderr, flush=True)


# The loops.


def loops(figures: Figures) -> None:
    """Episodes a second against the plain loop, the share of the GEMM limit, and whether the gradients agree."""
    asked = figures.asked
    for key, layers in (("plain_all", "all"), ("plain_top_half", "top half")):
        if not figures.wanted(key, *(("padded128", "of_gemm_limit") if layers == "all" else ())):
            continue
        bench = Bench.of(asked.model, asked.data, layers, asked.precision)
        plain = bench.plain(asked.model)
        longest, padded = plain.episodes(), plain.episodes(pad_to=128)
        bench.step()
        for _ in range(asked.repeats if figures.wanted(key, "of_gemm_limit") else 0):
            ours, theirs = in_turn(bench.step, partial(plain.step, longest))
            figures.add(**{key: theirs / ours})
            if layers == "all":
                figures.add(of_gemm_limit=useful_work(bench, asked.model) / ours / gemm_rate(bench.net))
        for _ in range(3 if layers == "all" and figures.wanted("padded128") else 0):
            ours, theirs = in_turn(bench.step, partial(plain.step, padded))
            figures.add(padded128=theirs / ours)


def gradients(figures: Figures) -> None:
    exact = Bench.of(figures.asked.model, figures.asked.data, precision="fp32")
    plain = exact.plain(figures.asked.model)
    expected = weights.flatten(plain.step(plain.episodes())).double()
    for precision in ("fp32", "bf16"):
        found = weights.flatten(
            replace(Bench.of(figures.asked.model, figures.asked.data, precision=precision), theta=exact.theta).step()
        )
        cosine = torch.nn.functional.cosine_similarity(found.double(), expected, dim=0)
        figures.add(**{f"cosine_{precision}": float(cosine)})


# Memory and processes, in fresh processes.


def probed(asked: Options, probe: str, processes: int = 1, threads: int = 2) -> float:
    """What a fresh process, or several, print for a probe."""
    start = [sys.executable] if processes == 1 else ["torchrun", "--standalone", "--nproc_per_node", str(processes)]
    words = ["--model", asked.model, "--data", asked.data, "--probe", probe]
    environ = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [*start, str(Path(__file__).with_name("bench_engine.py")), *words],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputError(f"probe {probe} failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.split()[-1])


def fresh(figures: Figures) -> None:
    asked = figures.asked
    for _ in range(3):
        if figures.wanted("memory_steps", "memory_plain"):
            one, twenty, five, plain = (probed(asked, p) for p in ("engine 1", "engine 20", "engine 5", "plain 5"))
            figures.add(memory_steps=twenty / one, memory_plain=five / plain)
        if figures.wanted("processes"):
            together, alone = probed(asked, "episodes", 2, 1), probed(asked, "episodes", 1, 2)
            figures.add(processes=alone / together)


def probe(asked: Options) -> None:
    """Print the largest resident size after a meta-gradient, or seconds an episode."""
    what, *number = asked.probe.split()
    bench, threads = (
        Bench.of(asked.model, asked.data, "top half" if what == "episodes" else "all"),
        int(os.environ["OMP_NUM_THREADS"]),
    )
    if what == "episodes":
        ranks, plan = Ranks.start(cpu=True, threads=threads), Plan(steps=1, meta_batch=BATCH)
        times = [
            seconds(lambda: meta_step(bench.algorithm, bench.net, bench.theta, bench.episodes, plan, 0, ranks))
            for _ in range(3)
        ]
        ranks.close()
        if ranks.main:
            print(min(times) / BATCH)
        return
    inner = replace(bench.algorithm.inner, steps=int(number[0]))
    bench = replace(bench, algorithm=replace(bench.algorithm, inner=inner))
    if what == "engine":
        bench.step()
    else:
        plain = bench.plain(asked.model)
        plain.step(plain.episodes())
    print(peak())


def peak() -> float:
    """The largest resident size of this process. What getrusage says begins at the size of the parent, on Linux."""
    status = Path("/proc/self/status")
    if status.exists():
        return float(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


# Adapting, predicting, building.


def adapting(figures: Figures) -> None:
    (task,) = read(figures.asked.eight, data_root=None)
    net, maml = Backbone.load(figures.asked.model), Maml()
    learner = Learner(maml, net, maml.init(net, torch.Generator().manual_seed(0)))
    slow = replace(learner, algorithm=max(maml.recipes(), key=lambda a: (a.inner.lr > 0, a.inner.steps)))
    rows = [(row["text"], row["label"]) for row in task.pools["train"]]
    for repeat in range(3):
        chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(repeat)).tolist()
        support = [n for k in range(len(task.labels)) for n in [c for c in chosen if rows[c][1] == k][:8]]
        query = [rows[n] for n in chosen if n not in set(support)]
        shown = [rows[n] for n in support]
        examples = [(text, task.labels[label]) for text, label in shown]
        fast = seconds(partial(learner.adapt, examples, effort="fast"))
        figures.add(adapt_seconds=fast, adapt_recipe_seconds=seconds(partial(slow.adapt, examples)))
        said = learner.adapt(examples, effort="fast").predict([text for text, _ in query])
        right = [word == task.labels[label] for word, (_, label) in zip(said, query, strict=True)]
        figures.add(adapt_accuracy=sum(right) / len(right))
        if find_spec("setfit"):
            given, asked = ([{"text": text, "label": label} for text, label in each] for each in (shown, query))
            found = SetFit(figures.asked.model).answer(task, given, asked, seed=repeat)
            hits = found.values.argmax(1) == [label for _, label in query]
            figures.add(adapt_vs_setfit=found.adapt_s / fast, setfit_accuracy=float(hits.mean()))


def predicting(figures: Figures) -> None:
    """Texts of one to four rows in a row, so that lengths are mixed; one view, so that both run the model once."""
    bench, maml, folder = Bench.of(figures.asked.model, figures.asked.data), Maml(), folder_of(figures.asked.model)
    task = bench.episodes.tasks[0]
    rows = [row for row in task.pools["train"] if "text" in row]
    lengths = torch.randint(1, 5, (400,), generator=torch.Generator().manual_seed(0)).tolist()
    texts = [" ".join(rows[(7 * n + m) % len(rows)]["text"] for m in range(count)) for n, count in enumerate(lengths)]
    examples = [
        (rows[n]["text"], task.labels[rows[n]["label"]]) for group in rows_by_class(task) for n in group[:SHOTS]
    ]
    ours = Learner(maml, bench.net, maml.init(bench.net, torch.Generator())).adapt(examples)
    plain, pipe = PlainClassifier(folder, len(task.labels)), pipeline_of(folder, len(task.labels))
    ours.predict(texts)
    for _ in range(min(3, figures.asked.repeats)):
        mine = seconds(lambda: ours.predict(texts))
        loops = [seconds(lambda size=size: plain.predict(texts, size)) for size in (16, 32, 64)]
        pipes = [
            seconds(lambda size=size: pipe(texts, batch_size=size, truncation=True, max_length=128)) for size in (8, 32)
        ]
        figures.add(predict_vs_sorted=min(loops) / mine, predict_vs_pipeline=min(pipes) / mine)


def scaling(figures: Figures) -> None:
    """Seconds an episode, by meta-batch: the same episodes of one inner step each."""
    bench = Bench.of(figures.asked.model, figures.asked.data, "top half")
    bench = replace(bench, algorithm=replace(bench.algorithm, inner=replace(bench.algorithm.inner, steps=1)))

    def per_episode(batch: int) -> float:
        plan, ranks, steps = Plan(steps=1, meta_batch=batch), Ranks.alone(), 64 // batch

        def run() -> None:
            for step in range(steps):
                meta_step(bench.algorithm, bench.net, bench.theta, bench.episodes, plan, step, ranks)

        return seconds(run) / (steps * batch)

    bench.step()
    for _ in range(3):
        times = [per_episode(batch) for batch in (1, 4, 16, 64)]
        figures.add(batch_growth=max(times) / min(times))


def storing(figures: Figures) -> None:
    """Meta-steps a minute, as an experiment takes them, on texts that are all in the store, against none there: the
    second epoch over the first rows of each task, or the second method."""
    tasks = [replace(task, pools={"train": task.pools["train"][:SMALL]}) for task in tasks_of(figures.asked.data)]
    lora, precision = Lora(16, 32, targets="all linear"), figures.asked.precision
    net = Backbone.load(figures.asked.model, lora, precision=precision, store_gb=4.0)
    episodes, plan, store = Episodes(tasks, net.encode, Sampling(), seed=0), Plan(steps=1, meta_batch=2), net.store
    for name in STORED if store else ():
        algorithm = make(name, Experiment())
        theta = algorithm.init(net, torch.Generator().manual_seed(0))
        heads = TaskHeads(algorithm, net, 0.0, net.device)
        for number in range(figures.asked.repeats):
            drawn = heads.of(episodes.drawn(number * plan.meta_batch, plan.meta_batch))
            step = partial(meta_step, algorithm, net, theta | drawn, episodes, plan, number, Ranks.alone())
            step()
            stored = seconds(step)
            net.store = None
            computed, net.store = seconds(step), store
            figures.add(**{f"stored_{name}": computed / stored, f"steps_{name}": 60 / stored})


def building(figures: Figures) -> None:
    episodes = Bench.of(figures.asked.model, figures.asked.data, "top half").episodes
    for _ in range(figures.asked.repeats + 1):
        figures.add(episodes_per_s=2000 / seconds(lambda: [build() for build in episodes.passes(0, 2000, 1)]))
    del figures.found["episodes_per_s"][0]  # tokenised


ROWS: list[tuple[Callable[[Figures], None], tuple[str, ...]]] = [
    (loops, ("plain_all", "plain_top_half", "padded128", "of_gemm_limit")),
    (gradients, ("cosine_fp32", "cosine_bf16")),
    (fresh, ("memory_steps", "memory_plain", "processes")),
    (adapting, ("adapt_seconds", "adapt_recipe_seconds", "adapt_vs_setfit", "adapt_accuracy", "setfit_accuracy")),
    (predicting, ("predict_vs_pipeline", "predict_vs_sorted")),
    (scaling, ("batch_growth",)),
    (building, ("episodes_per_s",)),
    (storing, tuple(f"{what}_{name}" for name in STORED for what in ("stored", "steps"))),
]
