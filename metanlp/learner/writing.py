"""A model that writes: what it learns from, and what it says of rows.

Letters: R rows, N tokens of targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from metanlp.algorithms import Algorithm
from metanlp.backbone.writer import Writer
from metanlp.core.errors import InputError
from metanlp.core.progress import Progress
from metanlp.core.types import Batch, Row, Task, Weights
from metanlp.episodes.sentence_pairs import SentencePairs
from metanlp.forms import FORMS, Scored, meant
from metanlp.forms.generate import languages_of

CHUNK = 32  # rows whose targets are scored together
WAITS = 2.0  # seconds before there is a bar


def support_of(net: Writer, task: Task, effort: str, label_names: bool | Mapping[Any, str]) -> tuple[Writer, Batch]:
    """The model between the languages of a task, and the task's training rows in one batch. Raises InputError."""
    if effort == "best":
        raise InputError("a learner that writes does not try numbers of steps; leave effort 'recipe', or take 'fast'")
    if isinstance(label_names, Mapping):
        raise InputError(f"the examples are of the form {task.form!r}, whose answers have no names; leave them out")
    rows = task.pools["train"]
    net = net.between(languages_of(rows[0]))
    return net, pool_of(net, [FORMS[task.form].texts(row)[0] for row in rows]).whole()


def pool_of(net: Writer, pairs: Sequence[tuple[str, ...]]) -> SentencePairs:
    """Sources and targets as tokens."""
    return SentencePairs(*net.encode([source for source, _ in pairs], [target for _, target in pairs]))


def written(algorithm: Algorithm, net: Writer, phi: Weights, rows: Sequence[Row], beams: int) -> Scored:
    """What is written for each row, and where all of them have a target what its tokens cost in nats: (N, 1). Raises
    InputError for rows between other languages."""
    said = languages_of(rows[0])
    if said and net.between(said).languages != (net.languages or net.between(said).languages):
        raise InputError(
            f"the rows are {' to '.join(said)}, the model writes {' to '.join(net.languages)}; give such rows"
        )
    if beams < 1:
        raise InputError(f"{beams} beams are asked for; give 1, which is greedy, or more")
    texts = [meant(True).texts(row)[0] for row in rows]
    costs, counts = np.zeros((0, 1), np.float32), np.zeros(len(rows), np.int64)
    if all(len(pair) == 2 for pair in texts):
        costs, counts = told(algorithm, net, phi, pool_of(net, texts))
    places = np.concatenate([np.arange(count) for count in counts])
    return Scored(costs, counts, places, tuple(net.generate(phi, [pair[0] for pair in texts], beams)))


@torch.no_grad()
def told(algorithm: Algorithm, net: Writer, phi: Weights, pool: SentencePairs) -> tuple[np.ndarray, np.ndarray]:
    """What each token of the targets costs in nats, row after row: (N, 1); and the tokens of each: (R,)."""
    parts, found = np.array_split(np.arange(len(pool)), -(-len(pool) // CHUNK)), list[torch.Tensor]()
    with Progress("targets", delay=WAITS) as progress:
        tick = progress.ticks(len(parts))
        for rows in parts:
            batch = net.with_trunk(pool.pack(rows))
            found.append(cross_entropy(algorithm.scores(net, phi, batch), batch.targets, reduction="none").cpu())
            tick()
    return torch.cat(found)[:, None].numpy(), pool.lengths
