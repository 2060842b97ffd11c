"""Somebody's own process, which talks to the loopback Hub: it works off calls, and keeps all that it said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from git_hub import WRITE, GitHub

ROOT = Path(__file__).parents[1]
USER = "quillfeather"

# Works off one call a line of standard input: a module, a function of it, and what it is given; says what came of it.
WORKER = """
import importlib, json, os, sys, time
from pathlib import Path
def made(value):
    return list(value) if isinstance(value, tuple) else value
for line in sys.stdin:
    call = json.loads(line)
    os.environ.update(call["env"])
    begun = time.monotonic()
    try:
        module = importlib.import_module(call["module"])
        for name, value in call["set"].items():
            setattr(module, name, value)
        said = {"made": made(getattr(module, call["function"])(*call["given"], **call["named"]))}
    except BaseException as error:
        said = {"error": str(error), "kind": type(error).__name__}
    print("SAID" + json.dumps(said | {"seconds": time.monotonic() - begun}), flush=True)
"""


@dataclass
class Worker:
    """A process of somebody called `USER`, with a home of their own, and all that it has said."""

    process: subprocess.Popen[str]
    said: list[str]

    def call(self, function: str, *given: Any, env: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
        module, _, name = function.rpartition(".")
        limits = more.pop("limits", {})
        call = {"module": module, "function": name, "given": given, "named": more, "env": env or {}, "set": limits}
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(call) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith("SAID"):
                return json.loads(line[4:])
        raise AssertionError("".join(self.said))


@contextmanager
def worker(hub: GitHub, folder: Path, **env: str) -> Iterator[Worker]:
    home = folder / "home" / USER
    home.mkdir(parents=True, exist_ok=True)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    clean |= {"HOME": str(home), "USER": USER, "LOGNAME": USER, "HF_ENDPOINT": hub.url, "HF_TOKEN": WRITE}
    clean |= {"HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{folder}", **env}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", WORKER], stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True,
                          env=clean, cwd=folder) as process:  # fmt: skip
        made = Worker(process, [])
        yield made
        assert process.stdin
        assert process.stdout
        process.stdin.close()
        made.said += process.stdout.readlines()
