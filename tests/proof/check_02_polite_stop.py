"""SIGTERM and SIGINT at random moments: a checkpoint, exit code 143 or 130, within 10 s, and the end is the same."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

from case import Cases, child, ended
from lives import FEW, STEPS, Lives, small
from tiny_learner import shared

from metanlp.training import checkpoint

EACH, SOON = 10, 10.0  # stops of one run; seconds


def cases(count: int, folder: Path) -> Cases:
    """Two of seven by Ctrl-C."""
    chance, left = random.Random(0), count
    learn = small(shared(), STEPS if count >= EACH else FEW)
    learn(folder / "whole")
    while left:
        run, said = Lives(learn, folder / "whole", folder / "stopped"), list[str]()
        while len(said) < min(EACH, left):
            one = stopped(run, chance, signal.SIGINT if (left - len(said)) % 7 in (2, 5) else signal.SIGTERM)
            if one is None:
                break
            said.append(one)
        if not said:
            raise AssertionError("a run came to its end before it was told to stop")
        code = ended(child(run.run))
        end = run.differs() if code == 0 else f"the last life ended with {code}"
        yield from (one or end for one in said)
        shutil.rmtree(folder / "stopped")
        left -= len(said)


def stopped(run: Lives, chance: random.Random, what: signal.Signals) -> str | None:
    """None where it had come to its end before."""
    code, seconds = run.is_told(chance, what)
    if code == 0:
        return None
    newest = checkpoint.newest(run.into / "checkpoints")
    step = checkpoint.load(newest)[1]["state"]["step"] if newest else 0
    if code != 128 + what or seconds > SOON or step != run.lines():
        return f"{what.name}: exit code {code} after {seconds:.1f} s, saved step {step} of {run.lines()}"
    return ""
