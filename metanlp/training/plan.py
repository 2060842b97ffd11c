"""How long and how fast the outer loop goes, and where it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from metanlp.core.errors import InputError


@dataclass(frozen=True)
class Plan:
    """How long and how fast the outer loop goes. One of steps, minutes and tokens sets the length."""

    steps: int | None = None  # meta-steps; such a run is reproducible to the byte
    minutes: float | None = None  # of wall time
    tokens: int | None = None  # through the whole stack, forward and backward: equal compute
    meta_batch: int = 8  # episodes a meta-step
    tasks_per_pass: int = 1  # episodes that share one call of the model
    lr: float = 1e-3  # highest rate of AdamW
    warmup: float = 0.05  # share of the run in which the rate rises; then it falls as a cosine
    weight_decay: float = 0.0  # of AdamW
    clip: float = 1.0  # longest meta-gradient
    validations: int = 8  # spread evenly over the run
    patience: int = 0  # validations in a row that are clearly worse than the best and end the run; 0 never
    checkpoints: int = 20  # spread evenly over the run; at each it is looked whether all texts become alike
    exact: bool = True  # add gradients in one order, so that any number of processes gives the same bits

    def __post_init__(self) -> None:
        lengths = [self.steps, self.minutes, self.tokens]
        if sum(length is not None for length in lengths) != 1 or any(n is not None and n <= 0 for n in lengths):
            raise InputError("give the run one length above 0: --steps N or --max-minutes M")
        if self.meta_batch < 1 or not 0 < self.lr < math.inf:
            raise InputError(f"--meta-batch is {self.meta_batch}, from 1 up; --lr {self.lr}, above 0")
        if self.tasks_per_pass < 1 or self.meta_batch % self.tasks_per_pass:
            raise InputError(
                f"--meta-batch {self.meta_batch} is not a multiple of --tasks-per-pass {self.tasks_per_pass}"
            )

    def done(self, state: State) -> float:
        """Share of the run that lies behind: 0 to 1."""
        shares = [
            state.step / self.steps if self.steps else 0.0,
            state.seconds / (60 * self.minutes) if self.minutes else 0.0,
            state.tokens / self.tokens if self.tokens else 0.0,
        ]
        return min(1.0, max(shares))

    def over(self, state: State) -> bool:
        """Whether the run has its length, or has waited too long for a better validation."""
        return self.done(state) >= 1.0 or bool(self.patience and state.since_best >= self.patience)

    def rate(self, done: float, collapses: int = 0) -> float:
        """Step size of AdamW at this point: linear warm-up, then cosine to zero (Loshchilov & Hutter 2017); half of it
        after each collapse."""
        highest = self.lr / 2**collapses
        return highest * min(1.0, (done + 1e-3) / max(self.warmup, 1e-3)) * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class State:
    """Where a run is, apart from its tensors."""

    step: int = 0  # meta-steps taken or skipped
    tokens: int = 0
    seconds: float = 0.0
    skipped: int = 0  # steps whose loss or gradient was not finite
    bad_in_a_row: int = 0
    loss: float | None = None  # of the last good step
    validation: float | None = None  # mean score of the newest validation
    best: float = -1.0  # that of θ that is kept
    best_step: int = 0
    since_best: int = 0  # validations since
    best_trials: Sequence[float] = ()  # the highest scores so far, trial by trial
    cosine: float | None = None  # between different texts of an episode, adapted, at the newest look
    collapses: int = 0  # times that it said that all texts were alike

    def after(self, ok: bool, loss: float, tokens: int, seconds: float) -> State:
        """The state one step later, `seconds` into the run. A step that is not `ok` is skipped and counted."""
        return replace(
            self,
            step=self.step + 1,
            tokens=self.tokens + tokens,
            seconds=seconds,
            skipped=self.skipped + (not ok),
            bad_in_a_row=0 if ok else self.bad_in_a_row + 1,
            loss=loss if ok else self.loss,
        )

    @property
    def record(self) -> dict[str, Any]:
        """What a learner says of its making."""
        return {"tokens": self.tokens, "train_s": self.seconds, "steps": self.step, "skipped": self.skipped,
                "best_step": self.best_step, "validation": self.best, "collapses": self.collapses}  # fmt: skip
