"""Losses that are no numbers, and memory that runs out, at chosen steps: the last good checkpoint stays."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from case import Cases
from tiny_learner import Tiny, shared

from metanlp.algorithms import ProtoNet
from metanlp.cli.launch import guarded
from metanlp.core.errors import DivergedError
from metanlp.core.types import MetaGrad
from metanlp.core.weights import equal, finite
from metanlp.training import checkpoint
from metanlp.training.meta_train import PATIENCE_NAN

STEPS = 6
EACH_STEP = {"checkpoints": STEPS}
BAD = (float("nan"), float("inf"), float("-inf"))
GREEDY: tuple[Callable[[], Any], ...] = (
    lambda: torch.empty(2**58), lambda: np.ones(2**58), lambda: bytearray(2**62),
)  # fmt: skip


def cases(count: int, folder: Path) -> Cases:
    """Of 30: 20 with bad numbers, once or for good, in the loss or the gradient, and 10 without memory."""
    tiny, starved = shared(), count // 3
    bad = [(value, part, last) for value in BAD for part in ("loss", "grad") for last in (1, PATIENCE_NAN + 1)]
    for number, (value, part, last) in enumerate(islice(cycle(bad), count - starved)):
        yield not_finite(tiny, folder / f"bad_{number}", 1 + number % STEPS, value, part, last)
    whole = tiny.trained(folder / "whole", STEPS, plan=EACH_STEP)
    for number in range(starved):
        into = folder / f"starved_{number}"
        said = out_of_memory(tiny, into, 2 + number % (STEPS - 2), GREEDY[number % 3])
        same = equal(tiny.trained(into, STEPS, plan=EACH_STEP).theta, whole.theta)
        yield said or ("" if same else f"{into.name} goes on to another θ")


@dataclass(frozen=True)
class Disturbed(ProtoNet):
    """A method to whose steps something happens."""

    def meta_grad(self, net: Any, theta: Any, episodes: Any) -> MetaGrad:
        return self.disturb(super().meta_grad(net, theta, episodes), [each.number // 2 for each in episodes.episodes])

    def disturb(self, found: MetaGrad, steps: list[int]) -> MetaGrad:
        raise NotImplementedError


def disturbed(disturb: Callable[[MetaGrad, int], MetaGrad]) -> ProtoNet:
    """A method of the same name and settings, so that the run can be gone on with by the other."""
    kind = type("ProtoNet", (Disturbed,), {"disturb": lambda _, found, steps: disturb(found, steps[0])})
    return kind()


def not_finite(tiny: Tiny, into: Path, at: int, value: float, part: str, last: int) -> str:
    def spoil(found: MetaGrad, step: int) -> MetaGrad:
        if not at <= step < at + last:
            return found
        if part == "loss":
            return replace(found, loss=found.loss * value)
        key = sorted(found.grad)[step % len(found.grad)]
        return replace(found, grad=found.grad | {key: torch.full_like(found.grad[key], value)})

    where = f"{value} in the {part} of step {at} and {last - 1} more"
    for_good = last > PATIENCE_NAN
    plan = {"steps": at + last + 2, "checkpoints": 20}
    try:
        learner = tiny.trained(into, method=disturbed(spoil), plan=plan)
    except DivergedError as error:
        if not for_good or "--lr" not in str(error):
            return f"{where}: {error}"
    else:
        if for_good or learner.record["skipped"] != last or not finite(learner.theta):
            return f"{where}: it ended well, {learner.record}"
    newest = checkpoint.newest(into / "checkpoints")
    return "" if newest and finite(checkpoint.load(newest)[0]) else f"{where}: no good checkpoint"


def out_of_memory(tiny: Tiny, into: Path, at: int, greedy: Callable[[], Any]) -> str:
    def starve(found: MetaGrad, step: int) -> MetaGrad:
        return replace(found, loss=found.loss + greedy()) if step == at else found

    said, code = io.StringIO(), 0
    with redirect_stderr(said):
        try:
            guarded(lambda: tiny.trained(into, STEPS, method=disturbed(starve), plan=EACH_STEP))
        except SystemExit as ended:
            code = ended.code
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    line = said.getvalue().splitlines()[-1] if said.getvalue() else ""
    newest = checkpoint.newest(into / "checkpoints")
    kept = newest is not None and checkpoint.load(newest)[1]["state"]["step"] == at
    return "" if code == 2 and "--tasks-per-pass" in line and kept else f"exit code {code}, {line!r}, kept: {kept}"
