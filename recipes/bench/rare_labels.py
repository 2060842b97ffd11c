"""Labels that few rows have, among labels that many have: `METANLP_DATA=DATA python recipes/bench/rare_labels.py`.

Five emotions of `open/emotions_sets`, untrained views. Support rows have one label each, query rows are a draw of all.
A line a pair of sizes: F1 of the rare label, mean F1 of the others, micro-F1. `--no-even`: without a common middle.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from metanlp import Backbone
from metanlp.core.types import Meaning, Row
from metanlp.episodes.pool import Pool
from metanlp.forms.all_heads import Heads
from metanlp.forms.heads import RidgeHead
from metanlp.forms.metrics import label_sets
from metanlp.forms.multilabel import Multilabel
from metanlp.tasks.taskset import read

LABELS = ("gratitude", "anger", "curiosity", "love", "sadness")
SIZES = ((8, 8), (4, 8), (2, 8), (1, 8), (4, 4), (1, 4))


def main(draws: int = 20, rows: int = 1500, even: bool = True) -> None:
    """`draws` of each pair of sizes; `rows` that are drawn from and judged."""
    net, head = Backbone.load("minilm"), Multilabel.head
    assert isinstance(head, RidgeHead)
    pool = Pool(Meaning(Multilabel.name, LABELS), emotions(rows), net.encode)
    has = np.array([np.isin(range(len(LABELS)), row["labels"]) for row in pool.rows])
    with torch.no_grad():
        features = net.features({}, net.with_trunk(pool.pack(range(rows))))
    for few, many in SIZES:
        found: list[list[float]] = []
        for draw in range(draws):
            rare, support = draw % len(LABELS), drawn(has, few, many, draw)
            query = np.setdiff1d(range(rows), support)
            told = answers(replace(head, even=even), features, pool, support)[query]
            of_rare, *others, micro = (
                label_sets(told[:, which], has[query][:, which])["micro_f1"]
                for which in ([rare], *([k] for k in range(len(LABELS)) if k != rare), range(len(LABELS)))
            )
            found.append([of_rare, float(np.mean(others)), micro])
        a, b, micro = np.mean(found, 0)
        print(f"{few} beside {many}: {a:.2f} / {b:.2f}, micro-F1 {micro:.2f}  ({draws} draws)", flush=True)


def emotions(rows: int) -> list[Row]:
    """With at least one of the labels, and without the others."""
    (task,) = read("open/emotions_sets", data_root=Path(os.environ["METANLP_DATA"]))
    number = {task.labels.index(label): n for n, label in enumerate(LABELS)}
    kept = [{**row, "labels": tuple(number[k] for k in row["labels"] if k in number)} for row in task.pools["train"]]
    kept = [row for row in kept if row["labels"]]
    return [kept[n] for n in np.random.default_rng(0).permutation(len(kept))[:rows]]


def drawn(has: np.ndarray, few: int, many: int, draw: int) -> np.ndarray:
    """Support rows: `few` of the label whose turn it is, `many` of each other."""
    rng = np.random.default_rng([draw, few, many])
    alone = [rng.permutation(np.flatnonzero(has[:, k] & (has.sum(1) == 1))) for k in range(len(LABELS))]
    return np.concatenate([rows[: few if k == draw % len(LABELS) else many] for k, rows in enumerate(alone)])


def answers(head: RidgeHead, features: Tensor, pool: Pool, support: np.ndarray) -> np.ndarray:
    """Which labels every row is told to have: (R, K)."""
    batch, seen = pool.pack(support), features[support]
    theta, residual = head.init(features.shape[1], features.shape[2]), Heads().residual(features[0].numel(), batch)
    phi = head.finish(theta, residual, seen, batch)
    return head.scores(phi, features, pool.pack(range(len(features)))).numpy() > 0


if __name__ == "__main__":
    tyro.cli(main)
