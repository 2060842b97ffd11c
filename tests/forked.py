"""Processes forked from this one, which has its libraries loaded: servers, and ranks of a group that really talks, as a
launcher starts them. That torchrun and accelerate start such is tested in test_recipes.py and test_readme.py."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator

import torch

from metanlp.cli.launch import guarded


def served(serve: Callable[[int], None]) -> Iterator[str]:
    """For a fixture: the address of what `serve` answers on a port, in a process of its own; SIGTERM ends it as a
    command."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = multiprocessing.get_context("fork").Process(target=guarded, args=(lambda: serve(port),))
    process.start()
    yield f"http://127.0.0.1:{port}/"
    process.terminate()
    process.join(60)
    assert process.exitcode == 143


def endpoints(serve: Callable[[int], None]) -> Iterator[str]:
    """The same of endpoints, once they answer."""
    for address in served(serve):
        for _ in range(3000):
            try:
                urllib.request.urlopen(f"{address}healthz").close()
                break
            except OSError:
                time.sleep(0.02)
        yield address


def forked(size: int, script: str, *words: object) -> None:
    """Runs the source `script` as a program with these words on its command line, on each of `size` ranks; all have to
    end well."""
    assert exit_codes(size, script, *words) == [0] * size


def exit_codes(size: int, script: str, *words: object) -> list[int | None]:
    """The same, with whatever end: the code of each rank, or minus the signal that ended it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork, argv = multiprocessing.get_context("fork"), ["script.py", *map(str, words)]
    ranks = [fork.Process(target=_rank, args=(script, argv, number, size, port)) for number in range(size)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(600)
    ended = [rank.exitcode for rank in ranks]
    for rank in ranks:
        rank.kill()
    return ended


def _rank(script: str, argv: list[str], number: int, size: int, port: int) -> None:
    from accelerate import PartialState

    place = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ |= {key: str(value) for key, value in place.items()}
    # One thread, as launchers set it where nobody did; there may be fewer GPUs than ranks.
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    PartialState._reset_state()  # this process may have been alone in tests before
    torch.set_num_threads(1)
    sys.argv = argv
    exec(script, {"__name__": "__main__"})
