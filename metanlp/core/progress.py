"""How far a piece of work is: a bar where somebody looks, a line a minute where a file or another program listens."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Any

from tqdm.auto import tqdm  # a bar of its own in notebooks

EVERY = 60.0  # seconds between two lines
LAYOUT = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


class Progress:
    """Share of a piece of work that is done, with the time that is left, on standard error.

    A bar in a terminal or a notebook, a line every `EVERY` seconds elsewhere; nothing where it is told to be `quiet`. A
    bar appears after `delay` seconds. A run that is resumed has `done` a share before."""

    def __init__(self, name: str, *, quiet: bool = False, delay: float = 0.0, done: float = 0.0) -> None:
        self._name, self._speaks = name, not quiet and bool(sys.stderr)  # None where it is closed
        self._watched = self._speaks and (sys.stderr.isatty() or "ipykernel" in sys.modules)
        self._bar: Any = tqdm(
            total=1.0, initial=done, desc=name, bar_format=LAYOUT, disable=not self._watched, delay=delay
        )
        self._done = self._before = done
        self._begun = self._told = monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
            tqdm.write(f"{self._name}: {line}", file=sys.stderr)

    def _so_far(self) -> str:
        """What is done, how long it took, and how long what is left will take at the pace so far."""
        spent, new = monotonic() - self._begun, self._done - self._before
        left = f", about {tqdm.format_interval(spent * (1 - self._done) / new)} left" if new > 0 else ""
        return f"{self._done:.0%} done after {tqdm.format_interval(spent)}{left}"
