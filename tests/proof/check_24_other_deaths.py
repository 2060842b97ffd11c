"""SIGKILL as in check 1, to pretrainings and to runs that begin from the learner of the package."""

from __future__ import annotations

import random
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from case import Cases
from check_01_death import EACH, deaths
from lives import FEW, MODEL, STEPS, Lives, from_default, pretraining
from tiny_learner import shared


def cases(count: int, folder: Path) -> Cases:
    """Half of the deaths are those of pretrainings."""
    tiny, chance, steps = shared(), random.Random(0), STEPS // 3 if count >= EACH else FEW
    model = pretraining(tiny, folder / "corpus.txt", steps)
    with redirect_stdout(StringIO()):
        model(folder / "model")
    for said in deaths(Lives(model, folder / "model", folder / "killed_model", MODEL), -(-count // 2), chance):
        yield said and f"pretraining: {said}"
    if count > 1:
        further = from_default(tiny, steps)
        further(folder / "further")
        for said in deaths(Lives(further, folder / "further", folder / "killed_further"), count // 2, chance):
            yield said and f"from the learner of the package: {said}"
