"""Many runs that begin together on one output folder: one goes on, the others name it; a killed one is succeeded."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import in_turn
from case import Cases
from form_tasks import write_tasks
from tiny_learner import shared

PATIENCE = 900.0  # seconds until a run that goes on is seen to


def cases(count: int, folder: Path) -> Cases:
    """Each time of so many runs on a new folder; the one that won is killed, and its folder is the next one's."""
    base, out = shared().base, folder / "out"
    data = write_tasks(folder / "tasks", "classify", range(2))
    words = ["metanlp", "train", "--data", data, "--model", base, "--steps", 100_000, "--out", out]
    runs = [in_turn.child([words], folder / "said" / str(number)) for number in range(count - 1)]
    won = goes_on(runs, out)
    for number, run in enumerate(runs):
        yield "" if run is won else lost(run, won, folder / "said" / str(number))
    if won is None:
        yield "none of them went on"
        return
    kill(won)
    (out / "metrics.jsonl").unlink()
    successor = in_turn.child([[*words, "--replace"]], folder / "next")
    yield "" if goes_on([successor], out) is successor else f"after a kill: {in_turn.ended(folder / 'next', 0)}"
    kill(successor)


def goes_on(runs: list[BaseProcess], out: Path) -> BaseProcess | None:
    """The run that is left when all others have ended, once it has taken a step."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        left = [run for run in runs if run.is_alive()]
        stepped = (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").stat().st_size > 0
        if not left or (len(left) == 1 and stepped):
            return left[0] if left else None
        time.sleep(0.05)
    for run in runs:
        kill(run)
    return None


def lost(run: BaseProcess, won: BaseProcess | None, said: Path) -> str:
    if run.is_alive():
        return "a second one went on"
    code, _, line = in_turn.ended(said, 0)
    fair = code == 2 and f"in use by process {won.pid if won else 0} on" in line and line.count("\n") == 1
    return "" if fair else f"exit code {code}, {line!r}"


def kill(run: BaseProcess) -> None:
    if run.is_alive():
        os.kill(run.pid or 0, signal.SIGKILL)
    run.join()
