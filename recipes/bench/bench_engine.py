"""How fast the engine is: against a plain peft loop, a pipeline, SetFit, and the machine's own limit.

    make bench
    python recipes/bench/bench_engine.py --model minilm --data my_tasks/ --out out/bench

What is compared runs in turn, in one process, so that a machine whose speed drifts can't favour one side. Memory is the
largest resident size of fresh processes. Each figure is a median, with the lowest and the highest.
"""

import json
import sys

from bench_options import TARGETS, Options

from metanlp.cli.launch import guarded
from metanlp.core.settings import parse


def run(asked: Options) -> None:
    from statistics import median

    import torch
    from bench_rows import ROWS, Figures, probe
    from rich.console import Console
    from rich.table import Table

    from metanlp.core.outputs import check_file
    from metanlp.core.storage import atomic_write

    if asked.probe:
        probe(asked)
        return
    check_file(asked.out / "bench.json", [], replace=asked.replace)
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
