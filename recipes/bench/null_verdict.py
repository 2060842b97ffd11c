"""How often a report says Yes or No of methods that are equally good, and how often it sees that one is better.

    python recipes/bench/null_verdict.py [--runs 300] [--seed 0]

A row's answer is right where row difficulty + support set + method + noise is above a threshold. Accuracy varies over
support sets by 3 to 9 points (standard deviation), as is published for LEOPARD; support sets are drawn from pools of 6
to 60 rows, so that they overlap as much as in small data sets. 1 to 6 tasks of 20 to 200 query rows; and 12 to 25 of 4
to 9, the fewest that a verdict is given for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from metanlp.core.settings import parse
from metanlp.evaluation.answers import answers
from metanlp.evaluation.meta_test import dealt, overlap
from metanlp.evaluation.results import Report, Result

SHOTS = 5
METHODS = {"frozen": 0, "finetune": 0, "multitask": 1, "protonet": 1, "anil": 1, "maml": 1}  # learned parameters
SLOPE = 0.27  # accuracy by one unit of the latent scale, near a threshold that 60 to 80 % pass
FEW, MANY = ((1, 6), (20, 200)), ((12, 25), (4, 9))  # tasks, and query rows of each


@dataclass(frozen=True)
class Simulation:
    """What to simulate."""

    runs: int = 300  # for each figure
    seed: int = 0  # of everything that is drawn


def said(
    rng: np.random.Generator, episodes: int, effect: float, sizes: tuple[tuple[int, int], tuple[int, int]] = FEW
) -> tuple[str, str]:
    """Yes, No or another answer to both questions of one simulated test; by `effect` maml is more accurate than all.
    `sizes` are the fewest and most tasks, and query rows of each."""
    rows, counts = list[Result](), dict[str, dict[str, object]]()
    tasks, asked = sizes
    for number in range(int(rng.integers(*tasks, endpoint=True))):
        name, queries = f"task {number}", int(rng.integers(*asked, endpoint=True))
        pool = int(rng.integers(SHOTS + 1, 61))
        chosen = [frozenset(rng.choice(pool, SHOTS, replace=False).tolist()) for _ in range(episodes)]
        rows += results_of(name, right_answers(rng, pool, chosen, queries, effect))
        sets = {"support_sets": episodes, "distinct": len({*chosen}), "overlap": overlap(chosen)}
        counts[name] = {"query_rows": queries, "available": queries, "shots": {str(SHOTS): sets}}
    protocol = {
        "episodes": episodes,
        "metrics": dict.fromkeys(counts, "accuracy"),
        "left_out": {},
        "episodes_sha256": "",
    }
    methods = {name: {"parameters": count, "adapt_s": 0.0} for name, count in METHODS.items()}
    meta, other = answers(Report(protocol, {}, methods, tuple(rows), "maml", counts))
    return meta.word, other.word


def right_answers(
    rng: np.random.Generator, pool: int, chosen: list[frozenset[int]], queries: int, effect: float
) -> np.ndarray:
    """Whether each of M methods is right: (M, S, R) bool."""
    count = len(METHODS)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape)

    sets = np.array([[*each] for each in chosen])
    by_row, by_method = normal(pool), normal(count, pool)
    spread = rng.uniform(0.03, 0.08) / SLOPE
    support = spread * SHOTS**0.5 * (0.7 * by_row[sets].mean(1) + 0.7 * by_method[:, sets].mean(2))  # (M, S)
    latent = rng.uniform(0.3, 1.2) + 0.8 * normal(queries) + 0.5 * normal(len(chosen), queries)
    latent = latent + support[:, :, None] + 0.5 * normal(count, 1, queries) + 0.3 * normal(count, len(chosen), queries)
    latent[-1] += effect / SLOPE
    return latent > 0


def results_of(task: str, right: np.ndarray) -> Iterator[Result]:
    """The table's rows."""
    block_of = dealt(right.shape[2], seed=0)
    for method, each in zip(METHODS, right, strict=True):
        blocks = [each[:, block_of == block].mean() for block in range(block_of.max() + 1)]
        for part, values in (("episodes", each.mean(1)), ("blocks", blocks)):
            yield from (Result(method, task, SHOTS, "accuracy", part, n, float(v)) for n, v in enumerate(values))


def main(asked: Simulation) -> None:
    """A line for each size of a test and number of episodes: for both questions % of the runs that say Yes or No where
    no method is better, and Yes where one is better by 5 or by 10 points."""
    print(
        "tasks  episodes  does it help: meta-learning, other tasks; Yes or No of none | Yes of 5 points | of 10 points"
    )
    for sizes, episodes in product((FEW, MANY), (5, 7, 10)):  # below 5 there is too little data for either
        rng = np.random.default_rng([asked.seed, episodes])
        words = [[said(rng, episodes, effect, sizes) for _ in range(asked.runs)] for effect in (0.0, 0.05, 0.1)]
        counts = [[sum(each[q] in ("Yes", "No") for each in words[0])] + [sum(each[q] == "Yes" for each in some)
                  for some in words[1:]] for q in (0, 1)]  # fmt: skip
        shares = [" ".join(f"{100 * one[n] / asked.runs:5.1f}" for one in counts) for n in range(3)]
        print(f"{'few' if sizes is FEW else 'many':5}  {episodes:8}  {' | '.join(shares)}", flush=True)


if __name__ == "__main__":
    main(parse(Simulation, sys.argv[1:], default=Simulation()))
