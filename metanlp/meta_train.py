"""The outer loop, the only one."""

from __future__ import annotations

import hashlib
import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metanlp import checkpoint, signals, weights
from metanlp.algorithms import Algorithm
from metanlp.backbone import Backbone
from metanlp.backbone.workers import whole_passes
from metanlp.config import to_json
from metanlp.episodes import Episodes
from metanlp.errors import DivergedError, InputError, StoppedError
from metanlp.learner import Learner
from metanlp.log import Log
from metanlp.metrics import as_good
from metanlp.outer import Outer
from metanlp.parallel import Ranks
from metanlp.progress import Progress
from metanlp.types import Weights

Validate = Callable[[Weights], Sequence[float]]
"""θ -> its score on each of the same trials: accuracy, or what a form is judged by."""
PATIENCE_NAN = 10  # bad steps in a row that end a run


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
    patience: int = 4  # validations in a row that are worse than the best and end the run; 0 never
    checkpoints: int = 20  # spread evenly over the run
    exact: bool = True  # add gradients in one order, so that any number of processes gives the same bits

    def __post_init__(self) -> None:
        lengths = [self.steps, self.minutes, self.tokens]
        if sum(length is not None for length in lengths) != 1 or any(n is not None and n <= 0 for n in lengths):
            raise InputError("give the run one length above 0: --steps N or --max-minutes M")
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

    def rate(self, done: float) -> float:
        """Step size of AdamW at this point: linear warm-up, then cosine to zero (Loshchilov & Hutter 2017)."""
        return self.lr * min(1.0, (done + 1e-3) / max(self.warmup, 1e-3)) * 0.5 * (1 + math.cos(math.pi * done))


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


def meta_train(
    algorithm: Algorithm,
    net: Backbone,
    episodes: Episodes,
    plan: Plan,
    *,
    validate: Validate | None = None,
    folder: Path | None = None,
    resume: bool = False,
    seed: int = 0,
    ranks: Ranks | None = None,
    name: str = "meta-training",
    trackers: Sequence[str] = (),
) -> Learner:
    """Learn θ: the latest that is as good as any on `validate`, or the last where it is not given.

    Into `folder` go `metrics.jsonl`, what `trackers` write and `checkpoints/`; with `resume` the run goes on from the
    newest of them, without it this run takes the place of an earlier one. Raises InputError for `resume` with other
    settings, DivergedError after ten bad steps in a row, with θ of before them in the newest checkpoint; StoppedError
    after SIGINT or SIGTERM, with the step that it was in.
    """
    ranks = ranks or Ranks.alone()
    identity = _identity(algorithm, net, episodes, plan, seed)
    theta = algorithm.init(net, torch.Generator().manual_seed(seed))
    outer, state, best = Outer(theta, plan.weight_decay), State(), theta
    if folder and (saved := _to_resume(folder / "checkpoints", resume, ranks)):
        state, best = _resumed(saved, identity, outer, net.device)
    lap, log = stopwatch(), Log(folder if ranks.main else None, state.step, trackers, name, _flat(identity))
    with log, Progress(name, quiet=not ranks.main) as progress, signals.deferred() as told:
        while not plan.over(state):
            done = plan.done(state)
            grad, loss, tokens = meta_step(algorithm, net, outer.theta, episodes, plan, state.step, ranks)
            ok = math.isfinite(loss) and weights.finite(grad)
            if ok:
                outer.step(grad, plan.rate(done), plan.clip)
            # All ranks must end a timed run at the same step, so they go by the clock of rank 0.
            state = _after(state, ok, loss, tokens, ranks.broadcast(lap()) if plan.minutes else lap())
            now = plan.done(state)
            if validate and _crosses(done, now, plan.validations):
                state, best = _validated(state, best, outer.theta, validate(outer.theta))
            log.write(state.step, _figures(state))
            progress.show(now, loss=state.loss, validation=state.validation)
            stop = ranks.any(bool(told()))
            if folder and (_crosses(done, now, plan.checkpoints) or plan.over(state) or stop or _diverged(state)):
                tensors = outer.tensors() | {f"best/{key}": value for key, value in best.items()}
                _save(folder, tensors, {"run": identity, "state": asdict(state)}, state.step, ranks)
            if _diverged(state):
                raise DivergedError(_advice(state, folder))
            if stop:
                raise StoppedError(told() or signal.SIGTERM, _farewell(state, folder))
        if ranks.any(bool(told())):  # while the last checkpoint was saved
            raise StoppedError(told() or signal.SIGTERM, _farewell(state, folder))
    return Learner(algorithm, net, best if len(state.best_trials) else outer.theta, _record(state))


def _figures(state: State) -> dict[str, Any]:
    """A step in `metrics.jsonl`."""
    return {key: value for key, value in asdict(state).items() if key != "best_trials"}


def _record(state: State) -> dict[str, Any]:
    """What a learner says of its making."""
    return {"tokens": state.tokens, "train_s": state.seconds, "steps": state.step, "skipped": state.skipped,
            "best_step": state.best_step, "validation": state.best}  # fmt: skip


