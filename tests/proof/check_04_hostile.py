"""Folders made to do harm, under an audit hook: refused in one line, nothing run, nothing written, nobody called."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from case import Cases, attempt, child, ended, refused
from hostile import CANARY, CHECKPOINTS, HARMLESS, LEARNERS, MODELS, Harm, resigned
from tiny_learner import Tiny, shared

from metanlp.backbone import Backbone
from metanlp.core.errors import DamagedError, InputError
from metanlp.learner.learner import Learner
from metanlp.serve.textbox import dropped
from metanlp.training import checkpoint

RUNS = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "os.fork")
Load = Callable[[Path], object]


def cases(count: int, folder: Path) -> Cases:
    """Each in the order of its kind, in a process that has the hook."""
    tiny = shared()
    tiny.trained(folder / "run").save(folder / "learner")
    said = folder / "said.json"
    code = ended(child(lambda: said.write_text(json.dumps([*islice(tried(tiny, folder), count)]))), 600)
    if code:
        yield f"the process that opens them ended with {code}"
        return
    yield from json.loads(said.read_text())


def tried(tiny: Tiny, folder: Path) -> Iterator[str]:
    newest = checkpoint.newest(folder / "run" / "checkpoints")
    assert newest
    kinds: list[tuple[Path, dict[str, Harm], Load]] = [
        (newest, CHECKPOINTS, checkpoint.load),
        (folder / "learner", LEARNERS, lambda made: Learner.load(made, base=str(tiny.base))),
        (tiny.base, MODELS, lambda made: Backbone.load(str(made))),
    ]
    for good, _, load in kinds:
        load(good)
    work = folder / "hostile"
    work.mkdir()
    os.chdir(work)
    fired = list[str]()
    sys.addaudithook(lambda event, given: watch(event, given, work, fired))
    for good, harms, load in kinds:
        for name, harm in harms.items():
            yield one(name, good, harm, lambda made, load=load: refused(
                lambda: load(made), (DamagedError, InputError), made.name), work / "made", fired)  # fmt: skip
    for name, harm in HARMLESS.items():
        yield one(name, good, harm, lambda made, load=load: attempt(lambda: load(made)), work / "made", fired)
    yield dropped_bomb(work / "made", fired)


def one(name: str, good: Path, harm: Harm, tried: Callable[[Path], str], made: Path, fired: list[str]) -> str:
    shutil.copytree(good, made)
    harm(made)
    resigned(made)
    fired.clear()
    os.environ["PROOF_WATCHES"] = "1"
    said = tried(made)
    os.environ.pop("PROOF_WATCHES")
    shutil.rmtree(made)
    canaries = [str(path) for path in made.parent.rglob(CANARY)]
    wrong = [*([said] if said else []), *fired, *canaries]
    return f"{good.name}, {name}: {wrong}" if wrong else ""


def dropped_bomb(made: Path, fired: list[str]) -> str:
    """What the page takes back is a table, and a small one."""
    from hostile import zip_bomb

    made.mkdir()
    place = made / "model.zip"
    place.write_bytes(zip_bomb())
    fired.clear()
    return refused(lambda: dropped(place), InputError, "model.zip") or "; ".join(fired)


def watch(event: str, given: tuple[Any, ...], work: Path, fired: list[str]) -> None:
    """What code of others would do: run something, write somewhere, call somebody."""
    if "PROOF_WATCHES" not in os.environ:
        return
    wrong = event in RUNS
    if event == "open":
        path, _, flags = given
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        wrong = bool(writes) and str(path) != os.devnull
    if event == "socket.connect":
        wrong = not (isinstance(given[1], tuple) and str(given[1][0]) in ("127.0.0.1", "::1", "localhost"))
    if event in ("compile", "exec"):
        wrong = str(work) in str(getattr(given[-1], "co_filename", given[-1]))
    if wrong:
        fired.append(f"{event} {given!r}"[:200])
