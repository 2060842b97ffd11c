"""A few rows of several tasks, their features given: tests that need no model are made of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from conftest import pack_rows
from kinds import one_token_each
from torch import Tensor

from metanlp.algorithms import ProtoNet
from metanlp.algorithms.direct import Direct
from metanlp.backbone.packing import join
from metanlp.core.types import Batch, Pass, Weights

VIEWS, WIDTH = 2, 6


def batch_of(*labels: Sequence[int], ways: int = 0) -> Batch:
    """A task for each list of labels."""
    rows = [[{"text": "x", "label": label} for label in each] for each in labels]
    return join([pack_rows(r, ways or max(each) + 1, one_token_each) for r, each in zip(rows, labels, strict=True)])


def features_of(batch: Batch, seed: int = 0) -> Tensor:
    drawn = torch.randn(len(batch.targets), VIEWS, WIDTH, generator=torch.Generator().manual_seed(seed))
    return drawn.double()


def theta_of(algorithm: Direct, seed: int = 1) -> Weights:
    """θ without a backbone, off its beginning, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    first = ProtoNet().head.init(VIEWS, WIDTH) | algorithm.network({}, VIEWS * WIDTH, generator)
    return {k: (v + 0.3 * torch.randn(v.shape, generator=generator)).double() for k, v in first.items()}


def scores_of(algorithm: Direct, theta: Weights, support: Batch, seen: Tensor, query: Batch, asked: Tensor) -> Tensor:
    return algorithm.answer(algorithm.condition(theta, seen, support), asked, query)


SUPPORT, QUERY = batch_of([0, 1, 0, 1, 2], [0, 1, 1]), batch_of([2, 1, 0], [1, 0, 0, 1])


def loss_of(algorithm: Direct, theta: Weights, seen: Tensor, asked: Tensor, support: Batch, query: Batch) -> Tensor:
    """The query loss: (T,)."""
    phi = algorithm.condition(theta, seen, support)
    return algorithm.query_loss(theta, phi, seen, asked, Pass((), support, query))
