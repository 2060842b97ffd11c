"""A small run that dies, or is told to stop, at chosen moments, and goes on from its checkpoint: a meta-training, one
that begins from the learner of the package, or a pretraining."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from case import child, ended
from tiny_learner import Tiny, moved

from metanlp.algorithms import ProtoNet
from metanlp.core.signals import stoppable
from metanlp.core.types import Weights
from metanlp.episodes.sampling import Episodes, Sampling
from metanlp.experiment.options import Pretraining
from metanlp.experiment.pretrain import pretrain
from metanlp.learner.artefact import DEFAULT
from metanlp.learner.learner import Learner
from metanlp.training import checkpoint
from metanlp.training.meta_train import Plan, meta_train
from metanlp.training.processes import Ranks

STEPS, FEW = 60, 12  # meta-steps of a run, and of one of few deaths
PAUSE = 0.03  # seconds of a look at θ, of which a run has six
CLOCK = ("seconds", "train_s")  # what differs from run to run


Run = Callable[[Path], None]
"""A whole run into a folder, from the newest checkpoint that is there."""


@dataclass(frozen=True)
class Lives:
    """A run in a folder, in processes forked from this one; `whole` is the folder of the undisturbed one, `left` what
    both hold in the end."""

    learn: Run
    whole: Path
    into: Path
    left: tuple[str, ...] = ("checkpoints", "learner", "metrics.jsonl")

    def run(self) -> None:
        """To the end, or to the death."""
        with stoppable("--resume"):
            self.learn(self.into)

    def dies(self, chance: random.Random, inside: bool) -> int:
        """One life, which ends by SIGKILL: in the middle of a save, or at any moment after some steps."""
        from_here, began = chance.randint(2, 40), self.lines()
        if inside:
            return ended(child(lambda: (kill_in_a_save(from_here), self.run())))
        number = child(self.run)
        self.wait(number, began + chance.randint(0, 5))
        time.sleep(chance.uniform(0, 0.05))
        os.kill(number, signal.SIGKILL)
        return ended(number)

    def is_told(self, chance: random.Random, what: signal.Signals) -> tuple[int, float]:
        """One life, which ends by a polite signal: its exit code and the seconds until it ended."""
        began, number = self.lines(), child(self.run)
        self.wait(number, began + chance.randint(1, 4))
        time.sleep(chance.uniform(0, 0.05))
        os.kill(number, what)
        told = time.monotonic()
        return ended(number), time.monotonic() - told

    def lines(self) -> int:
        path = self.into / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def wait(self, number: int, lines: int, seconds: float = 60.0) -> None:
        """Until the log has so many lines, or the process ended."""
        until = time.monotonic() + seconds
        while self.lines() < lines and time.monotonic() < until and not os.waitid(
            os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT
        ):  # fmt: skip
            time.sleep(0.002)

    def differs(self) -> str:
        """What the newest checkpoint, the log and the learner have otherwise than the undisturbed run; "" where all is
        the same, byte by byte but for the clock."""
        for name in self.left:
            mine, theirs = (plain_of(folder / name) for folder in (self.into, self.whole))
            if mine != theirs:
                wrong = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
                return f"{name}: {wrong} differ from the undisturbed run"
        return ""


def small(tiny: Tiny, steps: int) -> Run:
    """A meta-training of a tiny model; the learner is saved beside the checkpoints."""
    plan = {"validations": 6, "checkpoints": steps // 2}
    return lambda into: tiny.trained(into, steps, validate=slowly, plan=plan).save(into / "learner")


def from_default(tiny: Tiny, steps: int) -> Run:
    """The same, begun from the learner that comes with the package."""
    start, plan = Learner.load(DEFAULT), Plan(steps=steps, meta_batch=2, patience=0, checkpoints=steps // 2)
    episodes = Episodes(tiny.tasks, start.net.encode, Sampling(shots=(1, 2), queries=2, ways=3), seed=3)
    given: dict[str, Any] = {"resume": True, "seed": 1, "ranks": Ranks.alone(), "start": start}
    return lambda into: meta_train(ProtoNet(), start.net, episodes, plan, folder=into, **given).save(into / "learner")


def pretraining(tiny: Tiny, corpus: Path, steps: int) -> Run:
    """A pretraining, from the texts of the tasks to a model."""
    rows = [row for task in tiny.tasks for row in task.pools["train"]]
    corpus.write_text("\n".join(row[name] for row in rows for name in ("text", "text_a", "text_b") if name in row))
    small: dict[str, Any] = {"layers": 2, "width": 32, "heads": 2, "vocabulary": 600, "max_length": 24, "batch": 16}
    small |= {"steps": steps, "precision": "fp32", "threads": 1, "resume": True}

    def learn(into: Path) -> None:
        pretrain(Pretraining(text=str(corpus), out=into, **small))

    return learn


MODEL = ("checkpoints", "metrics.jsonl", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def slowly(theta: Weights) -> list[float]:
    """A score, after a moment: on a fast machine a run would otherwise be over before anything can happen to it."""
    time.sleep(PAUSE)
    return moved(theta)


def kill_in_a_save(calls: int) -> None:
    """SIGKILL at one of the calls that put files and names on the disk, in this process."""
    left = [calls]

    def deadly(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return work(*given, **named)

        return call

    for name in ("fsync", "replace", "rename", "mkdir", "rmdir", "unlink"):
        setattr(os, name, deadly(getattr(os, name)))


def plain_of(path: Path) -> dict[str, Any]:
    """Files by name, or lines of a log by number, without what the clock says and the checksums of that."""
    if path.suffix == ".jsonl":
        return {f"line {n}": unclocked(json.loads(line)) for n, line in enumerate(path.read_text().splitlines())}
    files = sorted(each for each in (path, *path.rglob("*")) if each.is_file() and not each.name.startswith("."))
    return {str(each.relative_to(path.parent)): unclocked(json.loads(each.read_text())) if each.suffix == ".json"
            else each.read_bytes() for each in files}  # fmt: skip


def unclocked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: unclocked(inner) for key, inner in value.items() if key not in (*CLOCK, "sha256", "bytes")}
    return value


def newest_loads(into: Path) -> str:
    """That the newest checkpoint is whole."""
    newest = checkpoint.newest(into / "checkpoints")
    if newest:
        checkpoint.load(newest)
    return ""
