"""SIGKILL at random moments, one in four inside a save: what is left loads, and the end is the same."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from case import Cases, attempt, ended
from case import child as forked_child
from lives import FEW, STEPS, Lives, newest_loads
from tiny_learner import shared

EACH = 10  # deaths of one run


def cases(count: int, folder: Path) -> Cases:
    """Of runs that die up to ten times each and then come to their end."""
    tiny, chance, left = shared(), random.Random(0), count
    steps = STEPS if count >= EACH else FEW
    Lives(tiny, folder, folder / "whole", steps).run()
    while left:
        said = one_run(Lives(tiny, folder / "whole", folder / "killed", steps), min(EACH, left), chance)
        if not said:
            raise AssertionError("a run came to its end before it was killed")
        shutil.rmtree(folder / "killed")
        left -= len(said)
        yield from said


def one_run(run: Lives, deaths: int, chance: random.Random) -> list[str]:
    """One word a death; a life that came to its end is none."""
    said = list[str]()
    for number in range(deaths):
        code = run.dies(chance, inside=number % 4 == 1)
        if code == 0:
            break
        said.append(attempt(lambda: newest_loads(run.into)) or ("" if code == -9 else f"exit code {code}"))
    code = ended(forked_child(run.run))
    end = run.differs() if code == 0 else f"the last life ended with {code}"
    return [one or end for one in said]
