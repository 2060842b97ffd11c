"""Writes that fail for want of room, at points spread over each save: what was there before is whole, and exit code 4.

Files may grow to a limit only, as on a disk with so much left."""

from __future__ import annotations

import resource
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from case import Cases, child, content, ended, refused, spread
from tiny_learner import Tiny, moved, shared

from metanlp.cli.launch import guarded
from metanlp.core import weights
from metanlp.core.errors import StorageError
from metanlp.learner.artefact import verified
from metanlp.learner.learner import Learner
from metanlp.training import checkpoint

STORAGE, STEPS = 4, 6
EACH_STEP = {"validations": STEPS, "checkpoints": STEPS}


def cases(count: int, folder: Path) -> Cases:
    tiny = shared()
    learner = tiny.trained(folder / "run")
    saves, learners, runs = spread(count, 3)
    yield from of_checkpoints(folder / "run" / "checkpoints", saves)
    yield from of_learners(learner, tiny.trained(None, seed=2), folder / "learner", learners)
    yield from of_runs(tiny, folder, runs)


@contextmanager
def room(size: int) -> Generator[None]:
    """Inside, no file grows beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def points(folder: Path, count: int) -> Iterator[int]:
    """Sizes from nothing to just below that of the largest file in `folder`."""
    largest = max(map(len, content(folder).values()))
    return (number * (largest - 1) // max(1, count - 1) for number in range(count))


def unchanged(folder: Path, size: int, save: Callable[[], object]) -> str:
    """That a save into `folder` fails, and leaves it as it was."""
    before = content(folder)
    with room(size):
        said = refused(save, StorageError, "too large", folder)
    return said or ("" if content(folder) == before else f"{folder} is another than before, at {size} bytes")


def of_checkpoints(folder: Path, count: int) -> Cases:
    newest = checkpoint.newest(folder)
    assert newest
    tensors, state = checkpoint.load(newest)
    for size in points(newest, count):
        yield unchanged(folder, size, lambda: checkpoint.save(folder / "step_99", tensors, state))


def of_learners(learner: Learner, other: Learner, folder: Path, count: int) -> Cases:
    """One is saved where another is."""
    learner.save(folder)
    for size in points(folder, count):
        yield unchanged(folder, size, lambda: other.save(folder))
    verified(folder, "learner")


def of_runs(tiny: Tiny, folder: Path, count: int) -> Cases:
    """The disk is full after some steps: the run ends, and goes on from its checkpoint where there is room again."""
    whole = tiny.trained(folder / "whole", STEPS, validate=moved, plan=EACH_STEP)
    size = max(map(len, content(folder / "whole" / "checkpoints").values()))
    for number in range(count):
        yield of_run(tiny, folder / f"run_{number}", 1 + number % (STEPS - 1), size * number // count, whole)


def of_run(tiny: Tiny, into: Path, step: int, size: int, whole: Learner) -> str:
    looks = list[None]()

    def full(theta: weights.Weights) -> list[float]:
        looks.append(None)
        if len(looks) == step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return moved(theta)

    code = ended(child(lambda: guarded(lambda: tiny.trained(into, STEPS, validate=full, plan=EACH_STEP))))
    if code != STORAGE:
        return f"exit code {code} of a run that had {size} bytes from step {step} on"
    newest = checkpoint.newest(into / "checkpoints")
    if newest:
        checkpoint.load(newest)
    elif step > 1:
        return f"no checkpoint is left of the steps before {step}"
    again = tiny.trained(into, STEPS, validate=moved, plan=EACH_STEP)
    return "" if weights.equal(again.theta, whole.theta) else f"another θ after {size} bytes at step {step}"
