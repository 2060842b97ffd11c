"""One of two ranks is killed: both launchers start the processes again by themselves, which go on to the same θ, with
the flags that docs/reliability.md gives."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from case import Cases
from test_meta_train import SCRIPT, environment, here, read_ranks
from tiny_learner import shared

from metanlp.core.weights import equal

STEPS, PATIENCE = 40, 600.0
AGAIN = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # without, the processes that come back meet keys of those before
LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
    "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes", "2",
                   "--rdzv_backend", "c10d", "--main_process_ip", "127.0.0.1", "--main_process_port", "29644",
                   "--mixed_precision", "no", "--dynamo_backend", "no"],
}  # fmt: skip


def cases(count: int, folder: Path) -> Cases:
    """The two launchers in turn; the rank and the moment are drawn."""
    base, chance = shared().base, random.Random(0)
    (folder / "script.py").write_text(SCRIPT)
    whole = here(base, folder / "whole" / "maml", STEPS)
    for number in range(count):
        name, into = list(LAUNCHERS)[number % 2], folder / str(number) / "maml"
        code = killed_once(LAUNCHERS[name], [folder / "script.py", 2, base, STEPS, into], into, chance)
        same = code == 0 and all(equal(whole, theta) for theta in read_ranks(into, 2))
        yield "" if same else f"{name}: exit code {code}, or another θ"


def killed_once(launcher: list[str], script: list[object], into: Path, chance: random.Random) -> int:
    words = ["-m", *launcher, "--max_restarts", "3", "--monitor_interval", "1", *map(str, script)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, *words], env=environment() | AGAIN, **quiet) as run:
        log, lines, until = into / "metrics.jsonl", chance.randint(3, STEPS // 2), time.monotonic() + PATIENCE
        while run.poll() is None and time.monotonic() < until:
            if log.exists() and log.read_bytes().count(b"\n") >= lines:
                os.kill(chance.choice(ranks_of(run.pid)), signal.SIGKILL)
                break
            time.sleep(0.01)
        try:
            return run.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            for each in (*psutil.Process(run.pid).children(recursive=True), run):
                each.kill()
            return -9


def ranks_of(launcher: int) -> list[int]:
    """The processes that run the script."""
    children = psutil.Process(launcher).children(recursive=True)
    return [each.pid for each in children if any("script.py" in word for word in each.cmdline())]
