"""SIGINT and SIGTERM: a program ends in one line and its exit code, and a run first finishes its step and saves."""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from metanlp.core.errors import StoppedError

ASKS_TO_STOP = (signal.SIGINT, signal.SIGTERM)
PR_SET_PDEATHSIG = 1  # of prctl(2)
SOON = 0.01  # seconds until a signal comes again that came where no error can leave


@contextmanager
def deferred() -> Generator[Callable[[], int]]:
    """Inside, the first SIGINT or SIGTERM is only noted: the yielded function returns its number, or 0. A second one
    acts as outside. Ignored signals stay ignored, and threads other than the main one change nothing."""
    caught, before = list[int](), _handlers()

    def note(number: int, _: FrameType | None) -> None:
        caught.append(number)
        _handle(before)

    _handle(dict.fromkeys(before, note))
    try:
        yield lambda: caught[0] if caught else 0
    finally:
        _handle(before)


@contextmanager
def stoppable(*to_go_on: str) -> Generator[None]:
    """Inside, SIGINT and SIGTERM raise a StoppedError, so that the program cleans up and ends with exit code 130 or 143
    and a line with the command that goes on: this one and the words `to_go_on`. During an import the process ends at
    once, as libraries may swallow the error; in a finalizer, where Python drops it, the signal comes again."""
    before, around = _handlers(), _imports(sys._getframe())  # pyright: ignore[reportPrivateUsage]

    def stop(number: int, frame: FrameType | None) -> None:
        if _finalizes(frame):
            again = threading.Timer(SOON, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        error = StoppedError(number, "stopped" if number == signal.SIGINT else "stopped by SIGTERM")
        if _imports(frame) <= around:
            raise error
        with suppress(Exception):  # a flush that this signal interrupted refuses another
            sys.stdout.flush()
        os.write(2, f"{_farewell(error, to_go_on)}\n".encode() if speaks() else b"")
        os._exit(128 + number)

    _handle(dict.fromkeys(before, stop))
    try:
        yield
    except KeyboardInterrupt as stopped:
        if speaks():
            print(_farewell(stopped, to_go_on), file=sys.stderr)
        sys.exit(128 + stopped.signal if isinstance(stopped, StoppedError) else 130)
    finally:
        _handle(before)


def stop_with_launcher() -> None:
    """From now on this process gets a SIGTERM when the process that started it ends. The launchers of torch leave their
    processes behind when they are killed, and who starts them again then has two runs in one folder. On Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _farewell(stopped: KeyboardInterrupt, to_go_on: tuple[str, ...]) -> str:
    """Where it stopped, and the command line to go on with, which a shell takes as it stands."""
    launcher = ", with the launcher that you took" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
    next_step = f"to {'go on' if to_go_on else 'begin again'}{launcher}: {command_line(*to_go_on)}"
    return f"{str(stopped) or 'stopped'}; {next_step}"


def command_line(*more: str) -> str:
    """The command of this process and `more` words, as a shell takes it."""
    words = [*sys.argv[1:], *(word for word in more if word not in sys.argv)]
    name = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    start = ["metanlp"] if name in ("metanlp", "__main__") else ["python", sys.argv[0]]
    return shlex.join([*start, *words])


def speaks() -> bool:
    """Of many processes one prints."""
    return os.environ.get("RANK", "0") == "0"


def _imports(frame: FrameType | None) -> int:
    """How many frames of Python's import system are on the stack."""
    return sum(each.f_code.co_filename.startswith("<frozen importlib") for each in _stack(frame))


def _finalizes(frame: FrameType | None) -> bool:
    """Whether an object is being given up, by its `__del__` or a callback of `weakref`."""
    return any(
        each.f_code.co_name == "__del__" or each.f_code.co_filename == weakref.__file__ for each in _stack(frame)
    )


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    """The frame, and those that called it."""
    while frame:
        yield frame
        frame = frame.f_back


def _handlers() -> dict[signal.Signals, Any]:
    """What SIGINT and SIGTERM do now, where that may be changed: not where one is ignored, and in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {number: signal.getsignal(number) for number in ASKS_TO_STOP}
    return {number: handler for number, handler in found.items() if handler not in (signal.SIG_IGN, None)}


def _handle(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
