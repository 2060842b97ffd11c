"""A tiny model, and what a short training of it leaves: what checks damage, kill and load."""

from __future__ import annotations

import atexit
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from conftest import TOYS, mini_tasks, write_tiny

from metanlp.algorithms import Algorithm, ProtoNet
from metanlp.backbone import Backbone, Lora
from metanlp.core import weights
from metanlp.core.types import Task, Weights
from metanlp.episodes.sampling import Episodes, Sampling
from metanlp.learner.learner import Learner
from metanlp.training.meta_train import Plan, meta_train
from metanlp.training.processes import Ranks


@dataclass(frozen=True)
class Tiny:
    """A small model in `folder`, with a few of the embedded tasks to learn from."""

    folder: Path

    @cached_property
    def base(self) -> Path:
        place = self.folder / "tiny-bert"
        place.mkdir(parents=True)
        write_tiny(place, [row["text"] for task in self.tasks for row in task.pools["train"] if "text" in row])
        return place

    @cached_property
    def net(self) -> Backbone:
        return Backbone.load(str(self.base), Lora(rank=4, alpha=8), precision="fp32")

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        every = mini_tasks()
        return tuple(every[name] for name in TOYS)

    @cached_property
    def episodes(self) -> Episodes:
        return Episodes(self.tasks, self.net.encode, Sampling(shots=(1, 2), queries=2, ways=3), seed=3)

    def trained(self, into: Path | None, steps: int = 6, method: Algorithm | None = None, **more: Any) -> Learner:
        """A learner of so many meta-steps, which go on from the newest checkpoint in `into`."""
        plan = Plan(**{"steps": steps, "meta_batch": 2, "lr": 1e-2, "patience": 0, "checkpoints": 3}
                    | more.pop("plan", {}))  # fmt: skip
        given: dict[str, Any] = {"folder": into, "resume": True, "seed": 1, "ranks": Ranks.alone(), **more}
        return meta_train(method or ProtoNet(), self.net, self.episodes, plan, **given)


@cache
def shared() -> Tiny:
    """One for all checks of a process."""
    folder = Path(mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Tiny(folder)


def moved(theta: Weights) -> list[float]:
    """A score that grows while θ learns: a validation of one trial."""
    return [float(weights.norm({key: value for key, value in theta.items() if "lora_B" in key}))]


def altered(path: Path, change: Callable[[bytes], bytes]) -> Callable[[], object]:
    """Changes the file, and gives what puts it back."""
    before = path.read_bytes()
    path.write_bytes(change(before))
    return lambda: path.write_bytes(before)
