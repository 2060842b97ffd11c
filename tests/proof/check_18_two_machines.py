"""Two machines, as two network namespaces: they learn what one process learns, also where the link between them is cut
for five seconds; cut for good, both end in one line in time, and go on to the same end. Namespaces need the rights of
root; without, there is no case."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from case import Cases, UnableError, child, ended
from test_meta_train import SCRIPT, environment, here, read_ranks
from tiny_learner import shared

from metanlp.core.weights import equal

ME, ADDRESS, PORT = os.getpid(), "10.77.5.1", 29611
NAMES = [f"metanlp-{ME}-{end}" for end in "ab"]
CUT, TIMEOUT, PATIENCE = 5.0, 30.0, 600.0  # seconds
LAUNCHER = 30.0  # seconds that a launcher may take to end after its process
METHODS, STEPS, LAUNCHES = ("maml", "multitask", "protonet"), 20, 5
SPARE = f"metanlp-{ME}"  # a namespace that tells whether there may be some
NEW_NETWORK = 0x40000000  # CLONE_NEWNET

LINE = "another process of this run is gone, or did not answer in time"
GUARDED = (
    SCRIPT.partition('if __name__ == "__main__":')[0]
    + """
import os
from metanlp.cli.launch import guarded


def work():
    ranks = Ranks.start(cpu=True)
    assert ranks.size == int(sys.argv[1])
    main(ranks, sys.argv[2], int(sys.argv[3]), sys.argv[4:])
    ranks.close()


