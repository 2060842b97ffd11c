"""A command that is told to stop ends in one line and the signal's exit code, whatever it is doing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from metanlp.core.errors import StoppedError
from metanlp.core.signals import deferred, stoppable

ROOT = Path(__file__).parents[2]

# One start of a command, with a child forked from it before every 250th module that it imports, and some by name:
# the child is sent a signal there, and the parent goes on.
FORKING = """
import json, os, signal, sys

from metanlp.__main__ import main

NAMED = "tyro", "numpy", "torch", "torch.nn", "transformers"
seen, told = [], []


class Forking:
    def find_spec(self, name, *_):
        seen.append(name)
        if (len(seen) % 250 and name not in NAMED) or os.getpid() != parent:
            return None
        number = (signal.SIGTERM, signal.SIGINT)[len(told) % 2]
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.dup2(write, 2)
            os.close(write)
            os.kill(os.getpid(), number)
            return None
        os.close(write)
        with os.fdopen(read) as said:
            told.append([name, number, said.read(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])])


parent = os.getpid()
signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest may run where it is ignored
sys.meta_path.insert(0, Forking())
try:
    main()
finally:
    if os.getpid() == parent:
        print(json.dumps(told))
"""


def test_a_command_told_to_stop_while_it_imports_ends_in_one_line(tmp_path: Path) -> None:
    """`metanlp serve`, up to a learner that is not there."""
    words = ["serve", "--from", "none"]
    ended = subprocess.run(
        [sys.executable, "-c", FORKING, *words], capture_output=True, text=True, timeout=100, cwd=tmp_path, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    told = json.loads(ended.stdout)
    assert {"tyro", "torch", "transformers"} <= {name for name, *_ in told}
    for name, number, said, code in told:
        line = (
            f"stopped{' by SIGTERM' if number == signal.SIGTERM else ''}; to begin again: python -c serve --from none\n"
        )
        assert (name, code, said) == (name, 128 + number, line)


@contextmanager
def holding(given_back: list[str]) -> Iterator[None]:
    try:
        yield
    finally:
        given_back.append("lock")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_outside_of_imports_what_is_held_is_given_back(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    given_back: list[str] = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest may run where it is ignored
    try:
        with pytest.raises(SystemExit) as ended, stoppable("--resume"), holding(given_back):
            os.kill(os.getpid(), number)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (ended.value.code, given_back) == (128 + number, ["lock"])
    assert "; to go on: " in capsys.readouterr().err


class Plain:
    """May be given up."""


class Finalized:
    """Tells this process to stop while it is being given up."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)  # Python runs the handler between two instructions


def _and_go_on(give_up: Callable[[], object]) -> None:
    give_up()
    time.sleep(10)
    raise AssertionError("the signal was lost")


@pytest.mark.parametrize(
    "give_up", [Finalized, lambda: weakref.finalize(Plain(), os.kill, os.getpid(), signal.SIGTERM)]
)
def test_a_signal_that_comes_in_a_finalizer_is_not_lost(give_up: Callable[[], object]) -> None:
    """What is raised there Python prints and drops."""
    with pytest.raises(SystemExit) as ended, stoppable():
        _and_go_on(give_up)
    assert ended.value.code == 128 + signal.SIGTERM


def test_handlers_are_put_back_and_one_inside_another_is_asked_first() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stoppable():
        around = signal.getsignal(signal.SIGTERM)
        with deferred() as told:
            os.kill(os.getpid(), signal.SIGTERM)
            assert told() == signal.SIGTERM
            with pytest.raises(StoppedError):
                os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == around != before
    assert signal.getsignal(signal.SIGTERM) == before
