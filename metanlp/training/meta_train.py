"""The outer loop, the only one."""

from __future__ import annotations

import hashlib
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from metanlp.algorithms import Algorithm
from metanlp.backbone import Backbone
from metanlp.backbone.cpu_threads import whole_passes
from metanlp.core import signals, weights
from metanlp.core.errors import DivergedError, InputError, StoppedError
from metanlp.core.intervals import CLEARLY, as_good
from metanlp.core.progress import Progress
from metanlp.core.settings import flat, require_same, to_json
from metanlp.core.torch_modes import own_modes
from metanlp.core.types import MetaGrad, Weights
from metanlp.episodes.sampling import Episodes
from metanlp.learner.learner import Learner
from metanlp.learner.origin import began
from metanlp.training import checkpoint
from metanlp.training.collapse import Likeness
from metanlp.training.log import log
from metanlp.training.optimizer import OuterOptimizer, clipped
from metanlp.training.plan import Plan, State
from metanlp.training.processes import Ranks, program
from metanlp.training.task_heads import TaskHeads


class Method(Protocol):
    """What the outer loop needs of what is learned."""

    task_heads: ClassVar[bool]

    def meta_grad(self, net: Any, theta: Weights, episodes: Any, /) -> MetaGrad: ...


class Draws(Protocol):
    """What the outer loop learns from: passes, each a function of its number."""

    def passes(self, start: int, count: int, size: int) -> Sequence[Callable[[], Any]]: ...
    def drawn(self, start: int, count: int) -> dict[str, int]: ...
    def checksum(self, start: int, count: int) -> str: ...


Validate = Callable[[Weights], Sequence[float]]
"""θ -> its score on each of the same trials: accuracy, or what a form is judged by."""
PATIENCE_NAN = 10  # bad steps in a row that end a run
KEPT_ROWS = 1_000_000  # most training rows whose identities a learner keeps: 5 MB
VALIDATION = "validation"  # in the identity of a run: what its θ is chosen by
CHECKED_EVERY = 10  # steps after which the ranks are compared, beside every checkpoint


@own_modes()
def meta_train(
    algorithm: Algorithm,
    net: Backbone,
    episodes: Episodes,
    plan: Plan,
    *,
    validate: Validate | None = None,
    validated_on: Mapping[str, str] | None = None,
    folder: Path | None = None,
    resume: bool = False,
    seed: int = 0,
    ranks: Ranks | None = None,
    name: str = "meta-training",
    trackers: Sequence[str] = (),
    start: Learner | None = None,
) -> Learner:
    """Learn θ, from that of `start`, a learner on `net`, or anew: the latest that `validate` finds not clearly worse
    than another, or the last without it; a collapse goes back to it, and on at half the rate. Into `folder` go
    `metrics.jsonl`, what `trackers` write and `checkpoints/`; `resume` goes on from the newest. Raises InputError for
    `resume` with other settings, `validated_on`, what `validate` judges by, among them, or a folder with checkpoints
    without it, and where ranks differ; DivergedError after ten bad steps; StoppedError."""
    theta = _begun(algorithm.init(net, torch.Generator().manual_seed(seed)), start, net)
    identity = (
        _identity(algorithm, net, episodes, plan, seed)
        | _begins(start)
        | {VALIDATION: dict(validated_on or {}) or None}
    )
    learned, state = outer_loop(
        algorithm, net, theta, episodes, plan, identity, validate=validate, folder=folder, resume=resume, ranks=ranks,
        name=name, trackers=trackers, likeness=Likeness(net, episodes, theta),
    )  # fmt: skip
    record = {"lr": plan.lr} | state.record | _begins(start) | (began(start.record) if start else {})
    return Learner(algorithm, net, learned, record, _seen(episodes, start))


