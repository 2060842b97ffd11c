"""The contract: an algorithm is pure functions over weights. Nothing here knows of files, texts or processes.

Letters: T tasks, N units that get scores, V views, D features, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from metanlp.algorithms.decorrelation import decorrelation
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Episode, MetaGrad, Pass, Weights
from metanlp.forms import OBJECTIVES, Objective
from metanlp.forms.all_heads import Heads
from metanlp.forms.heads import linear_scores


class Net(Protocol):
    """What an algorithm needs of a backbone."""

    @property
    def width(self) -> int:
        """D, features a view."""
        ...

    @property
    def view_names(self) -> tuple[str, ...]:
        """V names."""
        ...

    def init(self, generator: torch.Generator) -> Weights:
        """Adapters that change nothing yet, no task axis."""
        ...

    def with_trunk(self, batch: Batch) -> Batch:
        """The batch with the outputs of the frozen model, computed once."""
        ...

    def features(self, w: Weights, batch: Batch) -> Tensor:
        """Of every unit under the adapters of its task: (N, V, D)."""
        ...

    def work(self, batch: Batch, passes: int) -> int:
        """Tokens through the whole stack: once frozen, and `passes` times, forward or backward, where it is adapted."""
        ...


class Reader:
    """Features of a batch under given adapters. The last result is kept: the evidence about views, the first inner step
    and, where adapters stay, the outer loss all read at θ."""

    def __init__(self, net: Net, batch: Batch) -> None:
        self.net, self.batch = net, net.with_trunk(batch)
        self._at: Weights = {}
        self._features: Tensor | None = None

    def __call__(self, w: Weights) -> Tensor:
        """(N, V, D) from the adapters of `w`; the last result where these are the same tensors. Without a graph where
        none of them records gradients."""
        adapters = weights.pick(w, "lora/")
        if self._features is None or any(self._at[key] is not value for key, value in adapters.items()):
            records = any(value.requires_grad for value in adapters.values())
            with torch.set_grad_enabled(records and torch.is_grad_enabled()):
                self._at, self._features = adapters, self.net.features(adapters, self.batch)
        return self._features


@dataclass(frozen=True)
class Cost:
    """Passes of an episode's rows through the adapted layers. By default one forward and one backward on both sides:
    that of a method without an inner loop."""

    support: int = 2  # passes of the support rows, forward or backward
    query: int = 2  # the same of the query rows
    support_kept: int = 1  # forward passes of the support rows whose graphs are in memory together
    query_kept: int = 1  # the same of the query rows
    stepped: int = 0  # forward passes of support rows that are differentiated twice: inner steps of second order

    def tokens(self, work: Callable[[Batch, int], int], episodes: Pass) -> int:
        """Tokens forward plus tokens backward, the unit of equal compute; `work` is that of a `Net`."""
        return work(episodes.support, self.support) + work(episodes.query, self.query)

    def rows(self, support: int, query: int) -> tuple[int, int]:
        """For episodes of this many support and query rows: rows whose graphs are in memory together, and rows of inner
        steps that are differentiated twice."""
        return self.support_kept * support + self.query_kept * query, self.stepped * support


@dataclass(frozen=True)
class Inner:
    """Gradient descent from θ on one support set."""

    steps: int = 5  # number of updates
    lr: float = 0.1  # step size of the adapters; 0 leaves them alone and the inner loop touches the head only
    head_lr: float = 0.1  # step size of the head
    clip: float = 1.0  # longest gradient of a task, over all that moves; longer ones are shortened to it
    optimiser: Literal["sgd", "adam"] = "sgd"  # adam starts anew on each task; it wants rates of about 0.001

    def __post_init__(self) -> None:
        if self.steps < 0 or self.lr < 0 or self.head_lr < 0 or self.clip <= 0:
            raise InputError(f"{self} is not possible: steps and rates are at least 0, clip is above 0")

    def moving(self, keys: Iterable[str]) -> dict[str, float]:
        """The step size of every tensor that moves."""
        rates = {"lora/": self.lr, "head/weight": self.head_lr, "head/bias": self.head_lr}
        return {key: rate for prefix, rate in rates.items() if rate for key in keys if key.startswith(prefix)}


Adaptations = Iterator[tuple[int, Weights]]
"""Number of inner steps, and φ after them."""


@dataclass(frozen=True)
class Algorithm(ABC):
    """A frozen dataclass whose fields are its configuration. θ in, φ out; neither is changed in place.

    Class attributes declare what a method can do; other rooms read them and never ask for the class. A method of your
    own derives from this class, or from `InnerLoop` where its adapters take gradient steps; `metanlp.check_algorithm`
    tests whether it keeps the contract."""

    meta_trains: ClassVar[bool] = True  # has a `meta_grad`; without one it is a baseline, used with θ as it starts
    differentiable: ClassVar[bool] = False  # has a field `second_order`: its inner steps can be differentiated
    task_heads: ClassVar[bool] = False  # `meta_grad` uses a linear head for each training task, `tasks/NAME/…` in θ
    adapters: ClassVar[bool] = True  # reads views with adapters; without, frozen views alone, and φ holds no adapters
    linear_head: ClassVar[bool] = True  # its scores are those of a linear layer, `head/weight` and `head/bias` in φ
    head: ClassVar[Heads] = Heads()  # from features to scores, as the form of a batch has it

    inner: Inner = Inner()  # how it adapts to a support set

    @classmethod
    def learns(cls, form: Objective) -> bool:
        """Whether it can learn tasks of this form."""
        return True

    def init(self, net: Net, generator: torch.Generator) -> Weights:
        """θ before any training, drawn from `generator` alone: adapters, the head's part and the method's own."""
        theta, views = net.init(generator), len(net.view_names)
        device = next(iter(theta.values())).device
        theta |= weights.to(self.head.init(views, net.width), device)
        return theta | weights.to(self.network(theta, views * net.width, generator), device)

    def network(self, theta: Weights, width: int, generator: torch.Generator) -> Weights:
        """The method's own part of θ beside the adapters and the head's part, for features of `width` = V·D."""
        return {}

    def adapt(self, net: Net, theta: Weights, support: Batch) -> Weights:
        """φ for the T tasks of a support batch, one slice a task. θ stays as it was."""
        ((_, phi),) = self.adapting(net, theta, support, [self.inner.steps])
        return phi

    @abstractmethod
    def adapting(self, net: Net, theta: Weights, support: Batch, steps: Collection[int]) -> Adaptations:
        """For those of `steps` that the inner loop passes."""

    @abstractmethod
    def left_out(self, net: Net, theta: Weights, support: Batch) -> tuple[Tensor, Tensor]:
        """Support units scored after adaptation, each without itself: (N, K), and which of them count, 1 or 0: (N,).
        One that is alone in its class does not count."""

    def evidence(self, net: Net, theta: Weights, support: Batch) -> Weights:
        """`views/loss` (T, V): what the support set says against each view at θ, as the head reads it."""
        return self.head.evidence(theta, net.features(weights.pick(theta, "lora/"), support), support)

    def features(self, net: Net, phi: Weights, batch: Batch) -> Tensor:
        """What `head_scores` reads: (N, V, D). A function of φ's adapters and the batch alone: one run of the model
        serves all φ with the same adapters."""
        return net.features(weights.pick(phi, "lora/"), batch)

    def head_scores(self, phi: Weights, features: Tensor, batch: Batch) -> Tensor:
        """Scores from `features`: (N, V, D) -> (N, K), −inf beyond a task's own classes."""
        return self.head.scores(phi, features, batch)

    def scores(self, net: Net, phi: Weights, batch: Batch) -> Tensor:
        """Of units: (N, K), −inf beyond a task's own classes."""
        return self.head_scores(phi, self.features(net, phi, batch), batch)

    def meta_grad(self, net: Net, theta: Weights, episodes: Pass) -> MetaGrad:
        """The gradient of θ that a pass of episodes asks for. Raises InputError for a method that learns nothing from
        other tasks."""
        name = type(self).__name__.lower()
        raise InputError(f"{name} learns nothing from other tasks, so it can't be meta-trained; use it as it is")

    def cost(self) -> Cost:
        """What a meta-gradient takes."""
        return Cost()

    def recipes(self) -> tuple[Algorithm, ...]:
        """Settings of the adaptation that the recipe search may try on validation tasks; first, at its own rates, the
        one that stays unless another is clearly better."""
        return (self,)

    # what methods share

    def scores_loss(self, scores: Tensor, batch: Batch) -> Tensor:
        """(N, K) -> (T,)"""
        return OBJECTIVES[batch.form].loss(scores, batch)

    def task_scores(self, theta: Weights, features: Tensor, batch: Batch, episodes: tuple[Episode, ...]) -> Tensor:
        """Scores under the linear head that θ keeps for each training task: (N, K); 0 where tasks have none, as their
        head is that of the pretrained model."""
        if not weights.pick(theta, "tasks/"):
            return features.new_zeros(())
        scale, rows = theta["head/scale"].exp(), [(e.task, list(e.classes)) for e in episodes]
        weight, bias = (
            pad_sequence([theta[f"tasks/{task}/{part}"][classes] for task, classes in rows], batch_first=True)
            for part in ("weight", "bias")
        )
        return linear_scores(scale * weight, scale * bias, features, batch)


