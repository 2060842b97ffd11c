"""SIGKILL at random moments, one in four inside a save: what is left loads, and the end is the same."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from case import Cases, attempt, ended
from case import child as forked_child
from lives import FEW, MODEL, STEPS, Lives, from_default, newest_loads, pretraining, small
from tiny_learner import shared

EACH, PATIENCE = 10, 900.0  # deaths of one run; seconds of the last life
SHARE = 12  # one death of so many is that of a pretraining, and one of a run begun from the learner of the package


def cases(count: int, folder: Path) -> Cases:
    """Of runs that die up to ten times each and then come to their end."""
    chance, others = random.Random(0), count // SHARE
    for kind, (run, left) in enumerate(zip(runs(folder, count), (count - 2 * others, others, others), strict=True)):
        if left:
            with redirect_stdout(StringIO()):
                run.learn(run.whole)
        while left:
            said = one_run(run, min(EACH, left), chance)
            if not said:
                raise AssertionError("a run came to its end before it was killed")
            shutil.rmtree(run.into)
            left -= len(said)
            yield from (
                one and f"{('meta-training', 'pretraining', 'begun from a learner')[kind]}: {one}" for one in said
            )


def runs(folder: Path, count: int) -> Iterator[Lives]:
    tiny, steps = shared(), STEPS if count >= EACH else FEW
    yield Lives(small(tiny, steps), folder / "whole", folder / "killed")
    yield Lives(pretraining(tiny, folder / "corpus.txt", steps), folder / "model", folder / "killed_model", MODEL)
    if count >= SHARE:
        yield Lives(from_default(tiny, steps), folder / "further", folder / "killed_further")


def one_run(run: Lives, deaths: int, chance: random.Random) -> list[str]:
    """One word a death; a life that came to its end is none."""
    said = list[str]()
    for number in range(deaths):
        code = run.dies(chance, inside=number % 4 == 1)
        if code == 0:
            break
        said.append(attempt(lambda: newest_loads(run.into)) or ("" if code == -9 else f"exit code {code}"))
    code = ended(forked_child(run.run), PATIENCE)
    end = run.differs() if code == 0 else f"the last life ended with {code}"
    return [one or end for one in said]
