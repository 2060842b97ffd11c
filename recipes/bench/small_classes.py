"""Recall of a class with few rows beside classes with many: `python recipes/bench/small_classes.py frozen finetune`.

A line a method and pair of sizes: mean recall of the smaller class and of the others over the draws of each task.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
import tyro

from metanlp import Backbone
from metanlp.algorithms import ALGORITHMS
from metanlp.algorithms.base import Algorithm
from metanlp.core.types import Batch, Weights
from metanlp.episodes.pool import Pool
from metanlp.tasks.sources.mini import read_mini

SIZES = ((4, 4), (4, 6), (4, 12), (1, 2), (1, 4), (1, 16), (2, 16))


def main(methods: tyro.conf.Positional[tuple[str, ...]], tasks: str = "reviews urgency", draws: int = 10) -> None:
    """`methods` by name, with an option behind a colon (`siamese:match=best`); `draws` for each task and size."""
    net = Backbone.load("minilm")
    roles = read_mini()
    chosen = [
        t for t in (*roles.train, *roles.validation, *roles.test) if any(word in t.name for word in tasks.split())
    ]
    pools = [Pool.of(task, net.encode) for task in chosen]
    asked = [net.with_trunk(pool.pack(range(len(pool.rows)))) for pool in pools]
    for method in methods:
        name, *options = method.split(":")
        algorithm = replace(ALGORITHMS[name](), **dict(option.split("=") for option in options))
        theta = algorithm.init(net, torch.Generator().manual_seed(0))
        for few, many in SIZES:
            each = (recalls(algorithm, net, theta, *one, few, many, draws) for one in zip(pools, asked, strict=True))
            found = np.array([one for some in each for one in some])
            small, large = found.mean(0)
            print(f"{method:24} {few:2} beside {many:2}: {small:.2f} / {large:.2f}  ({len(found)} draws)", flush=True)


def recalls(
    algorithm: Algorithm, net: Backbone, theta: Weights, pool: Pool, everything: Batch, few: int, many: int, draws: int
) -> Iterator[tuple[float, float]]:
    """Recall of the smaller class, and mean recall of the others, on all rows that were not drawn."""
    for number in range(draws):
        rng = np.random.default_rng([number, few, many])
        small = number % len(pool.by_class)
        sizes = [few if label == small else many for label in range(len(pool.by_class))]
        support = np.concatenate([rng.permutation(rows)[:n] for rows, n in zip(pool.by_class, sizes, strict=True)])
        yield judged(
            algorithm, net, theta, pool.pack(support), everything, np.isin(range(len(pool.rows)), support), small
        )


def judged(
    algorithm: Algorithm, net: Backbone, theta: Weights, support: Batch, rows: Batch, seen: np.ndarray, small: int
) -> tuple[float, float]:
    phi = algorithm.adapt(net, theta, support)
    with torch.no_grad():
        said = algorithm.scores(net, phi, rows).argmax(1).numpy()
    truth = rows.targets.numpy()
    each: Sequence[float] = [float((said == truth)[(truth == label) & ~seen].mean()) for label in range(rows.max_ways)]
    return each[small], float(np.mean([recall for label, recall in enumerate(each) if label != small]))


if __name__ == "__main__":
    tyro.cli(main)