Look = tuple[float, Weights, Tensor, Tensor]
"""The share of a φ in the outer loss, φ, and the features (N, V, D) of the support and of the query rows under it."""


@dataclass(frozen=True)
class Guided(Algorithm):
    """Methods whose meta-gradient is that of the query loss at φ, helped by the linear heads of multi-task learning:
    prototypes of a few rows say little about entailment before the features do."""

    task_heads: ClassVar[bool] = True

    guide: float = 1.0  # weight in the outer loss of the training tasks' own linear heads, where θ has them
    decorrelate: float = 0.0  # weight in the outer loss of the correlations between the features of the query rows

    @abstractmethod
    def looks(self, theta: Weights, support: Reader, query: Reader) -> Iterator[Look]:
        """Each φ in the outer loss, as a function of θ, the one after all steps at last."""

    def meta_grad(self, net: Net, theta: Weights, episodes: Pass) -> MetaGrad:
        theta, loss, outer = weights.leaves(theta), Tensor(), list[Tensor]()
        support, query = Reader(net, episodes.support), Reader(net, episodes.query)
        given = Pass(episodes.episodes, support.batch, query.batch)
        for share, phi, seen, asked in self.looks(theta, support, query):
            loss, whole = self.outer_loss(theta, phi, seen, asked, given)
            outer.append(share * whole)
        grad = weights.gradient(torch.stack(outer).sum(), theta)
        return MetaGrad(grad, loss.detach(), self.cost().tokens(net.work, given))

    def query_loss(self, theta: Weights, phi: Weights, seen: Tensor, asked: Tensor, episodes: Pass) -> Tensor:
        """Of φ, from the features (N, V, D) of the support and of the query rows: (T,)."""
        return self.scores_loss(self.head_scores(phi, asked, episodes.query), episodes.query)

    def outer_loss(
        self, theta: Weights, phi: Weights, seen: Tensor, asked: Tensor, episodes: Pass
    ) -> tuple[Tensor, Tensor]:
        """The query loss, and what θ is to lower: the query loss, plus `decorrelate` times `decorrelation` of the query
        features, plus `guide` times the mean loss of the training tasks' own linear heads on both sides. (T,) each."""
        loss = self.query_loss(theta, phi, seen, asked, episodes)
        whole = loss + self.decorrelate * decorrelation(asked, episodes.query) if self.decorrelate else loss
        if not weights.pick(theta, "tasks/"):
            return loss, whole
        sides = ((seen, episodes.support), (asked, episodes.query))
        heads = [self.scores_loss(self.task_scores(theta, x, side, episodes.episodes), side) for x, side in sides]
        return loss, whole + self.guide * torch.stack(heads).mean(0)
