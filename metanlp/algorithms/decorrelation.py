"""A regulariser of features: those of a view are to vary on their own."""

from __future__ import annotations

from torch import Tensor, einsum
from torch.nn.functional import normalize

from metanlp.core.types import Batch
from metanlp.forms.heads.base import per_task

EPS = 1e-8  # variance: a feature that is constant over the rows has no correlation, and no gradient


def decorrelation(features: Tensor, batch: Batch) -> Tensor:
    """How far the correlations R of the D features of a view, over the rows of a task, are from the identity:
    Σ R_ij² / D over i ≠ j, mean over views: (N, V, D) -> (T,).

    The measure is that of VICReg (Bardes, Ponce & LeCun 2022, arXiv 2105.04906, eq. 4) with correlations in place of
    covariances, as in Barlow Twins (Zbontar et al. 2021, arXiv 2103.03230) and in isotropisation for intents (Zhang et
    al. 2022, arXiv 2205.07208).
    """
    x = normalize(features, dim=-1)
    rows = per_task(x.new_ones(len(x)), batch)  # (T,)
    x = x - (per_task(x, batch) / rows[:, None, None])[batch.task_of]
    variance = per_task(x.square(), batch) / rows[:, None, None]
    z = x / (variance + EPS).sqrt()[batch.task_of]
    # The sum of squares of ZᵀZ is that of ZZᵀ, which has a row for each of a few texts, not for each of D features.
    own = batch.task_of[:, None] == batch.task_of
    products = einsum("nvd,mvd->nvm", z, z).square() * own[:, None]
    whole = per_task(products.sum(-1), batch) / rows[:, None].square()  # (T, V)
    diagonal = (variance / (variance + EPS)).square().sum(-1)
    return ((whole - diagonal) / x.shape[2]).mean(1)
