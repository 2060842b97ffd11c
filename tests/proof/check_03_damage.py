"""Single bits, cut files, and files that are missing, swapped or of another: in a checkpoint, in a learner's folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from case import Cases, refused
from tiny_learner import altered, shared

from metanlp.core.errors import DamagedError, InputError
from metanlp.learner.artefact import verified
from metanlp.training import checkpoint

Load = Callable[[Path], object]


def cases(count: int, folder: Path) -> Cases:
    """Of 1,350: 1,000 flips, 300 cuts and 50 files that are not the right ones."""
    flips, cuts = count * 1000 // 1350, count * 300 // 1350
    tiny = shared()
    learner = tiny.trained(folder / "run", 6)
    learner.save(folder / "learner")
    tiny.trained(folder / "other", 6, seed=2).save(folder / "another")
    step = checkpoint.newest(folder / "run" / "checkpoints")
    other = checkpoint.newest(folder / "other" / "checkpoints")
    assert step
    assert other
    pairs: list[tuple[Load, Path, Path]] = [
        (checkpoint.load, step, other), (verified, folder / "learner", folder / "another"),
    ]  # fmt: skip
    places = [
        (load, path, names) for load, path, _ in pairs for names in [sorted(each.name for each in path.iterdir())]
    ]
    for load, path, _ in pairs:
        load(path)
    rng = np.random.default_rng(0)
    files = [(load, path / name) for load, path, names in places for name in names]
    for number in range(flips):
        yield flipped(*files[number % len(files)], rng)
    for number in range(cuts):
        load, path = files[number % len(files)]
        yield cut(load, path, (number // len(files)) / (cuts // len(files) + 1))
    yield from wrong_files(pairs, count - flips - cuts)
    for load, path, _ in pairs:
        load(path)  # all is as it was


def flipped(load: Load, path: Path, rng: np.random.Generator) -> str:
    at, bit = int(rng.integers(path.stat().st_size)), 1 << int(rng.integers(8))
    restore = altered(path, lambda data: data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])
    said = refused(lambda: load(path.parent), DamagedError, path.parent)
    restore()
    return said and f"{path.name}, byte {at}, bit {bit}: {said}"


def cut(load: Load, path: Path, share: float) -> str:
    restore = altered(path, lambda data: data[: int(len(data) * share)])
    said = refused(lambda: load(path.parent), DamagedError, path)
    restore()
    return said and f"{path.name} cut at {share:.2f}: {said}"


def wrong_files(pairs: list[tuple[Load, Path, Path]], count: int) -> Iterator[str]:
    """Missing, another run's, the neighbour's, renamed, a link: file by file, until there are so many."""
    made = 0
    while made < count:
        for load, path, other in pairs:
            names = sorted(each.name for each in path.iterdir())
            for number, name in enumerate(names):
                kind = (made + made // 10) % 5
                if made < count and (said := wrong(load, path, other, name, names[number - 1], kind)) is not None:
                    made += 1
                    yield said


def wrong(load: Load, path: Path, other: Path, name: str, neighbour: str, kind: int) -> str | None:
    """None where this would be no damage."""
    file, kept = path / name, path.parent.parent / "kept"
    shutil.move(file, kept)
    if kind == 1:
        shutil.copy(other / name, file)
    elif kind == 2:
        shutil.copy(path / neighbour, file)
    elif kind == 3:
        shutil.copy(kept, path / f"{name}.bak")
    elif kind == 4:
        os.symlink(path.parent / "nowhere", file)
    same = file.is_file() and file.read_bytes() == kept.read_bytes()
    said = None if same else refused(lambda: load(path), (DamagedError, InputError), path)
    file.unlink(missing_ok=True)
    (path / f"{name}.bak").unlink(missing_ok=True)
    shutil.move(kept, file)
    return said and f"{name}, kind {kind}: {said}"
