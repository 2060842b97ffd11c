"""What labels are called, as prior knowledge of where their texts lie.

Letters: N support rows, V views, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as brief
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from metanlp.algorithms import Algorithm
from metanlp.algorithms.base import Net
from metanlp.backbone import Backbone
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Task, Weights
from metanlp.episodes.pool import Pool
from metanlp.forms import FORMS
from metanlp.forms.heads import class_means
from metanlp.forms.heads.base import class_sizes
from metanlp.tasks.reading.columns import nearest

TRUST = 20.0  # pseudo-shots beside one shot of a name by which its texts differ from others just as it does itself


def named(net: Backbone, algorithm: Algorithm, task: Task, names: bool | Mapping[str | int, str]) -> Net:
    """The net by which a method adapts to a task whose labels are names, or have `names`. The net itself where there
    are none: labels that are numbers say nothing, nor do names of what relates two texts. Raises InputError."""
    if not isinstance(cast(object, names), bool | Mapping):
        raise InputError(f"label_names is {brief(names)}; give True, False, or a mapping from each label to a text")
    able = FORMS[task.form].single_label and algorithm.adapters
    if isinstance(names, Mapping):
        if not able:
            reads = f"examples are of the form {task.form!r}"
            what = reads if algorithm.adapters else "learner reads frozen features alone"
            raise InputError(f"names of labels can't be used, as the {what}; leave them out")
        texts = descriptions(task.labels, names)
    else:
        texts = words_of(task.labels) if names and able and "text" in task.pools["train"][0] else []
    rows = [{"text": text, "label": label} for label, text in enumerate(texts)]
    return (
        NamedNet(net, net.with_trunk(Pool(task.meaning, rows, net.encode).pack(np.arange(len(rows))))) if rows else net
    )


def words_of(labels: Sequence[str]) -> list[str]:
    """The labels as people write them; none where one of them is no word."""
    words = [label.replace("_", " ").replace("/", " ").strip() for label in labels]
    return words if all(any(map(str.isalpha, word)) for word in words) else []


def descriptions(labels: Sequence[str], given: Mapping[str | int, str]) -> list[str]:
    """A description for each label. Raises InputError for one that is missing, unknown or blank."""
    by_word = {str(label): text for label, text in given.items()}
    for label, text in by_word.items():
        if not isinstance(cast(object, text), str):
            raise InputError(f"label {label!r} is described by {brief(text)}; describe it in words")
    for label in by_word:
        if label not in labels:
            raise InputError(f"label {label!r} is described and has no example{nearest(label, labels)}")
    for label in labels:
        if not by_word.get(label, "").strip():
            came = "a blank description" if label in by_word else "no description"
            raise InputError(f"label {label!r} has {came}; describe each of {brief(list(labels))}, or none")
    return [by_word[label] for label in labels]


@dataclass(frozen=True)
class NamedNet:
    """A net for the support set of one task, whose rows it moves towards the names of their classes: a method adapts to
    them as to any rows."""

    net: Net
    names: Batch  # a text for each class of the task, in their order

    @property
    def width(self) -> int:
        return self.net.width

    @property
    def view_names(self) -> tuple[str, ...]:
        return self.net.view_names

    def init(self, generator: torch.Generator) -> Weights:
        return self.net.init(generator)

    def with_trunk(self, batch: Batch) -> Batch:
        return self.net.with_trunk(batch)

    def features(self, w: Weights, batch: Batch) -> Tensor:
        return towards(self.net.features(w, self.names), self.net.features(w, batch), batch)

    def work(self, batch: Batch, passes: int) -> int:
        return self.net.work(batch, passes) + self.net.work(self.names, passes)


def towards(names: Tensor, features: Tensor, support: Batch) -> Tensor:
    """The rows of one task (N, V, D), each moved as pseudo-shots of its class's name move the class's mean.

    A name (K, V, D) says of its class by what it differs from the mean name. How well names and rows agree is the slope
    of the class means on these differences; as no name has seen a row it needs no row left out, and names of other
    classes have about none. Pseudo-shots are in proportion to it: none, and rows that stay as they are, where it is 0
    or below. There are the fewer of them the more shots there are."""
    x, names = normalize(features, dim=-1), normalize(names, dim=-1)
    means, shots = class_means(x, support)[0], class_sizes(support)[0][:, None, None]  # (K, V, D), (K, 1, 1)
    apart, called = means - means.mean(0), names - names.mean(0)
    slope = (apart * called).sum() / called.square().sum().clamp(min=1e-6)
    pseudo = 2 * TRUST * slope.clamp(min=0) / (1 + shots)
    moved = pseudo / (pseudo + shots) * (called - apart)
    return features + features.norm(dim=-1, keepdim=True) * moved[support.targets]
