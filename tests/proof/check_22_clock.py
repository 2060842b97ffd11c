"""A clock that jumps, and trackers whose files break, change nothing of what a run learns and leaves.

The clock is libfaketime's, in a process of its own, where that is installed; elsewhere, and in `make test`, what Python
says of the time is replaced in a process forked from this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from itertools import cycle, islice
from pathlib import Path

from broken import BREAKS, writers_end
from case import Cases, attempt, child, ended
from form_tasks import write_tasks
from lives import FEW, Lives, small
from tiny_learner import moved, shared

from metanlp.core.types import Weights
from metanlp.tasks.index.build import build_index
from metanlp.tasks.index.index import open_index
from metanlp.tasks.reading.files import read_tasks

HOUR, YEAR = 3_600, 31_557_600
JUMPS = (-HOUR, -10 * YEAR, 10 * YEAR, -30)  # seconds
LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
CLOCK = "FAKETIME_TIMESTAMP_FILE"
LOOKS = 6  # of a run
ALONE = 6  # cases from which on a process of its own is worth its start


class CutError(Exception):
    """What ends a run in the middle."""


def cases(count: int, folder: Path) -> Cases:
    """Half of them of the clock: jumps in a run, between a run and the one that resumes it, and under an index. Half of
    trackers, which break at one of six moments."""
    small(shared(), FEW)(folder / "whole")
    clock = count // 2
    (folder / "now").write_text("+0")
    if LIBRARY and count >= ALONE:
        faked = {"LD_PRELOAD": str(LIBRARY), CLOCK: str(folder / "now"), "FAKETIME_NO_CACHE": "1"}
        faked |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        print(f"  the clock of {LIBRARY.name}")
        subprocess.run([sys.executable, __file__, str(clock), str(folder)], env=os.environ | faked, check=False)
    else:
        ended(child(lambda: jumped(clock, folder)), 600)
    found = folder / "said.json"
    yield from json.loads(found.read_text()) if found.exists() else ["the process with the clock ended before its time"]
    for number, how in enumerate(islice(cycle(BREAKS), count - clock)):
        yield broken(how, number, folder)


def jumped(count: int, folder: Path) -> None:
    kinds = cycle((in_a_run, before_it_goes_on, under_an_index))
    found = [
        kind(JUMPS[number % len(JUMPS)], number, folder) for number, kind in zip(range(count), kinds, strict=False)
    ]
    (folder / "said.json").write_text(json.dumps(found))


def jump(seconds: int, folder: Path) -> None:
    """The clock goes, from now on, so many seconds before or behind."""
    then = START if CLOCK in os.environ else ahead()
    if CLOCK in os.environ:
        (folder / "next").write_text(f"{seconds:+d}")
        (folder / "next").replace(os.environ[CLOCK])
    else:
        time.time = lambda told=time.time: told() + seconds
        time.time_ns = lambda told=time.time_ns: told() + seconds * 10**9
    assert abs(ahead() - then - seconds) < 5, f"the clock did not jump by {seconds} s"


def ahead() -> float:
    """Seconds by which the clock is before the one that never jumps."""
    return time.time() - time.monotonic()


START = ahead()


def in_a_run(seconds: int, number: int, folder: Path) -> str:
    return run(folder, f"clock {number}", {1 + number % 5: lambda _: jump(seconds, folder)})


def before_it_goes_on(seconds: int, number: int, folder: Path) -> str:
    def stop(_: Path) -> None:
        raise CutError

    try:
        return run(folder, f"clock {number}", {2 + number % 4: stop})
    except CutError:
        jump(seconds, folder)
        return run(folder, f"clock {number}", {})


def under_an_index(seconds: int, number: int, folder: Path) -> str:
    """One that was built before the jump is read, and built anew."""
    place = write_tasks(folder / f"tasks {number}", "classify", range(3))
    rows = [list(task.pools["train"]) for task in read_tasks(place)]
    build_index(place)
    jump(seconds, folder)
    for _ in range(2):
        if [list(task.pools["train"]) for task in open_index(place)] != rows:
            return f"index, {seconds} s: other rows"
        build_index(place)
    return ""


def broken(how: str, number: int, folder: Path) -> str:
    """A tracker breaks at one of the looks at θ."""
    at, said = number // len(BREAKS) % LOOKS, StringIO()
    with redirect_stderr(said):
        does = {at: lambda into: BREAKS[how](into / "trackers")}
        wrong = run(folder, f"tracker {number}", does, "tensorboard")
        writers_end()
    told = said.getvalue().count("tracker tensorboard failed (")
    return wrong or ("" if told == 1 else f"{how} at look {at}: told {told} times")


def run(folder: Path, name: str, does: dict[int, Callable[[Path], None]], *trackers: str) -> str:
    """A run as `small`, with something that happens at a look at θ; what it has otherwise than the undisturbed one."""
    into, plan, looks = folder / name, {"validations": LOOKS, "checkpoints": FEW // 2}, list[int]()

    def look(theta: Weights) -> list[float]:
        looks.append(1)
        does.get(len(looks) - 1, lambda _: None)(into)
        return moved(theta)

    shared().trained(into, FEW, validate=look, plan=plan, trackers=trackers).save(into / "learner")
    said = Lives(small(shared(), FEW), folder / "whole", into).differs()
    return said and f"{name}: {said}"


if __name__ == "__main__":
    if wrong := attempt(lambda: jumped(int(sys.argv[1]), Path(sys.argv[2]))):
        print(wrong)
