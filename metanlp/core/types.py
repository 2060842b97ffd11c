"""The types that all rooms share. Letters: T tasks, N examples, P packed tokens, V views, D features, K classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # which takes a second to import: tasks are read and described without it
    import torch
    from torch import Tensor

Weights = dict[str, "Tensor"]
"""All learned tensors by name: `lora/…` (peft's names in its files), `head/…`, `views/…`.

θ has no task axis; φ, after adaptation, has a leading task axis in every tensor."""

MASK = "[MASK]"
"""In a text, what every model reads as its own mask token."""

Row = Mapping[str, Any]
"""One example: what the model reads of it and, where it is labelled, its answer. Its keys are its form's."""


@dataclass(frozen=True)
class Meaning:
    """What the answers of a task's rows mean."""

    form: str  # what one example is: a name in `metanlp.forms.FORMS`
    labels: tuple[str, ...] = ()  # label words, in the order of the indices; () in the forms without
    scale: tuple[float, float] = (0.0, 1.0)  # in the forms with numbers: the lowest and the highest training score


@dataclass(frozen=True)
class Cleaning:
    """What was changed in the texts of some rows on their way in."""

    rows: int  # that were read
    counts: Mapping[str, int]  # kind of change -> rows
    examples: Mapping[str, tuple[str, str]]  # kind of change -> the first such row, before and after


@dataclass(frozen=True)
class Task:
    """A named set of labelled rows."""

    name: str  # unique within a task set, `source/name` for the built-in sources
    pools: Mapping[str, Sequence[Row]]  # "train", "validation", "test": rows; "train" is always there
    labels: tuple[str, ...]  # label words in the order of their indices; () in forms without labels
    source: str  # where the rows come from: a folder, a file, "mini", owner/name:config@commit of the Hub
    form: str = "classify"  # what one example is: a name in `metanlp.forms.FORMS`
    supports: Mapping[int, Sequence[Sequence[Row]]] = field(default_factory=dict)  # fixed support sets by shots
    metric: str = "accuracy"  # the metric that its publishers report; a run uses the metric of the form
    about: str = ""  # one sentence for people
    scale: tuple[float, float] = (0.0, 1.0)  # in the forms with numbers: the lowest and the highest training score
    left_out: Mapping[str, int] = field(default_factory=dict)  # rows whose source hides their label, by pool
    labelled: bool = True  # whether people gave the answers; else the text itself did
    notes: tuple[str, ...] = ()  # what its owner should know, a sentence each: texts with two answers, labels alike
    cleaning: Cleaning | None = None  # what was changed in its texts; None where nobody asked for it

    @property
    def meaning(self) -> Meaning:
        """What the answers of its rows mean."""
        return Meaning(self.form, self.labels, self.scale)


@dataclass(frozen=True)
class Roles:
    """Tasks by their role in a run."""

    train: tuple[Task, ...]  # for meta-training
    validation: tuple[Task, ...]  # to choose θ and the adaptation recipe
    test: tuple[Task, ...]  # for the reported results


@dataclass(frozen=True)
class Tokens:
    """Token ids of N texts or pairs, end to end, in numpy: an encoded pool."""

    ids: np.ndarray  # (P,)
    types: np.ndarray  # (P,) token type ids of the model
    segments: np.ndarray  # (P,) 0 special token, 1 first text, 2 second text, 3 the second where it stands in the first
    starts: np.ndarray  # (N + 1,) example n is [starts[n], starts[n + 1])
    words: np.ndarray | None = None  # (P,) number of the word that a token belongs to, -1 for none; on request
    cut: int = 0  # examples that were longer than the model may read
    unknown: int = 0  # examples of which more than half of the tokens stand for pieces that the tokenizer does not know

    def __len__(self) -> int:
        return len(self.starts) - 1

    def lengths(self) -> np.ndarray:
        """Tokens of each example: (N,)."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class Trunk:
    """Outputs of the frozen model for a batch. Adapters do not change them, so they are computed once."""

    states: Tensor  # (P, H) hidden states below the lowest adapter
    frozen: Tensor  # (N, frozen views, D) of the N units


@dataclass(frozen=True)
class Batch:
    """Examples of one or more tasks of one form, packed end to end without padding, task after task. Within a task the
    tokens are ordered by text, short texts first; tensors over units or texts keep the order in which rows were given.

    N units get scores: the S texts themselves, or their words.
    """

    ids: Tensor  # (P,)
    positions: Tensor  # (P,) position within its text, from 0
    types: Tensor  # (P,)
    segments: Tensor  # (P,) 0 special, 1 first part, 2 second part of a text, 3 the second where it stands in the first
    example_of: Tensor  # (P,) number of its text
    lengths: Tensor  # (S,) tokens of each text
    task_of: Tensor  # (N,) number of its task
    targets: Tensor  # (N,) class index within the task, or the target of another form
    group: Tensor  # (N,) number of the group of a unit: question of a choice, row of a word, else the unit itself
    ways: Tensor  # (T,) number of classes of each task
    ends: Tensor  # (T,) int32: where each task's tokens end
    runs: tuple[tuple[int, int], ...]  # (number of texts, tokens of each), for consecutive texts of equal length
    max_ways: int  # K: the most classes of any task
    form: str = "classify"  # a name in `metanlp.forms.FORMS`
    background: bool = False  # the first class is that of units in no class: it stays as common as it is
    unit_of: Tensor | None = None  # (P,) number of the word of a token, N for none; None where units are texts
    max_units: int | None = None  # most units of any task; None where only the device knows it
    trunk: Trunk | None = None  # None until `Net.with_trunk` has computed it

    @property
    def max_length(self) -> int:
        """Tokens of the longest text; known on the host, so no step has to synchronise with the device."""
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
        from torch import Tensor

        tensors = {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        if device.type == "cuda":  # only copies from pinned memory overlap with computation
            tensors = {name: value if value.is_cuda else value.pin_memory() for name, value in tensors.items()}
        return replace(self, **{name: value.to(device, non_blocking=True) for name, value in tensors.items()})


@dataclass(frozen=True)
class Episode:
    """One few-shot problem: support and query rows of one task."""

    task: str  # name of the task
    number: int  # i; episode i is a function of (seed, i)
    classes: tuple[int, ...]  # the classes of the task that take part; targets are indices into these
    support_rows: tuple[int, ...]  # indices into the task's pool
    query_rows: tuple[int, ...]  # indices into the same pool; no row is in both
    support: Batch  # these rows, packed: T = 1
    query: Batch  # these rows, packed: T = 1


@dataclass(frozen=True)
class Pass:
    """Episodes that go through the model together: T tasks in one call."""

    episodes: tuple[Episode, ...]  # T of them, in the order of the task axis
    support: Batch  # the support rows of all
    query: Batch  # the query rows of all


@dataclass(frozen=True)
class MaskedPass:
    """Texts of which some tokens are hidden and have to be told."""

    batch: Batch  # with the mask, or another token, in the place of what is hidden; M units
    places: Tensor  # (M,) which tokens of the batch are asked for
    targets: Tensor  # (M,) their ids
    number: int  # a function of (seed, number)


@dataclass(frozen=True)
class MetaGrad:
    """The gradient of θ from one pass: a fixed group of consecutive episodes, for any number of processes."""

    grad: Weights  # sum over the episodes of the pass, no task axis; an absent key of θ has no gradient
    loss: Tensor  # (T,) query loss of each episode
    tokens: int  # tokens forward plus tokens backward: the unit of equal compute
