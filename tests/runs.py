"""Folders as runs leave them, of any shape, with figures drawn by lot: for the tests of the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from metanlp.algorithms import BASELINES
from metanlp.core.versions import versions
from metanlp.evaluation.results import Report, Result

TEXT = "a text that nobody may publish"
VIEWS = ["adapted.6.all", "adapted.6.second", "frozen.6.all", "frozen.4.all", "frozen.3.second", "frozen.4.phrase"]


def scored(
    methods: Mapping[str, float],
    tasks: Sequence[str],
    shots: Sequence[int],
    *,
    episodes: int = 10,
    distinct: int | None = None,
    possible: int = 1000,
    form: str = "classify",
    rows: int = 60,
    noise: float = 0.02,
) -> Report:
    """A report in which each method scores so much; support sets and blocks of query rows are as hard for one as for
    another. The last is the main one."""
    rng, table = np.random.default_rng(0), list[Result]()
    for task, k in product(tasks, shots):
        hard = {"episodes": rng.normal(0, 0.05, episodes), "blocks": rng.normal(0, 0.05, 10)}
        for name, level in methods.items():
            for part, values in hard.items():
                drawn = (level + values + rng.normal(0, noise, len(values))).clip(0, 1)
                for metric, each in (("accuracy", drawn), ("recall", drawn - 0.01), ("ece", np.full(len(drawn), 0.1))):
                    table += [Result(name, task, k, metric, part, n, float(value)) for n, value in enumerate(each)]
    asked = {
        "episodes": episodes, "episodes_sha256": "0" * 64, "seed": 0, "test_rows": rows,
        "metrics": dict.fromkeys(tasks, "accuracy"),
        "left_out": {task: {"shots": {"64": "it has 20 rows"}, "query_rows_in_support": 3} for task in tasks},
        "asked": {"model": "minilm", "data": "mini", "test": "mini", "shots": list(shots)},
    }  # fmt: skip
    sets = {"support_sets": episodes, "distinct": distinct or episodes, "overlap": 0.0, "possible": possible}
    counts = {
        task: {
            "form": form,
            "query_rows": rows,
            "available": 80,
            "shots": {str(k): sets for k in shots},
            "chance": 0.25,
        }
        for task in tasks
    }
    costs = {name: cost(name, 0.05 * 2**number) for number, name in enumerate(methods)}
    curves = {name: curve(level) for name, level in methods.items() if name != "frozen"}
    return Report(asked, versions(), costs, tuple(table), list(methods)[-1], counts, curves)


def cost(name: str, seconds: float) -> dict[str, Any]:
    taught = name not in BASELINES
    return {"train_s": 60.0 * taught, "tokens": 1_500_000 * taught, "recipe_s": 3.0, "steps": 50, "skipped": 0,
            "adapt_s": seconds, "peak_mb": 900.0, "parameters": 330_000 * taught,
            "recipe": {"inner": {"steps": 1, "lr": 0.1, "head_lr": 0.1}}}  # fmt: skip


def curve(level: float) -> dict[str, Any]:
    means = {str(step): level + 0.02 * step**0.5 for step in (0, 1, 2, 5)}
    return {step: {"mean": mean, "low": mean - 0.04, "high": mean + 0.04} for step, mean in means.items()}


def looked_at(found: Report, classes: int) -> Report:
    """With all that a test shows beside its scores."""
    rng = np.random.default_rng(1)
    tasks = list(found.tasks)
    answers = np.array([0, 0, 5, 20, 40, 60, 70, 80, 90, 120])
    sure = answers * (np.arange(10) / 10 + 0.05)
    bins = {"answers": answers.tolist(), "sure": sure.tolist(), "right": (0.9 * sure).tolist()}
    near = [{"task": f"mini/training_task_{n}", "cosine": 0.9 - 0.1 * n} for n in range(5)]
    labels = [f"class number {n}" for n in range(classes)]
    shares = rng.dirichlet([1.0] * len(VIEWS), len(tasks))
    return replace(
        found,
        reliability={name: dict.fromkeys(found.means[name], bins) for name in found.methods},
        views={"names": VIEWS, "prior": [0.2] * len(VIEWS), "tasks": dict(zip(tasks, shares.tolist(), strict=True))},
        nearest={task: [each | {"cosine": rng.uniform(0, 1)} for each in near] for task in tasks},
        hardest={"task": tasks[0], "shots": 4, "score": 0.4, "labels": labels,
                 "confusion": rng.integers(0, 40, (classes, classes)).tolist()},
    )  # fmt: skip


def written(folder: Path, found: Report) -> Path:
    """The files that the page is made of."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(found.to_json()))
    row = {"text": [TEXT, "and <b>its</b> second part"], "right": "up", "said": "down", "probability": 0.97}
    mistakes = {"task": next(iter(found.protocol["metrics"])), "shots": 4, "rows": [row, row | {"probability": None}]}
    local = {"command": "python recipes/demo.py --steps 50", "python": "3.11", "machine": "a test", "ended": "now",
             "learners": {name: f"out/demo/{name}" for name in found.methods}}  # fmt: skip
    (folder / "local.json").write_text(json.dumps({"schema": 1, **local, "mistakes": mistakes}))
    for name in found.methods:
        if name not in BASELINES:
            place = folder if name == list(found.methods)[-1] else folder / "baselines" / name
            place.mkdir(parents=True, exist_ok=True)
            (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log(len(name))))
    return folder


def log(seed: int) -> list[dict[str, Any]]:
    """50 meta-steps; every tenth is validated."""
    rng = np.random.default_rng(seed)
    losses = np.exp(-np.arange(50) / 20) + rng.uniform(0, 0.2, 50)
    return [
        {"step": n + 1, "tokens": 30_000 * (n + 1), "loss": float(losses[n]), "best_step": 10 * ((n + 1) // 10),
         "validation": 0.5 + 0.01 * ((n + 1) // 10) if n >= 9 else None, "since_best": 0}
        for n in range(50)
    ]  # fmt: skip
