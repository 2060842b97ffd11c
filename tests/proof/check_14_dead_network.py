"""Every command that asks the Hub, on a network that is not there: one line, at once, and nothing hangs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import in_turn
from case import Cases
from form_tasks import write_tasks
from tiny_learner import shared

AT_ONCE, GIVEN_UP = 10.0, 40.0  # seconds for an unreachable Hub, and one that takes the call and says nothing
ROOT = Path(__file__).parents[2]


def cases(count: int, folder: Path) -> Cases:
    """Of 60: fifteen commands on four kinds of dead networks."""
    tiny = shared()
    tiny.trained(None).save(folder / "learner")
    data = write_tasks(folder / "tasks", "classify", range(2))
    commands = commands_of(tiny.base, data / "classify_0.jsonl", folder)
    each = -(-count // 4)
    with black_hole() as hole:
        networks = {
            "no such name": ({"HF_ENDPOINT": "http://hub.invalid"}, AT_ONCE),
            "refused": ({"HF_ENDPOINT": f"http://127.0.0.1:{closed_port()}"}, AT_ONCE),
            "offline": ({"HF_HUB_OFFLINE": "1"}, AT_ONCE),
            "black hole": ({"HF_ENDPOINT": f"http://127.0.0.1:{hole}"}, GIVEN_UP),
        }
        for name, (env, limit) in networks.items():
            yield from on(name, env, limit, commands[:each], folder / name.replace(" ", "_"))


def commands_of(base: Path, examples: Path, folder: Path) -> list[list[object]]:
    out, texts = folder / "out", folder / "texts.txt"
    texts.write_text("a text\n")
    here = folder / "learner"
    return [["metanlp", *words] for words in (
        ["tasks", "owner/rows"], ["info", "owner/learner"],
        ["adapt", "--from", "owner/learner", "--examples", examples, "--out", out],
        ["predict", "--from", "owner/adapted", texts], ["score", "--from", "owner/adapted", examples],
        ["train", "--data", "owner/rows", "--model", base, "--steps", "1", "--out", out],
        ["train", "--data", examples, "--model", "owner/model", "--steps", "1", "--out", out],
        ["train", "--data", examples, "--start", "owner/learner", "--steps", "1", "--out", out],
        ["compare", "--data", "owner/rows", "--out", out], ["compare", "--data", "glue", "--out", out],
        ["evaluate", "--from", "owner/learner", "--data", examples, "--out", out],
        ["publish", here, "owner/name"], ["export", "--from", "owner/adapted", "--out", out],
        ["serve", "--from", "owner/learner"],
        ["adapt", "--from", here, "--base", "owner/model", "--examples", examples, "--out", out],
    )]  # fmt: skip


def on(name: str, env: dict[str, str], limit: float, commands: list[list[object]], said: Path) -> Cases:
    """In one fresh process, as libraries read the environment when they are loaded."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "http", "HTTP"))}
    clean |= {"HF_HUB_OFFLINE": "0", "HF_HOME": str(said / "home"), "PYTHONPATH": str(ROOT), "HF_TOKEN": "hf_x"} | env
    said.mkdir()
    command = [sys.executable, "-c", CLOCKED, in_turn.told(commands), str(said)]
    subprocess.run(command, env=clean, cwd=ROOT / "tests", timeout=limit * len(commands) + 120, check=False)
    for number, words in enumerate(commands):
        place = said / f"{number}.0.json"
        if not place.exists():
            yield f"{name}: {words[1:4]} did not end"
            continue
        code, _, line = in_turn.ended(said, number)
        seconds = json.loads((said / "clock").read_text())[number]
        fair = code == 2 and line.count("\n") <= 1 and "Traceback" not in line and seconds < limit
        yield "" if fair else f"{name}: {words[1:4]}: exit code {code} after {seconds:.0f} s, {line[-300:]!r}"


# Runs the commands as in_turn.py does, and writes how long each took.
CLOCKED = """
import json, sys, time
from pathlib import Path
import in_turn
import metanlp.cli.commands, metanlp.experiment.run
commands, said, times, run = json.loads(sys.argv[1]), Path(sys.argv[2]), [], in_turn.run
def clocked(*words):
    begun = time.monotonic()
    try:
        run(*words)
    finally:
        times.append(time.monotonic() - begun)
        (said / "clock").write_text(json.dumps(times))
in_turn.run = clocked
in_turn.main(commands, said)
"""


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextmanager
def black_hole() -> Generator[int]:
    """A port that takes every call and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        held = list[socket.socket]()

        def take() -> None:
            try:
                while True:
                    held.append(server.accept()[0])
            except OSError:
                return

        threading.Thread(target=take, daemon=True).start()
        yield server.getsockname()[1]
        for each in held:
            each.close()