def outer_loop(
    method: Method, net: Any, theta: Weights, draws: Draws, plan: Plan, identity: Mapping[str, Any], *,
    validate: Validate | None, folder: Path | None, resume: bool, ranks: Ranks | None, name: str,
    trackers: Sequence[str], likeness: Likeness | None = None,
) -> tuple[Weights, State]:  # fmt: skip
    """θ as `meta_train` learns it, and where the run ended. `identity` is all that decides what is learned; without
    `likeness` nobody looks whether texts become alike."""
    ranks = ranks or Ranks.alone()
    ranks.require_same("at the start", lambda: flat(identity) | program())
    outer, heads = OuterOptimizer(theta, plan.weight_decay), TaskHeads(method, net, plan.weight_decay, net.device)
    checkpoints = folder / "checkpoints" if folder else None
    saved = _to_resume(checkpoints, resume, ranks) if checkpoints else None
    state, best = _resumed(saved, identity, outer, heads, net.device) if saved else (State(), theta)
    logged = log(folder if ranks.main else None, state.step, trackers, name, flat(identity))
    begun = time.perf_counter() - state.seconds
    bar = Progress(name, quiet=not ranks.main, done=plan.done(state))
    with logged as write, bar as progress, signals.deferred() as told:
        while not plan.over(state):
            done = plan.done(state)
            drawn = heads.of(draws.drawn(state.step * plan.meta_batch, plan.meta_batch))
            grad, loss, tokens = meta_step(method, net, outer.theta | drawn, draws, plan, state.step, ranks)
            ok = _stepped(outer, heads, grad, loss, plan.rate(done, state.collapses), plan.clip)
            seconds = time.perf_counter() - begun  # of rank 0 in a timed run, as all must end at the same step
            state = state.after(ok, loss, tokens, ranks.broadcast(seconds) if plan.minutes else seconds)
            now = plan.done(state)
            saving, look = (_crosses(done, now, parts) for parts in (plan.checkpoints, plan.validations))
            if saving or look:
                state = replace(state, cosine=ranks.broadcast(likeness.of(outer.theta) if likeness else 0.0))
                state, best = _looked(state, best, outer, likeness, validate if look else None, progress.note)
            write({key: value for key, value in asdict(state).items() if key != "best_trials"})
            progress.show(now, loss=state.loss, validation=state.validation)
            stop, diverged = ranks.any(bool(told())), state.bad_in_a_row >= PATIENCE_NAN
            saving = saving or plan.over(state) or stop or diverged
            if saving or state.step % CHECKED_EVERY == 0:
                _compare(ranks, outer.theta, draws, plan, state.step)
            if checkpoints and saving:
                ranks.on_main(partial(_save, checkpoints, outer, heads, best, identity, state))
            if diverged or stop or (plan.over(state) and ranks.any(bool(told()))):  # also while the last was saved
                raise _ended(diverged, told(), state, checkpoints)
    return best if len(state.best_trials) else outer.theta, state


def _begins(start: Learner | None) -> dict[str, Any]:
    """Where θ began, if not at nothing."""
    return {} if start is None else {"start": weights.checksum(start.theta)}


def _begun(theta: Weights, start: Learner | None, net: Backbone) -> Weights:
    """θ with what `start` has of it. Raises InputError for a learner whose adapters are for another backbone."""
    if start is None:
        return theta
    if start.net is not net:
        raise InputError("`start` was loaded on another backbone; meta-train on its own: start.net")
    return {key: start.theta[key].clone() if key in start.theta else value for key, value in theta.items()}


def _seen(episodes: Episodes, start: Learner | None) -> np.ndarray:
    """The rows of training, and those that `start` has seen; none where training has too many to keep."""
    before = np.zeros(0, np.uint64) if start is None else start.seen
    rows = sum(sum(counts) for counts in episodes.counts)
    return np.union1d(before, episodes.seen()) if rows <= KEPT_ROWS else before


def meta_step(
    algorithm: Method, net: Any, theta: Weights, episodes: Draws, plan: Plan, step: int, ranks: Ranks
) -> tuple[Weights, float, int]:
    """Mean gradient and loss of one meta-batch, and the tokens it took. Passes are dealt over the ranks."""
    passes = episodes.passes(step * plan.meta_batch, plan.meta_batch, plan.tasks_per_pass)
    calls = [partial(algorithm.meta_grad, net, theta, passes[number]()) for number in ranks.mine(len(passes))]
    parts = whole_passes(calls, net.device, len(passes))
    grad, loss, tokens = ranks.total(parts, theta, len(passes), exact=plan.exact)
    return weights.scale(grad, 1 / plan.meta_batch), loss / plan.meta_batch, tokens


def _looked(
    state: State,
    best: Weights,
    outer: OuterOptimizer,
    likeness: Likeness | None,
    judge: Validate | None,
    say: Callable[[str], None],
) -> tuple[State, Weights]:
    """After a look at how alike texts are: θ goes back to the best where that is a collapse. Else it may become the
    best, if `judge`, where it is given, says so; before the first validation it does."""
    if likeness and likeness.collapsed(state.cosine or 0.0):
        say(f"{_alike(state, likeness.start)}; back to the weights of step {state.best_step}, and on at half the rate")
        outer.restart(best)  # the heads of tasks stay: a few steps have taught them little of the features of before
        return replace(state, collapses=state.collapses + 1), best
    if judge:
        return _validated(state, best, outer.theta, judge(outer.theta))
    return (state, best) if len(state.best_trials) else (replace(state, best_step=state.step), outer.theta)


