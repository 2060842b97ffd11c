"""Episodes a second of tasks that need no labels, drawn and packed on one core; and in how many of them support and
query set have a sentence in common.

    METANLP_DATA=DATA python recipes/bench/bench_unlabelled.py

Tasks are made and texts tokenised before the clock runs, as a training draws the same tasks again and again. What that
takes is printed too.
"""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import torch
import tyro

from metanlp import Backbone, Episodes, Sampling
from metanlp.core.types import MASK, Episode
from metanlp.episodes.pool import Pool
from metanlp.tasks.taskset import read

SIDES = ("text_a", "text_b")


def main(
    text: str = "",  # the corpus; by default `mlm` of METANLP_DATA
    episodes: int = 10_000,  # drawn, packed and looked at, of each kind
    rounds: int = 5,  # parts of these that are timed apart
    model: str = "minilm",  # whose tokenizer is used
) -> None:
    torch.set_num_threads(1)
    given, net = text or str(Path(os.environ["METANLP_DATA"]) / "mlm"), Backbone.load(model)
    for kind in ("masked", "adjacent"):
        begun = time.perf_counter()
        tasks = read(f"{kind}:{given}", data_root=None)
        made, drawn = time.perf_counter(), Episodes(tasks, net.encode, Sampling(), seed=0)
        for number in range(20 * len(tasks)):  # so that nearly all tasks have been opened
            _ = drawn[number]
        tokenised, part = time.perf_counter(), episodes // rounds
        print(f"{kind}: {len(tasks)} tasks, made in {made - begun:.1f} s; tokenised in {tokenised - made:.1f} s")
        rates = [part / seconds(drawn, range(n * part, (n + 1) * part)) for n in range(rounds)]
        pools = {task.name: Pool.of(task, net.encode) for task in tasks}
        shared = sum(bool(in_common(pools, drawn[number])) for number in range(episodes))
        print(f"{kind}: {median(rates):,.0f} episodes/s [{min(rates):,.0f}, {max(rates):,.0f}]; in {shared} of "
              f"{episodes:,} support and query have a sentence in common")  # fmt: skip


def seconds(drawn: Episodes, numbers: range) -> float:
    """Of the processor, so that other jobs on the machine count little."""
    begun = time.process_time()
    for number in numbers:
        _ = drawn[number]
    return time.process_time() - begun


def in_common(pools: Mapping[str, Pool], episode: Episode) -> set[str]:
    """Sentences, with their masked word in its place, that stand in support and query rows."""
    pool = pools[episode.task]

    def sentences(numbers: Sequence[int]) -> set[str]:
        rows = [pool.rows[number] for number in numbers]
        words = [pool.meaning.labels[row["label"]] for row in rows]
        texts = [row[side].replace(MASK, word) for row, word in zip(rows, words, strict=True) for side in SIDES
                 if row[side] != MASK]  # fmt: skip
        return {text.lower() for text in texts}

    return sentences(episode.support_rows) & sentences(episode.query_rows)


if __name__ == "__main__":
    tyro.cli(main)
