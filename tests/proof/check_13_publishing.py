"""A publication that meets a fault at one of its requests: the Hub holds the old or the new, the next succeeds."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from case import Cases, attempt
from git_hub import GitHub
from hub_server import running
from hub_worker import worker
from test_hub_push import BUSY, REFUSED, REQUESTS, broken


def cases(count: int, folder: Path) -> Cases:
    """Every fault at every request: the first `count` of them."""
    for place in ("git", "stages"):
        (folder / place).mkdir()
    with running(GitHub(folder / "git")) as hub, worker(hub, folder / "pusher") as pusher:
        for number, fault in enumerate([*product(REQUESTS, (*BUSY, *REFUSED))][:count]):
            stage, name = folder / "stages" / str(number), f"lab/n{number}"
            said = attempt(lambda stage=stage, name=name, fault=fault: broken(hub, pusher, stage, name, [fault]))
            yield said and f"request {fault[0]}, {fault[1]}: {said[-300:]}"
