"""Pretraining here and by transformers' Trainer: tokens a second of one model, on the same texts, in turns.

    METANLP_DATA=DATA python recipes/bench/bench_pretrain.py

lines: Trainer with a text a row, padded to the longest of its batch. blocks: Trainer with all texts joined and cut into
rows of equal length, which then see each other. All take as many rows a step, AdamW, and mask 15 % anew each time.
"""

import os
import tempfile
import time
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import tyro
from transformers import BertForMaskedLM, DataCollatorForLanguageModeling, Trainer, TrainingArguments
from transformers.utils import logging

from metanlp.algorithms.likelihood import Likelihood
from metanlp.backbone.all_weights import Size
from metanlp.backbone.masked_lm import MaskedLM
from metanlp.backbone.new_tokenizer import train_tokenizer
from metanlp.episodes.corpus import Chunks, Epochs, MaskedChunks, Masking, Vocabulary
from metanlp.tasks.sources.corpus import documents
from metanlp.training.meta_train import Plan, outer_loop
from metanlp.training.processes import Ranks

SPECIAL = 2  # tokens around a text


def main(
    text: str = "",  # the corpus; by default `mlm` of METANLP_DATA
    layers: int = 4,
    width: int = 256,
    heads: int = 4,
    max_length: int = 128,
    batch: int = 64,  # rows a step
    steps: int = 8,  # a round
    rounds: int = 5,
    precision: str = "fp32",
) -> None:
    given = text or str(Path(os.environ["METANLP_DATA"]) / "mlm")
    texts = [each for _, each in documents([given])]
    tokenizer = train_tokenizer(texts, "wordpiece", 8000, lower=True)
    home = Path(tempfile.mkdtemp())
    chunks = Chunks.write(home / "chunks", texts, tokenizer, max_length)
    net = MaskedLM.make(tokenizer, Size(layers, width, heads), max_length, precision=precision)  # type: ignore[arg-type]
    ids, _, starts = chunks.take(np.arange(len(chunks)))
    rows = [ids[a:b].tolist() for a, b in pairwise(starts)]
    joined = list(chain.from_iterable(row[1:-1] for row in rows))
    inside = max_length - SPECIAL
    blocks = [[rows[0][0], *joined[at : at + inside], rows[0][-1]] for at in range(0, len(joined) - inside, inside)]
    ways: dict[str, Callable[[], float]] = {
        "metanlp": lambda: ours(net, chunks, batch, steps),
        "lines": lambda: trainer(net, rows, batch, steps, home),
        "blocks": lambda: trainer(net, blocks, batch, steps, home),
    }
    found = {name: list[float]() for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            rate = way()
            if number:  # the first round warms up
                found[name].append(rate)
    for name, rates in found.items():
        against = [a / b for a, b in zip(found["metanlp"], rates, strict=True)]
        print(f"{name}: {median(rates):,.0f} tokens/s [{min(rates):,.0f}, {max(rates):,.0f}]; metanlp is "
              f"{median(against):.2f} times as fast [{min(against):.2f}, {max(against):.2f}]")  # fmt: skip


def ours(net: MaskedLM, chunks: Chunks, batch: int, steps: int) -> float:
    """Tokens a second, of the whole outer loop."""
    parts = torch.get_num_threads()
    draws = Epochs(MaskedChunks(chunks, Vocabulary(*net.vocabulary), Masking()), batch // parts, 0)
    plan = Plan(steps=steps, meta_batch=parts, lr=1e-3, patience=0, validations=0, checkpoints=0)
    _, state = outer_loop(Likelihood(), net, net.init(torch.Generator()), draws, plan, {}, validate=None,
                          folder=None, resume=False, ranks=Ranks.alone(), name="", trackers=())  # fmt: skip
    return state.tokens / 2 / state.seconds


def trainer(net: MaskedLM, rows: list[list[int]], batch: int, steps: int, home: Path) -> float:
    """Tokens a second that are no padding."""
    model: Any = BertForMaskedLM(net.config)
    counted = Counting(DataCollatorForLanguageModeling(net.tokenizer, mlm_probability=0.15))
    asked = TrainingArguments(
        output_dir=str(home / "trainer"), max_steps=steps, per_device_train_batch_size=batch, learning_rate=1e-3,
        report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True,
        bf16=net.precision == "bf16",
    )  # fmt: skip
    made = Trainer(model=model, args=asked, train_dataset=[{"input_ids": row} for row in rows], data_collator=counted)  # type: ignore[arg-type]
    begun = time.perf_counter()
    made.train()
    return counted.tokens / (time.perf_counter() - begun)


class Counting:
    """A collator that counts the tokens that are no padding."""

    def __init__(self, collate: Any) -> None:
        self.collate, self.tokens = collate, 0

    def __call__(self, rows: list[Any]) -> Any:
        self.tokens += sum(len(row["input_ids"]) for row in rows)
        return self.collate(rows)


if __name__ == "__main__":
    logging.set_verbosity_error()
    tyro.cli(main)