def meta_step(
    algorithm: Algorithm, net: Backbone, theta: Weights, episodes: Episodes, plan: Plan, step: int, ranks: Ranks
) -> tuple[Weights, float, int]:
    """Mean gradient and loss of one meta-batch, and the tokens it took. Passes are dealt over the ranks."""
    passes = episodes.passes(step * plan.meta_batch, plan.meta_batch, plan.tasks_per_pass)
    mine = ranks.mine(len(passes))
    calls = [partial(algorithm.meta_grad, net, theta, passes[number]()) for number in mine]
    given = whole_passes(calls, net.device, len(passes))
    parts = [(number, each.grad, each.loss.sum(), each.tokens) for number, each in zip(mine, given, strict=True)]
    grad, loss, tokens = ranks.total(parts, theta, len(passes), exact=plan.exact)
    return weights.scale(grad, 1 / plan.meta_batch), loss / plan.meta_batch, tokens


def stopwatch() -> Callable[[], float]:
    """A function that gives the seconds since it was last called."""
    last = time.perf_counter()

    def lap() -> float:
        nonlocal last
        last, before = time.perf_counter(), last
        return last - before

    return lap


def _after(state: State, ok: bool, loss: float, tokens: int, seconds: float) -> State:
    """The state after a step. A bad step is skipped and counted."""
    return replace(
        state,
        step=state.step + 1,
        tokens=state.tokens + tokens,
        seconds=state.seconds + seconds,
        skipped=state.skipped + (not ok),
        bad_in_a_row=0 if ok else state.bad_in_a_row + 1,
        loss=loss if ok else state.loss,
    )


def _validated(state: State, kept: Weights, theta: Weights, trials: Sequence[float]) -> tuple[State, Weights]:
    """Keeps θ unless it is worse than the best so far: of two that the trials can't tell apart, the later one has
    learned more, and at a falling rate."""
    mean, reference = float(np.mean(trials)), np.array(state.best_trials)
    state = replace(state, validation=mean)
    if len(reference) and not as_good(np.array(trials), reference):
        return replace(state, since_best=state.since_best + 1), kept
    if not len(reference) or mean > reference.mean():
        state = replace(state, best_trials=tuple(trials))
    return replace(state, best=mean, best_step=state.step, since_best=0), weights.clone(theta)


def _diverged(state: State) -> bool:
    return state.bad_in_a_row >= PATIENCE_NAN


def _advice(state: State, folder: Path | None) -> str:
    kept = f"; the weights of before are in {folder / 'checkpoints' / f'step_{state.step}'}" if folder else ""
    return (
        f"{state.bad_in_a_row} meta-steps in a row, up to step {state.step}, had no finite loss or gradient{kept}; "
        "begin anew with a lower --lr or --inner-lr"
    )


def _farewell(state: State, folder: Path | None) -> str:
    return f"stopped after meta-step {state.step}" + ("" if folder else "; nothing is saved")


def _crosses(before: float, now: float, parts: int) -> bool:
    """Whether the run passed the end of one of `parts` equal parts."""
    return parts > 0 and math.floor(before * parts + 1e-9) < math.floor(now * parts + 1e-9)


def _identity(algorithm: Algorithm, net: Backbone, episodes: Episodes, plan: Plan, seed: int) -> dict[str, Any]:
    """All that decides what a run learns, as JSON has it."""
    return {
        "algorithm": {"name": type(algorithm).__name__, **to_json(algorithm)},
        "plan": to_json(plan),
        "seed": seed,
        "base": {"name": net.name, "sha256": net.sha256},
        "backbone": to_json(net.options),
        "episodes": {"seed": episodes.seed, "sampling": to_json(episodes.sampling)},
        "tasks": _sizes(episodes),
    }


def _sizes(episodes: Episodes) -> dict[str, str]:
    """Rows by task; of very many tasks their number and a hash, as every checkpoint holds this."""
    sizes = {task.name: f"{sum(counts)} rows" for task, counts in zip(episodes.tasks, episodes.counts, strict=True)}
    if len(sizes) <= 1_000:
        return sizes
    return {"number": str(len(sizes)), "sha256": hashlib.sha256(repr(sizes).encode()).hexdigest()}


def _same_run(stored: dict[str, Any], asked: dict[str, Any], folder: Path) -> None:
    """A run may be continued only as it was begun, with any number of processes."""
    before, now = _flat(stored), _flat(asked)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise InputError(
                f"{folder} was made with {key} = {before.get(key)}, now it is {now.get(key)}; resume with the same "
                "settings, or take another --out"
            )


def _flat(settings: dict[str, Any], above: str = "") -> dict[str, Any]:
    """The leaves by their path: {"plan": {"lr": 1}} -> {"plan.lr": 1}."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return found


def _to_resume(checkpoints: Path, resume: bool, ranks: Ranks) -> Path | None:
    """The checkpoint to go on from. A run that begins anew clears those of the run before: their steps are higher."""

    def find() -> Path | None:
        if not resume:
            checkpoint.prune(checkpoints, keep=0)
        return checkpoint.newest(checkpoints)

    return ranks.on_main(find)


def _resumed(saved: Path, identity: dict[str, Any], outer: Outer, device: torch.device) -> tuple[State, Weights]:
    """Where a run was, and the θ that it kept; `outer` is put there. Raises InputError for a run of other settings."""
    tensors, stored = checkpoint.load(saved)
    _same_run(stored["run"], identity, saved)
    outer.restore(weights.to(tensors, device))
    return State(**stored["state"]), weights.to(weights.pick_inside(tensors, "best/"), device)


def _save(folder: Path, tensors: Weights, state: dict[str, Any], step: int, ranks: Ranks) -> None:
    def save() -> None:
        checkpoint.save(folder / "checkpoints" / f"step_{step}", tensors, state)
        checkpoint.prune(folder / "checkpoints", keep=2)

    ranks.on_main(save)
