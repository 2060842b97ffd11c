"""How far a piece of work is: a bar where somebody looks, a line a minute where a file or another program listens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import Any

from tqdm.auto import tqdm  # a bar of its own in notebooks

from metanlp.core.signals import speaks

EVERY = 60.0  # seconds between two lines
CHECKS = 20  # times between two lines that it is seen whether somebody spoke
LAYOUT = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


@dataclass
class Speech:
    """What was said in this process."""

    at: float = 0.0  # when, last
    open: int = 0  # pieces of work whose share is told
    part: str = ""  # of what larger work all that begins now is a part


SPEECH = Speech()


def watched() -> bool:
    """Whether somebody looks at standard error."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


@contextmanager
def at_work(name: str) -> Generator[None]:
    """Inside, where nobody looks, a line a minute also while no share of the work is known; a piece of work that tells
    its own is left another minute."""
    if not (sys.stderr and speaks()) or watched():
        yield
        return
    ended, begun = Event(), monotonic()

    def tell() -> None:
        while not ended.wait(EVERY / CHECKS):
            if monotonic() - SPEECH.at >= EVERY * (1 + (SPEECH.open > 0)):
                said_line(f"{name}: at work for {tqdm.format_interval(monotonic() - begun)}")

    SPEECH.at, telling = begun, Thread(target=tell, daemon=True)
    telling.start()
    try:
        yield
    finally:
        ended.set()
        telling.join()


@contextmanager
def part(name: str) -> Generator[None]:
    """Inside, the names of pieces of work begin with that of the larger one that they are a part of."""
    before, SPEECH.part = SPEECH.part, f"{SPEECH.part}{name}, "
    try:
        yield
    finally:
        SPEECH.part = before


def said_line(line: str) -> None:
    """A line on standard error, above a bar where there is one."""
    SPEECH.at = monotonic()
    tqdm.write(line, file=sys.stderr)


class Progress:
    """Share of a piece of work that is done, with the time that is left, on standard error.

    A bar in a terminal or a notebook, a line every `EVERY` seconds elsewhere; nothing where it is told to be `quiet`. A
    bar appears after `delay` seconds. A run that is resumed has `done` a share before."""

    def __init__(self, name: str, *, quiet: bool = False, delay: float = 0.0, done: float = 0.0) -> None:
        self._name, self._speaks = f"{SPEECH.part}{name}", not quiet and bool(sys.stderr)  # None where it is closed
        self._watched = self._speaks and watched()
        self._bar: Any = tqdm(
            total=1.0, initial=done, desc=self._name, bar_format=LAYOUT, disable=not self._watched, delay=delay
        )
        self._done = self._before = done
        self._begun = self._told = monotonic()

    def __enter__(self) -> Progress:
        SPEECH.open += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        SPEECH.open -= 1
        self._bar.close()

    def ticks(self, count: int) -> Callable[[], None]:
        """A function to call once for each of `count` equal pieces of work."""
        return lambda: self.show(min(1.0, self._done + 1 / count))

    def show(self, done: float, **figures: float | None) -> None:
        """`done` from 0 to 1; figures that are not numbers yet are left out."""
        known = {name: f"{value:.3f}" for name, value in figures.items() if value is not None and value >= 0}
        self._bar.set_postfix(known, refresh=False)
        self._bar.update(done - self._done)
        self._done = done
        if self._speaks and not self._watched and monotonic() - self._told >= EVERY:
            self._told = monotonic()
            self.note("; ".join(filter(None, [self._so_far(), ", ".join(map(" ".join, known.items()))])))

    def note(self, line: str) -> None:
        """A line, after the name of the work, whether somebody looks or not."""
        if self._speaks:
            said_line(f"{self._name}: {line}")

    def _so_far(self) -> str:
        """What is done, how long it took, and how long what is left will take at the pace so far."""
        spent, new = monotonic() - self._begun, self._done - self._before
        left = f", about {tqdm.format_interval(spent * (1 - self._done) / new)} left" if new > 0 else ""
        return f"{self._done:.0%} done after {tqdm.format_interval(spent)}{left}"