def _validated(state: State, kept: Weights, theta: Weights, trials: Sequence[float]) -> tuple[State, Weights]:
    """Keeps θ unless it is clearly worse than the best so far: of two that the trials can't tell apart, the later one
    has learned more, and at a falling rate."""
    mean, reference = float(np.mean(trials)), np.array(state.best_trials)
    if len(reference) and len(trials) != len(reference):
        raise InputError(
            f"`validate` gave {len(trials)} scores, and {len(reference)} before; give those of the same trials"
        )
    state = replace(state, validation=mean)
    if len(reference) and not as_good(np.array(trials), reference, CLEARLY):
        return replace(state, since_best=state.since_best + 1), kept
    if not len(reference) or mean > reference.mean():
        state = replace(state, best_trials=tuple(trials))
    return replace(state, best=mean, best_step=state.step, since_best=0), weights.clone(theta)


def _stepped(outer: OuterOptimizer, heads: TaskHeads, grad: Weights, loss: float, rate: float, clip: float) -> bool:
    """One update, unless loss or gradient is not finite; whether it was made."""
    if not (math.isfinite(loss) and weights.finite(grad)):
        return False
    grad = clipped(grad, clip)
    outer.step(grad, rate)
    heads.step(grad, rate)
    return True


def _alike(state: State, start: float) -> str:
    cosines = f"mean cosine {state.cosine:.4f}, at the start {start:.4f}"
    return f"after meta-step {state.step} all texts look alike ({cosines})"


def _ended(diverged: bool, told: int, state: State, checkpoints: Path | None) -> DivergedError | StoppedError:
    """What ends a run before its time; `told` is the signal that came on this rank."""
    if diverged:
        return DivergedError(_advice(state, checkpoints))
    lost = "" if checkpoints else "; nothing is saved"
    return StoppedError(told or signal.SIGTERM, f"stopped after meta-step {state.step}{lost}")


def _advice(state: State, checkpoints: Path | None) -> str:
    kept = f"; the weights of before are in {checkpoints / f'step_{state.step}'}" if checkpoints else ""
    return (
        f"{state.bad_in_a_row} meta-steps in a row, up to step {state.step}, had no finite loss or gradient{kept}; "
        "begin anew with a lower --lr or --inner-lr, and --replace or another --out"
    )


def _compare(ranks: Ranks, theta: Weights, episodes: Draws, plan: Plan, step: int) -> None:
    """Raises InputError where after this step a rank holds another θ than rank 0, or draws other episodes."""
    ranks.require_same(f"after meta-step {step}", lambda: {
        "the checksum of θ": weights.checksum(theta),
        "the checksum of its data": episodes.checksum(step * plan.meta_batch, plan.meta_batch),
    })  # fmt: skip


def _crosses(before: float, now: float, parts: int) -> bool:
    """Whether the run passed the end of one of `parts` equal parts."""
    return parts > 0 and math.floor(before * parts + 1e-9) < math.floor(now * parts + 1e-9)


def _identity(algorithm: Algorithm, net: Backbone, episodes: Episodes, plan: Plan, seed: int) -> dict[str, Any]:
    """All that decides what a run learns, as JSON has it."""
    return {
        "algorithm": {"name": type(algorithm).__name__, **to_json(algorithm)},
        "plan": to_json(plan),
        "seed": seed,
        "base": {"name": net.name, "sha256": net.base.sha256},
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


def _to_resume(checkpoints: Path, resume: bool, ranks: Ranks) -> Path | None:
    """The checkpoint to go on from. Raises InputError where a run that begins anew would take the place of another."""
    newest = ranks.on_main(partial(checkpoint.newest, checkpoints))
    if newest and not resume:
        raise InputError(f"{newest} is of another run; resume that one, or take another folder")
    return newest


def _resumed(
    saved: Path, identity: Mapping[str, Any], outer: OuterOptimizer, heads: TaskHeads, device: torch.device
) -> tuple[State, Weights]:
    """State and best θ of a checkpoint; `outer` and `heads` are restored from it. Raises InputError where its run had
    other settings; the number of processes may differ. Raises DivergedError where it had diverged."""
    tensors, stored = checkpoint.load(saved)
    unknown = {VALIDATION} - stored["run"].keys()  # to checkpoints of before 2026-12
    require_same(saved, stored["run"], {key: value for key, value in identity.items() if key not in unknown})
    tensors = weights.to(tensors, device)
    outer.restore(tensors)
    heads.restore(tensors, stored["task_heads"])
    state = State(**stored["state"])
    if state.bad_in_a_row >= PATIENCE_NAN:
        raise DivergedError(_advice(state, saved.parent))
    return state, weights.pick_inside(tensors, "best/")


def _save(
    checkpoints: Path, outer: OuterOptimizer, heads: TaskHeads, best: Weights, identity: Mapping[str, Any], state: State
) -> None:
    tensors = outer.tensors() | heads.tensors() | {f"best/{key}": value for key, value in best.items()}
    kept = {"run": identity, "state": asdict(state), "task_heads": heads.sizes}
    checkpoint.save(checkpoints / f"step_{state.step}", tensors, kept)
    checkpoint.prune(checkpoints)
