"""Two machines, as two network namespaces under accelerate: they learn what one process learns, also where the link
between them is cut for five seconds. Namespaces need the rights of root; without, there is no case, as a line says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from case import Cases
from test_meta_train import SCRIPT, environment, here, read_ranks
from tiny_learner import shared

from metanlp.core.weights import equal

NAMES, CUT, PATIENCE = ("metanlp-a", "metanlp-b"), 5.0, 600.0  # seconds
PORT = 29611


def cases(count: int, folder: Path) -> Cases:
    """Undisturbed, and with the link cut: each at two seeds, where four cases are asked for."""
    if os.geteuid() or not shutil.which("ip"):
        print("skipped: network namespaces need root and iproute2")
        return
    base = shared().base
    (folder / "script.py").write_text(SCRIPT)
    with two_machines():
        for number in range(count):
            name, steps, cut = f"maml.{number // 2}", 20, number % 2 == 1
            alone = here(base, folder / "one" / str(number) / name, steps)
            into = folder / str(number) / name
            code = together(folder / "script.py", base, steps, into, cut)
            same = code == [0, 0] and all(equal(alone, theta) for theta in read_ranks(into, 2))
            yield "" if same else f"seed {name}, link cut: {cut}: exit codes {code}, or another θ"


@contextmanager
def two_machines() -> Generator[None]:
    for words in (
        *(f"netns add {name}" for name in NAMES), "link add metanlp-va type veth peer name metanlp-vb",
        *(f"link set metanlp-v{end} netns metanlp-{end}" for end in "ab"),
        *(f"-n metanlp-{end} addr add 10.77.5.{n}/24 dev metanlp-v{end}" for n, end in enumerate("ab", start=1)),
        *(f"-n metanlp-{end} link set {device} up" for end in "ab" for device in (f"metanlp-v{end}", "lo")),
    ):  # fmt: skip
        subprocess.run(["ip", *words.split()], check=True)
    try:
        yield
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], check=False)


def together(script: Path, base: Path, steps: int, into: Path, cut: bool) -> list[int]:
    """Exit codes of the two machines."""
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "2", "--num_processes", "2",
              "--main_process_ip", "10.77.5.1", "--main_process_port", str(PORT), "--mixed_precision", "no",
              "--dynamo_backend", "no"]  # fmt: skip
    machines = list[subprocess.Popen[bytes]]()
    for rank, name in enumerate(NAMES):
        env = environment() | {"GLOO_SOCKET_IFNAME": f"metanlp-v{'ab'[rank]}"}
        command = ["ip", "netns", "exec", name, sys.executable, *launch, "--machine_rank", str(rank), str(script), "2",
                   str(base), str(steps), str(into)]  # fmt: skip
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        machines.append(subprocess.Popen(command, env=env, **quiet))
    if cut:
        wait_for(into / "metrics.jsonl")
        link("down")
        time.sleep(CUT)
        link("up")
    try:
        return [machine.wait(PATIENCE) for machine in machines]
    except subprocess.TimeoutExpired:
        return [machine.kill() or -9 for machine in machines]


def link(way: str) -> None:
    subprocess.run(["ip", "-n", NAMES[0], "link", "set", "metanlp-va", way], check=True)


def wait_for(path: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not (path.exists() and path.stat().st_size) and time.monotonic() < until:
        time.sleep(0.01)
