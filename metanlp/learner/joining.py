"""Learners of one encoder as one: their adapters side by side, each read by views of its own, under one head.

It is an ensemble (Hansen & Salamon 1990) that is joined before the head in place of after it: a task's own evidence
says whose features serve it, as it says of any views.

Letters: L learners, V views of all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import reduce
from itertools import accumulate
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from metanlp.algorithms import ALGORITHMS, Algorithm
from metanlp.backbone import Backbone
from metanlp.backbone.lora import one_set, renumbered
from metanlp.backbone.views import SETS
from metanlp.core.errors import InputError
from metanlp.core.settings import to_json
from metanlp.core.types import Weights
from metanlp.core.weights import equal, pick_inside
from metanlp.forms import FORMS
from metanlp.learner.learner import Learner
from metanlp.learner.origin import taught_before

NO_MATTER: dict[str, Any] = {"views": (), "gradient_checkpoint": False}  # options in which learners may differ
COSTS = ("steps", "tokens", "train_s", "recipe_s")  # of a record


def join(learners: Iterable[Learner]) -> Learner:
    """One learner of several, which adapts by the method and the recipe of the first. Adapting and answering take the
    time of the adapted layers once for each. Raises InputError for learners that can't stand side by side."""
    learners = tuple(learners)
    if len(learners) < 2:
        raise InputError("one learner alone has nothing to be joined with; give two or more")
    for number, learner in enumerate(learners, start=1):
        _check(learners[0], learner, number)
    *before, sets = accumulate((learner.encoder.sets for learner in learners), initial=0)
    if sets > SETS:
        raise InputError(f"these learners have {sets} sets of adapters together; at most {SETS} can be joined")
    of_each = [_views(*pair) for pair in zip(learners, before, strict=True)]
    views = tuple(dict.fromkeys(view for each in of_each for view in each))
    places = [[views.index(view) for view in each] for each in of_each]
    theta = _adapters(learners) | _heads(learners, places)
    seen = reduce(np.union1d, (learner.seen for learner in learners))
    net = _opened(learners[0].encoder, views)
    return replace(learners[0], net=net, theta=theta, record=_record(learners), seen=seen)


def _check(first: Learner, learner: Learner, number: int) -> None:
    """Raises InputError for a learner that can't stand beside the first."""
    if not isinstance(cast(object, learner), Learner):
        raise InputError(f"learner {number} is of {type(learner).__name__}; give learners, as of a run or `default`")
    here, there = (each.encoder.base for each in (first, learner))
    if (here.name, here.sha256) != (there.name, there.sha256):
        raise InputError(f"learner {number} is of {there.name}, the first of {here.name}; join those of one encoder")
    if not any(view.adapted for view in learner.encoder.views):
        raise InputError(f"learner {number} has no view with adapters, so that there is nothing to join; leave it out")
    ours, its = (to_json(replace(each.encoder.options, **NO_MATTER)) for each in (first, learner))
    if apart := [key for key in ours if ours[key] != its[key]]:
        key = apart[0]
        raise InputError(f"learner {number} has {key} {its[key]}, the first {ours[key]}; join those with the same")
    if not _adapters_are_all(type(learner.algorithm)):
        able = ", ".join(name for name, kind in ALGORITHMS.items() if _adapters_are_all(kind))
        raise InputError(
            f"learner {number} is of {type(learner.algorithm).__name__}, which learns no adapters, or more than these; "
            f"join those of {able}"
        )


def _adapters_are_all(kind: type[Algorithm]) -> bool:
    """Whether a method learns adapters, and nothing beside them that is made for the features of one learner."""
    return kind.adapters and kind.network is Algorithm.network


def _views(learner: Learner, before: int) -> tuple[str, ...]:
    """What a learner's views are called in the whole, with so many sets of adapters before its own."""
    return tuple(str(replace(view, of=view.of + before) if view.adapted else view) for view in learner.encoder.views)


def _opened(net: Backbone, views: tuple[str, ...]) -> Backbone:
    if not net.base.place:
        raise InputError(f"{net.name} was made in memory; save it, and load the learners with its folder as `base`")
    return Backbone.open(net.base.place, replace(net.options, views=views), net.device)


def _adapters(learners: Sequence[Learner]) -> Weights:
    """The adapters' part of θ, set by set."""
    sets = [one_set(learner.theta, 1 + n) for learner in learners for n in range(learner.encoder.sets)]
    return {key: value for n, own in enumerate(sets, start=1) for key, value in renumbered(own, n).items()}


def _heads(learners: Sequence[Learner], places: Sequence[Sequence[int]]) -> Weights:
    """The heads' part of θ. `places` are those of each learner's views among all. What several know of a form, as its
    scale, or what a frozen view says, is the mean over those that have learned it: others are as they began."""
    theta: Weights = {}
    for form in FORMS.values():
        fresh = [form.head.init(len(mine), learners[0].encoder.width) for mine in places]
        known = [pick_inside(learner.theta, form.prefix) for learner in learners]
        parts = [{key: own.get(key, begins[key]) for key in begins} for own, begins in zip(known, fresh, strict=True)]
        taught = [not equal(part, begins) for part, begins in zip(parts, fresh, strict=True)]
        theta |= {form.prefix + key: _mean([part[key] for part in parts], places, taught) for key in fresh[0]}
    return theta


def _mean(values: Sequence[Tensor], places: Sequence[Sequence[int]], taught: Sequence[bool]) -> Tensor:
    """Of L numbers, or of L tensors by view, each view's mean over the learners that have it and were `taught`, or over
    all that have it where none was: (V, …)."""
    if not values[0].dim():
        counted = [value for value, each in zip(values, taught, strict=True) if each or not any(taught)]
        return torch.stack(counted).mean(0)
    table = values[0].new_full((len(values), 1 + max(map(max, places)), *values[0].shape[1:]), torch.nan)
    for row, value, mine in zip(table, values, places, strict=True):
        row[mine] = value
    mean = table[torch.tensor(taught, device=table.device)].nanmean(0)
    return torch.where(mean.isnan(), table.nanmean(0), mean)


def _record(learners: Sequence[Learner]) -> dict[str, Any]:
    """Tasks, sources and licences of all; costs are sums."""
    records = [dict(learner.record) for learner in learners]
    known = {key: [record[key] for record in records if key in record] for record in records for key in record}
    tasks: dict[str, dict[str, None]] = {}
    for role, names in (item for each in known.get("tasks", []) for item in each.items()):
        tasks.setdefault(role, {}).update(dict.fromkeys(names))
    taught = {name: asdict(origin) for record in records for name, origin in taught_before(record).items()}
    said = {key: reduce(dict.__or__, known[key]) for key in ("sources", "licences") if key in known}
    costs = {key: sum(known[key]) for key in COSTS if key in known}
    said |= {"sampling": known["sampling"][0]} if "sampling" in known else {}  # of the first
    return {"tasks": {role: [*names] for role, names in tasks.items()}, **({"began": taught} if taught else {}),
            **said, **costs, "joined": len(learners)}  # fmt: skip
