"""How good θ is before it has seen a row of a task: its adapters, and the vectors of its head."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from metanlp.core.errors import InputError
from metanlp.core.intervals import Interval, interval
from metanlp.core.weights import detach, expand, pick
from metanlp.episodes.chunks import scored
from metanlp.evaluation.held_out import HeldOutTask
from metanlp.evaluation.meta_test import blocks_of, by_block
from metanlp.forms.metrics import bounds_of
from metanlp.learner.learner import Learner


def before(learner: Learner, held_out: HeldOutTask) -> dict[str, Interval]:
    """The metrics of a task without adaptation, with intervals over its query rows where there are enough for several
    blocks. Raises InputError for a form of whose answers θ alone says nothing, as where classes are each task's own."""
    theta, found = detach(learner.theta), list[Tensor]()
    adapters = expand(pick(theta, "lora/"), 1)
    with torch.no_grad():
        for chunk in held_out.chunks:
            features = learner.net.features(adapters, chunk.batch)
            known = learner.algorithm.head.known(theta, features, chunk.batch)
            if not isinstance(known, Tensor):
                raise InputError(f"task {held_out.task.name!r}: nothing is known of its answers before the first row")
            found.append(known)
    everyone = replace(held_out.supports[0], excluded=np.zeros(len(held_out.rows), bool))
    judge = partial(held_out.judge, scored(held_out.chunks, found))
    blocks = by_block(judge, everyone, blocks_of(held_out))
    return {
        metric: interval(blocks[metric], bounds_of(metric)) if len(blocks[metric]) else Interval(value, None, None)
        for metric, value in judge(everyone).items()
    }
