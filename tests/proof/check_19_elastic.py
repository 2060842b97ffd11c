"""One of two ranks is killed: both launchers start the processes again by themselves, which go on to the same θ, with
the flags that docs/reliability.md gives. Or the launcher is killed: its ranks end, and the next one goes on.

The first launches are commands, as a user types them. The others are the same launchers in processes forked from this
one, which have all libraries loaded, and which fork their ranks: only how a process begins is another."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from case import Cases, child, ended
from test_meta_train import SCRIPT, environment, here, read_ranks
from tiny_learner import shared

from metanlp.core.weights import equal

STEPS, FEW, PATIENCE, COMMANDS = 24, 10, 600.0, 4
AGAIN = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # without, the processes that come back meet keys of those before
RESTARTS = ["--max_restarts", "3", "--monitor_interval", "1"]
LAUNCHERS = {
    "torch.distributed.run": ["--standalone", "--nproc_per_node", "2", *RESTARTS],
    "accelerate.commands.launch": [
        "--multi_gpu", "--num_machines", "1", "--num_processes", "2", "--rdzv_backend", "c10d", "--main_process_ip",
        "127.0.0.1", "--main_process_port", "29644", "--mixed_precision", "no", "--dynamo_backend", "no", *RESTARTS,
    ],
}  # fmt: skip


def cases(count: int, folder: Path) -> Cases:
    """The two launchers in turn, two deaths of a rank and two of a launcher in turn; the moment is drawn."""
    base, chance, steps = shared().base, random.Random(0), STEPS if count > 1 else FEW
    script = folder / "script.py"
    script.write_text(SCRIPT)
    whole = here(base, folder / "whole" / "maml", steps)
    for number in range(count):
        name, into = list(LAUNCHERS)[number % 2], folder / str(number) / "maml"
        words = [*LAUNCHERS[name], *map(str, (script, 2, base, steps, into))]
        begin = commanded if number < COMMANDS < count else forking
        dies = a_launcher_dies if number % 4 > 1 else a_rank_dies
        said = dies(
            lambda begin=begin, name=name, words=words: begin(name, words), into, chance.randint(3, steps // 2), chance
        )
        same = not said and all(equal(whole, theta) for theta in read_ranks(into, 2))
        yield (said and f"{name}, {dies.__name__}: {said}") or ("" if same else f"{name}, {dies.__name__}: another θ")


def a_rank_dies(begin: Callable[[], None], into: Path, lines: int, chance: random.Random) -> str:
    launcher = child(begin)
    ranks = ranks_after(lines, launcher, into)
    chance.choice(ranks).kill()
    code = finished(launcher)
    return "" if code == 0 else f"exit code {code}"


def a_launcher_dies(begin: Callable[[], None], into: Path, lines: int, chance: random.Random) -> str:
    """Who starts it again at once finds its processes gone, or going."""
    launcher = child(begin)
    ranks = ranks_after(lines, launcher, into)
    os.kill(launcher, signal.SIGKILL)
    ended(launcher)
    if left := psutil.wait_procs(ranks, 60)[1]:
        for each in left:
            each.kill()
        return f"{len(left)} ranks outlive it by a minute"
    code = finished(child(begin))
    return "" if code == 0 else f"the next one: exit code {code}"


def commanded(module: str, words: list[str]) -> None:
    os.execve(sys.executable, [sys.executable, "-m", module, *words], environment() | AGAIN)


def forking(module: str, words: list[str]) -> None:
    """What the command does, in this process, which is the launcher."""
    import accelerate.commands.launch as accelerate
    import torch.distributed.run as torchrun

    launch: Any = torchrun.elastic_launch

    def elastic_launch(config: Any, entrypoint: object) -> Any:
        config.start_method = "fork"
        return launch(config, ranked)

    os.environ |= environment() | AGAIN
    torchrun.elastic_launch = elastic_launch  # pyright: ignore[reportAttributeAccessIssue]
    sys.argv = [module, *words]
    torchrun.main(words) if module == torchrun.__name__ else accelerate.main()


def ranked(*words: str) -> None:
    """The script, with the words that the launcher gives to Python, in a process forked from the launcher."""
    import torch
    from accelerate import PartialState

    PartialState._reset_state()
    torch.set_num_threads(1)
    sys.argv = [*words[next(at for at, word in enumerate(words) if word.endswith("script.py")) :]]
    exec(SCRIPT, {"__name__": "__main__"})


def ranks_after(lines: int, launcher: int, into: Path) -> list[psutil.Process]:
    """The processes of a launcher that run the script, when its log has so many lines."""
    log, until = into / "metrics.jsonl", time.monotonic() + PATIENCE
    while time.monotonic() < until and not (log.exists() and log.read_bytes().count(b"\n") >= lines):
        time.sleep(0.01)
    children = psutil.Process(launcher).children(recursive=True)
    return [each for each in children if not any("resource_tracker" in word for word in each.cmdline())]


def finished(launcher: int) -> int:
    """Its exit code; with one that takes too long its processes go, too."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and not os.waitid(os.P_PID, launcher, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.05)
    return ended(launcher, 0)
