"""What a run does when it is told to stop: finish the step it is in, save, and say so."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from metanlp.errors import StoppedError

ASKS_TO_STOP = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def deferred() -> Generator[Callable[[], int]]:
    """Inside, the first SIGINT or SIGTERM is only noted: its number, or 0, is what the yielded function gives. A second
    one does what it would have done outside. A signal that is ignored, as SIGINT is in the background of a script,
    stays so. In a thread other than the main one signals stay as they are."""
    caught: list[int] = []
    if not _may_handle():
        yield lambda: 0
        return
    before = {number: signal.getsignal(number) for number in ASKS_TO_STOP if not _ignored(number)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        caught.append(number)
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: caught[0] if caught else 0
    finally:
        restore()


def raise_when_terminated() -> None:
    """SIGTERM from here on unwinds the program as Ctrl-C does, so that locks and temporary files are given back."""

    def stop(number: int, _: FrameType | None) -> None:
        raise StoppedError(number, "stopped by SIGTERM")

    if _may_handle() and not _ignored(signal.SIGTERM):
        signal.signal(signal.SIGTERM, stop)


def _may_handle() -> bool:
    """Python lets the main thread alone set a handler."""
    return threading.current_thread() is threading.main_thread()


def _ignored(number: signal.Signals) -> bool:
    return signal.getsignal(number) == signal.SIG_IGN
