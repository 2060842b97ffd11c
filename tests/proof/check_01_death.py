"""SIGKILL at random moments, one in four inside a save: what is left loads, and the end is the same."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from case import Cases, attempt, ended
from case import child as forked_child
from lives import FEW, STEPS, Lives, newest_loads, small
from tiny_learner import shared

EACH, PATIENCE = 10, 900.0  # deaths of one run; seconds of the last life


def cases(count: int, folder: Path) -> Cases:
    """Of runs that die up to ten times each and then come to their end."""
    learn = small(shared(), STEPS if count >= EACH else FEW)
    learn(folder / "whole")
    yield from deaths(Lives(learn, folder / "whole", folder / "killed"), count, random.Random(0))


def deaths(run: Lives, left: int, chance: random.Random) -> Cases:
    """One word a death, of as many runs as it takes."""
    while left:
        said = one_run(run, min(EACH, left), chance)
        if not said:
            raise AssertionError("a run came to its end before it was killed")
        shutil.rmtree(run.into)
        left -= len(said)
        yield from said


def one_run(run: Lives, most: int, chance: random.Random) -> list[str]:
    """One word a death; a life that came to its end is none."""
    said = list[str]()
    for number in range(most):
        code = run.dies(chance, inside=number % 4 == 1)
        if code == 0:
            break
        said.append(attempt(lambda: newest_loads(run.into)) or ("" if code == -9 else f"exit code {code}"))
    code = ended(forked_child(run.run), PATIENCE)
    end = run.differs() if code == 0 else f"the last life ended with {code}"
    return [one or end for one in said]