sys.stderr = open(Path(sys.argv[4]).parent / f"said_{os.environ['RANK']}", "w")
guarded(work, "--resume")
"""
)

Machines = list[subprocess.Popen[bytes]]


def cases(count: int, folder: Path) -> Cases:
    """Runs of three methods and several seeds by processes that talk over the link, a case each; the last five are
    started by accelerate: one undisturbed, two with the link cut for a while, two with it cut for good."""
    if not shutil.which("ip") or subprocess.run(["ip", "netns", "add", SPARE], capture_output=True).returncode:
        raise UnableError("network namespaces need root and iproute2")
    subprocess.run(["ip", "netns", "del", SPARE], check=True)
    launches = max(0, min(LAUNCHES, count - 1))
    with two_machines():
        yield from compared(count - launches, folder)
        (folder / "script.py").write_text(GUARDED)
        for number in range(launches):
            place = folder / f"launch_{number}"
            alone = here(shared().base, place / "one" / f"maml.{number}", STEPS)
            into = place / f"maml.{number}"
            said = (undisturbed, cut_for_a_while, cut_for_good)[-(-number // 2)](folder / "script.py", into)
            same = not said and all(equal(alone, theta) for theta in read_ranks(into, len(NAMES)))
            yield said or ("" if same else f"launch {number} ends with another θ")


def compared(count: int, folder: Path) -> Cases:
    """Ranks forked from this process, one in each namespace: as quick as those of one machine."""
    base = shared().base
    names = [f"{METHODS[number % len(METHODS)]}.{number // len(METHODS)}" for number in range(count)]
    into = [folder / "two" / name for name in names]
    ranks = [child(lambda rank=rank: talking(rank, base, into)) for rank in range(len(NAMES))]
    codes = [ended(rank, PATIENCE) for rank in ranks]
    for name in names:
        if any(codes):
            yield f"{name}: exit codes {codes}"
            continue
        alone = here(base, folder / "one" / name, 3)
        same = all(equal(alone, theta) for theta in read_ranks(folder / "two" / name, len(NAMES)))
        yield "" if same else f"{name}: two machines learn another θ"


def talking(rank: int, base: Path, into: list[Path]) -> None:
    """This process, as rank `rank` in its namespace."""
    import torch
    from accelerate import PartialState

    PartialState._reset_state()  # of the process that this one was forked from, which is a run alone
    with open(f"/run/netns/{NAMES[rank]}") as network:
        if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "setns")
    place = {"RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": PORT}
    os.environ |= {key: str(value) for key, value in place.items()}
    os.environ |= {"MASTER_ADDR": ADDRESS, "GLOO_SOCKET_IFNAME": device(rank), "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    sys.argv = ["script.py", "2", str(base), "3", *map(str, into)]
    exec(SCRIPT, {"__name__": "__main__"})


@contextmanager
def two_machines() -> Generator[None]:
    for words in (
        *(f"netns add {name}" for name in NAMES), f"link add {device(0)} type veth peer name {device(1)}",
        *(f"link set {device(rank)} netns {name}" for rank, name in enumerate(NAMES)),
        *(f"-n {name} addr add 10.77.5.{rank + 1}/24 dev {device(rank)}" for rank, name in enumerate(NAMES)),
        *(f"-n {name} link set {each} up" for rank, name in enumerate(NAMES) for each in (device(rank), "lo")),
    ):  # fmt: skip
        subprocess.run(["ip", *words.split()], check=True)
    try:
        yield
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], check=False)


def device(rank: int) -> str:
    return f"mv{ME}{'ab'[rank]}"  # at most 15 letters


def undisturbed(script: Path, into: Path) -> str:
    return launched(script, into)


def cut_for_a_while(script: Path, into: Path) -> str:
    def cut(_: Machines) -> None:
        link("down")
        time.sleep(CUT)
        link("up")

    return launched(script, into, cut)


def cut_for_good(script: Path, into: Path) -> str:
    """Both machines end in one line within the time that was set. When the link is there again, they go on."""
    began = list[float]()

    def cut(machines: Machines) -> None:
        link("down")
        began.append(time.monotonic())
        for machine in machines:
            machine.wait(PATIENCE)
        began.append(time.monotonic())
        link("up")

    said = launched(script, into, cut, codes=[1, 1])
    took = began[1] - began[0]
    print(f"  cut for good, METANLP_TIMEOUT={TIMEOUT:g}: both launchers are over after {took:.0f} s")
    lines = [(into.parent / f"said_{rank}").read_text() for rank in range(len(NAMES))]
    if said or took > TIMEOUT + LAUNCHER or any(each.count("\n") != 1 or LINE not in each for each in lines):
        return f"cut for good: {said or lines}, {took:.0f} s"
    return launched(script, into)


def launched(
    script: Path, into: Path, disturb: Callable[[Machines], None] = lambda _: None, codes: Sequence[int] = (0, 0)
) -> str:
    """What is wrong with the exit codes of the two machines; `disturb` comes after the first step."""
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "2", "--num_processes", "2",
              "--main_process_ip", ADDRESS, "--main_process_port", str(PORT), "--mixed_precision", "no",
              "--dynamo_backend", "no"]  # fmt: skip
    machines = list[subprocess.Popen[bytes]]()
    for rank, name in enumerate(NAMES):
        env = environment() | {"GLOO_SOCKET_IFNAME": device(rank), "METANLP_TIMEOUT": f"{TIMEOUT:g}"}
        command = ["ip", "netns", "exec", name, sys.executable, *launch, "--machine_rank", str(rank), str(script), "2",
                   str(shared().base), str(STEPS), str(into)]  # fmt: skip
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        machines.append(subprocess.Popen(command, env=env, **quiet))
    wait_for(into / "metrics.jsonl", machines)
    try:
        disturb(machines)
        found = [machine.wait(PATIENCE) for machine in machines]
    except subprocess.TimeoutExpired:
        found = [machine.kill() or -9 for machine in machines]
    return "" if found == [*codes] else f"exit codes {found}"


def link(way: str) -> None:
    subprocess.run(["ip", "-n", NAMES[0], "link", "set", device(0), way], check=True)


def wait_for(path: Path, machines: Machines) -> None:
    """Until the file has something, or a machine ended."""
    while not (path.exists() and path.stat().st_size) and all(machine.poll() is None for machine in machines):
        time.sleep(0.01)
