"""How fast the engine is: against a plain peft loop, a pipeline, SetFit, and the machine's own limit.

    make bench
    python recipes/bench_engine.py --model minilm --data my_tasks/ --out out/bench

What is compared runs in turn, in one process, so that a machine whose speed drifts can't favour one side. Memory is the
largest resident size of fresh processes. Each figure is a median, with the lowest and the highest.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from metanlp.config import parse
from metanlp.errors import InputError
from metanlp.launch import guarded

TARGETS = {
    "plain_all": ">= 3.0", "plain_top_half": ">= 4.5", "padded128": ">= 8", "of_gemm_limit": ">= 0.60",
    "cosine_bf16": ">= 0.999", "cosine_fp32": ">= 0.999999", "memory_steps": "<= 1.02", "memory_plain": "<= 1.0",
    "adapt_seconds": "<= 1.5", "adapt_vs_setfit": ">= 40", "adapt_accuracy": "not lower", "setfit_accuracy": "",
    "adapt_recipe_seconds": "<= 10", "predict_vs_pipeline": ">= 3", "predict_vs_sorted": ">= 1.5",
    "batch_growth": "<= 1.10", "processes": ">= 0.95", "episodes_per_s": ">= 2000",
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Measure the engine; a table, and bench.json in --out."""

    model: str = "minilm"  # minilm, a folder, or an id on the Hub; the plain loop needs BERT's names of layers
    data: str = "mini"  # tasks with at least three classes, from which episodes are drawn
    eight: str = "mini/intents_banking"  # the task with eight classes that is adapted to
    repeats: int = 5  # of each comparison; slow ones take 3, prediction 3 at the most
    only: tuple[str, ...] = ()  # keys to measure; all where none is named
    out: Path = Path("out/bench")  # folder for bench.json
    probe: str = ""  # measure this one thing in this process and print it: what the rows of memory and processes start

    def __post_init__(self) -> None:
        if unknown := {*self.only} - {*TARGETS}:
            raise InputError(f"--only {', '.join(sorted(unknown))}: no such key; there are {', '.join(TARGETS)}")


def run(asked: Options) -> None:
    from statistics import median

    import torch
    from bench_rows import ROWS, Figures, probe
    from rich.console import Console
    from rich.table import Table

    from metanlp.checkpoint import atomic_write

    if asked.probe:
        probe(asked)
        return
    figures = Figures(asked)
    for measure, keys in ROWS:
        if figures.wanted(*keys):
            measure(figures)
    found = {key: {"median": median(v), "low": min(v), "high": max(v)} for key, v in figures.found.items()}
    asked.out.mkdir(parents=True, exist_ok=True)
    atomic_write(asked.out / "bench.json", json.dumps(found, indent=1).encode())
    table = Table("figure", "median", "low", "high", "target", title=f"{torch.get_num_threads()} threads")
    for key, target in TARGETS.items():
        if key in found:
            table.add_row(key, *(f"{value:.6g}" for value in found[key].values()), target)
    Console(width=100).print(table)


if __name__ == "__main__":
    guarded(lambda: run(parse(Options, sys.argv[1:])))
