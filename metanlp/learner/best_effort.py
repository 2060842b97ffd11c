"""`effort="best"`: as many gradient steps as pay, judged by examples that the steps have not seen.

Letters: R rows, N units that get scores, K scores a unit, F folds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metanlp.algorithms import Algorithm, Finetune
from metanlp.algorithms.base import Inner, Net
from metanlp.core.intervals import as_good
from metanlp.core.types import Batch, Weights
from metanlp.core.weights import pick, scale
from metanlp.episodes.pool import Pool
from metanlp.tasks.rowset import keys_of

STEPS = (3, 6, 12, 24, 48)  # numbers of steps that are tried beside the recipe
RATE = 1e-3  # of Adam, of adapters and head alike
FOLDS = 4  # most parts that the examples are dealt into
SCALES = tuple(2.0**n for n in range(-5, 3))  # of scores, that are tried
LEAST = 3  # rows of a class of which one may be left out: a step needs two


@dataclass(frozen=True)
class Best:
    """What was chosen, and why."""

    algorithm: Algorithm  # the recipe's own where no step pays, else fine-tuning from θ
    scale: float = 1.0  # of its scores
    scores: Tensor | None = None  # (N, K) of units by weights that have not seen their row, NaN without such
    record: Mapping[str, Any] = field(
        default_factory=dict
    )  # `best_effort`: `steps`, 0 the recipe, and `losses` by steps

    def adapt(self, net: Net, theta: Weights, support: Batch) -> Weights:
        """φ, whose head has the scale."""
        phi = self.algorithm.adapt(net, theta, support)
        return phi if self.scale == 1 else phi | scale(pick(phi, "head/"), self.scale)


@dataclass(frozen=True)
class Tried:
    """What a number of steps says of the rows that were left out."""

    scores: Tensor  # (N, K) of all units, at the best scale
    scale: float
    losses: np.ndarray  # of each row that was left out, in nats


def best_effort(algorithm: Algorithm, net: Net, theta: Weights, pool: Pool, asked: Net) -> Best:
    """Cross-fitting: of the recipe and of each number of Adam's steps from θ, the mean loss in nats of rows that were
    left out; the recipe stays, or else the fewest steps, unless more are better by more than a standard error of the
    paired difference (Breiman et al. 1984, the 1-SE rule). A function of its arguments alone.

    Steps make scores of rows that they have seen, and with them the head, far too sure. So every number of steps is
    judged, and then taken, at the scale of scores at which rows left out have the lowest loss (Guo et al. 2017, arXiv
    1706.04599); the recipe is judged so, and taken as it is. `net` reads the rows that are learned from, `asked` those
    left out. More steps are tried until they are worse by more than that. Where too few rows can be left out it is the
    recipe."""
    fold = dealt(pool)
    if fold.max() < 0:
        return Best(algorithm, record=recorded(0, {}))
    tried, best = dict[int, Tried](), 0
    for steps, scores in cross_fitted(algorithm, net, theta, pool, asked, fold):
        tried[steps] = scaled(pool, scores, fold)
        if tried[steps].losses.mean() < tried[best].losses.mean():
            best = steps
        elif not as_good(-tried[steps].losses, -tried[best].losses):
            break
    steps = next(n for n, each in tried.items() if as_good(-each.losses, -tried[best].losses))
    record, chosen = recorded(steps, tried), tried[steps]
    if not steps:
        return Best(algorithm, record=record)
    return Best(finetuned(algorithm, steps), chosen.scale, chosen.scores, record)


def recorded(steps: int, tried: Mapping[int, Tried]) -> dict[str, Any]:
    losses = {str(number): round(float(each.losses.mean()), 4) for number, each in tried.items()}
    return {"best_effort": {"steps": steps, "losses": losses}}


def said(record: Mapping[str, Any]) -> str:
    """What was chosen, and why, in a line."""
    steps, losses = record["steps"], record["losses"]
    if not losses:
        return f"best: the learner's recipe, as no class has {LEAST} different examples, of which to leave one out"
    if not steps:
        return "best: the learner's recipe, as no number of steps is surely better on examples that are left out"
    left = f"{losses[str(steps)]:.2f} nats an example that is left out, {losses['0']:.2f} by the learner's recipe"
    return f"best: {steps} steps of Adam: {left}"


def finetuned(algorithm: Algorithm, steps: int) -> Finetune:
    """Fine-tuning by Adam, with what reads the features of `algorithm`."""
    reads = {name: getattr(algorithm, name) for name in ("classifier", "c") if hasattr(algorithm, name)}
    return Finetune(inner=Inner(steps, lr=RATE, head_lr=RATE, optimiser="adam"), **reads)


def dealt(pool: Pool) -> np.ndarray:
    """The fold of each row, (R,): dealt class by class where rows have one, rows of equal texts into one fold; −1 for
    those of a class with fewer than `LEAST` different ones, which are always learned from."""
    _, first, same = np.unique(keys_of(pool.rows, pool.form), return_index=True, return_inverse=True)
    classes = pool.by_class if pool.form.single_label else [np.arange(len(pool.rows))]
    different = [np.intersect1d(rows, first) for rows in classes]
    order = np.concatenate([np.zeros(0, np.int64), *(rows for rows in different if len(rows) >= LEAST)])
    fold = np.full(len(pool.rows), -1)
    fold[order] = np.arange(len(order)) % FOLDS
    return fold[first[same]]


def cross_fitted(
    recipe: Algorithm, net: Net, theta: Weights, pool: Pool, asked: Net, fold: np.ndarray
) -> Iterator[tuple[int, Tensor]]:
    """Number of steps, 0 being the recipe, and the scores of all units by weights that have not seen their row: (N, K).
    NaN for rows in no fold."""
    tuned, whole = finetuned(recipe, STEPS[-1]), pool.whole()
    rows, numbers = np.arange(len(fold)), range(fold.max() + 1)
    out = [asked.with_trunk(pool.pack(rows[fold == number])) for number in numbers]
    rest = [net.with_trunk(pool.pack(rows[fold != number])) for number in numbers]
    places = [torch.from_numpy(fold == number)[whole.group] for number in numbers]

    @torch.no_grad()
    def joined(algorithm: Algorithm, each: Sequence[Weights]) -> Tensor:
        scores = torch.full((len(whole.targets), whole.max_ways), torch.nan)
        for place, phi, batch in zip(places, each, out, strict=True):
            scores[place] = algorithm.scores(asked, phi, batch).cpu()
        return scores

    yield 0, joined(recipe, [recipe.adapt(net, theta, batch) for batch in rest])
    for reached in zip(*(tuned.adapting(net, theta, batch, STEPS) for batch in rest), strict=True):
        yield reached[0][0], joined(tuned, [phi for _, phi in reached])


def scaled(pool: Pool, scores: Tensor, fold: np.ndarray) -> Tried:
    """The scores (N, K) at the scale at which the rows in a fold have the lowest mean loss; as they are where they are
    no logits of classes."""
    whole = pool.whole()
    # Every row is a task of its own: the loss is that of each.
    apart = replace(whole, task_of=whole.group, ways=whole.ways.expand(len(pool.rows)))
    scales = SCALES if pool.form.class_targets else (1.0,)
    found = [Tried(by * scores, by, pool.form.loss(by * scores, apart).numpy()[fold >= 0]) for by in scales]
    return min(found, key=lambda each: float(each.losses.mean()))
