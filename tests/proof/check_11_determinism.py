"""One, two and four processes, five seeds, three methods, both kinds of kernels: the same bits in exact mode, near in
fast mode; and a run that is repeated gives its bits again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from case import Cases, attempt
from forked import forked
from near import INNER_STEPS, near
from test_meta_train import SCRIPT, here, read_ranks
from tiny_learner import shared

from metanlp.core.weights import equal

KERNELS, METHODS, SIZES, STEPS = ("default", "avx2"), ("maml", "multitask", "protonet"), (2, 4), 3
A_SEED = len(SIZES) * (len(METHODS) + 1)  # cases: the methods, and one of them in fast mode
REPEATS = 2  # a seed


def cases(count: int, folder: Path) -> Cases:
    """Of 100: for each kind of kernels and each of five seeds eight comparisons, and two repeats."""
    seeds = max(1, count // (len(KERNELS) * (A_SEED + REPEATS)))
    for kernels in KERNELS:
        place = folder / kernels
        place.mkdir()
        command = [sys.executable, __file__, str(seeds), str(place)]
        # torch reads which kernels to take when it is loaded.
        env = os.environ | {"ATEN_CPU_CAPABILITY": kernels, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
        yield from (said and f"{kernels} kernels: {said}" for said in json.loads((place / "said.json").read_text()))


def compared(seeds: int, folder: Path) -> Cases:
    base = shared().base
    names = [f"{method}.{seed}" for seed in range(seeds) for method in METHODS]
    fast = [f"fast.{seed}" for seed in range(seeds)]
    alone = {name: here(base, folder / "1" / name, STEPS) for name in names}
    for size in SIZES:
        forked(size, SCRIPT, size, base, STEPS, *(folder / str(size) / name for name in (*names, *fast)))
        for name in names:
            same = all(equal(alone[name], theta) for theta in read_ranks(folder / str(size) / name, size))
            yield "" if same else f"{size} processes learn another θ: {name}"
        for name in fast:
            found, like = read_ranks(folder / str(size) / name, size)[0], alone[name.replace("fast", "maml")]
            yield attempt(lambda found=found, like=like: near(found, like, INNER_STEPS))
    for number in range(REPEATS * seeds):
        name = names[number % len(names)]
        again = here(base, folder / f"again_{number}" / name, STEPS)
        yield "" if equal(again, alone[name]) else f"another θ when repeated: {name}"


if __name__ == "__main__":
    found = [*compared(int(sys.argv[1]), Path(sys.argv[2]))]
    (Path(sys.argv[2]) / "said.json").write_text(json.dumps(found))
