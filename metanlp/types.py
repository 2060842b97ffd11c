"""The words that the rooms share. Letters: T tasks, N examples, P packed tokens, V views, D features, K classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

Weights = dict[str, Tensor]
"""Everything that is learned, by name: `lora/…` (peft's names in its files), `head/…`, `views/…`.

θ has no task axis; φ, after adaptation, carries one in front of every tensor."""

Row = Mapping[str, Any]
"""One labelled example, by form. classify: `text`, or `text_a` and `text_b`, and `label`, an index into its task's
labels; regress: the same texts and `score`; multilabel: the same texts and `labels`, indices; choose: `question`,
`choices` and `answer`, an index into these; tag: `tokens` and `spans`, (first word, word after the last, index)."""


@dataclass(frozen=True)
class Task:
    """A named set of labelled rows."""

    name: str  # unique within a task set, `source/name` for the built-in sources
    pools: Mapping[str, Sequence[Row]]  # "train", "validation", "test": rows; "train" is always there
    labels: tuple[str, ...]  # label words, in the order of the indices; () in the forms without
    source: str  # where the rows come from: a folder, a file, "mini", owner/name:config@commit of the Hub
    form: str = "classify"  # what one example is: a name in `metanlp.forms.FORMS`
    supports: Mapping[int, Sequence[Sequence[Row]]] = field(default_factory=dict)  # fixed support sets by shots
    metric: str = "accuracy"  # what its publishers report; a run judges by its form's own metric
    about: str = ""  # one sentence for people
    scale: tuple[float, float] = (0.0, 1.0)  # regress: the lowest and the highest training score
    left_out: Mapping[str, int] = field(default_factory=dict)  # rows whose source hides their label, by pool


@dataclass(frozen=True)
class Roles:
    """Which tasks teach, which choose, which judge."""

    train: tuple[Task, ...]  # teach
    validation: tuple[Task, ...]  # choose the best θ, and the recipe of an adaptation
    test: tuple[Task, ...]  # judge


@dataclass(frozen=True)
class Tokens:
    """Token ids of N examples, end to end, in numpy: what a pool looks like once it is encoded."""

    ids: np.ndarray  # (P,)
    types: np.ndarray  # (P,) token types as the model wants them
    segments: np.ndarray  # (P,) 0 special token, 1 first text, 2 second text
    starts: np.ndarray  # (N + 1,) example n is [starts[n], starts[n + 1])
    words: np.ndarray | None = None  # (P,) number of the word of its text that a token begins in, -1 none; where asked

    def __len__(self) -> int:
        return len(self.starts) - 1

    def lengths(self) -> np.ndarray:
        """Tokens of each example: (N,)."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class Trunk:
    """What the frozen model alone says of a batch: it never changes while adapters learn, so it is computed once."""

    states: Tensor  # (P, H) hidden states below the lowest adapter
    frozen: Tensor  # (N, frozen views, D), N the units that get scores


@dataclass(frozen=True)
class Batch:
    """Examples of one or more tasks of one form, packed end to end without padding, tasks one after the other. Within a
    task tokens stand text by text, short texts first; all that is not of tokens stands as it was given.

    N units get scores: the S texts themselves, or in tagging their words.
    """

    ids: Tensor  # (P,)
    positions: Tensor  # (P,) place within its text, from 0
    types: Tensor  # (P,)
    segments: Tensor  # (P,) 0 special, 1 first part, 2 second part of a text
    example_of: Tensor  # (P,) the text
    lengths: Tensor  # (S,)
    task_of: Tensor  # (N,)
    targets: Tensor  # (N,) class index within the task, or as the form has it
    group: Tensor  # (N,) what a unit belongs to: the question of a choice, the text of a word, else itself
    ways: Tensor  # (T,) number of classes of each task
    ends: Tensor  # (T,) int32: where each task's tokens end
    runs: tuple[tuple[int, int], ...]  # (texts, tokens of each): equally long texts side by side, as the tokens stand
    max_ways: int  # K: the most classes of any task
    form: str = "classify"  # a name in `metanlp.forms.FORMS`
    unit_of: Tensor | None = None  # (P,) the word that a token begins in, N for none; None where units are texts
    max_units: int | None = None  # no task has more units; None where only the device knows how many each has
    trunk: Trunk | None = None  # None until `Net.with_trunk` has computed it

    @property
    def max_length(self) -> int:
        """Tokens of the longest text. Known here, so that no step asks the device."""
        return max(length for _, length in self.runs)

    @property
    def count_tasks(self) -> int:
        """T."""
        return self.ways.shape[0]

    @property
    def count_tokens(self) -> int:
        """P."""
        return self.ids.shape[0]

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`, copied asynchronously where the device allows it."""
        tensors = {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        if device.type == "cuda":  # only from pinned memory does a copy run beside the computation
            tensors = {name: value if value.is_cuda else value.pin_memory() for name, value in tensors.items()}
        return replace(self, **{name: value.to(device, non_blocking=True) for name, value in tensors.items()})


@dataclass(frozen=True)
class Episode:
    """One few-shot problem: rows of one task, by number."""

    task: str  # name of the task
    number: int  # episode i is a function of (seed, i)
    classes: tuple[int, ...]  # the task's classes that take part; targets count within these
    support_rows: tuple[int, ...]  # indices into the task's pool
    query_rows: tuple[int, ...]  # the same; no row is in both
    support: Batch  # these rows, packed: T = 1
    query: Batch  # these rows, packed: T = 1


@dataclass(frozen=True)
class Pass:
    """Episodes that go through the model together: T tasks in one call."""

    episodes: tuple[Episode, ...]  # T of them, in the order of the task axis
    support: Batch  # the support rows of all
    query: Batch  # the query rows of all


@dataclass(frozen=True)
class MetaGrad:
    """What one pass says about θ. A pass is a fixed group of consecutive episodes, whatever the number of processes."""

    grad: Weights  # summed over the pass's episodes, no task axis; a key of θ that is absent has no gradient
    loss: Tensor  # (T,) query loss of each episode
    tokens: int  # tokens forward plus tokens backward: the unit of equal compute
