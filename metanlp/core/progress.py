"""A progress bar that says nothing where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tqdm import tqdm


class Progress(tqdm):  # pyright: ignore[reportMissingTypeArgument]
    """Share of a run with time left; quiet when standard error is no terminal, or when told so."""

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        self._name, self._speaks = name, not quiet and bool(sys.stderr)  # None where it is closed
        quiet = not self._speaks or not sys.stderr.isatty()
        super().__init__(total=1.0, desc=name, bar_format=layout, disable=quiet, leave=True)

    def ticks(self, count: int) -> Callable[[], None]:
        """A function to call once for each of `count` equal pieces of work."""
        return lambda: self.show(min(1.0, self.n + 1 / count))

    def show(self, done: float, **figures: float | None) -> None:
        """`done` from 0 to 1; figures that are not numbers yet are left out."""
        known = {name: f"{value:.3f}" for name, value in figures.items() if value is not None and value >= 0}
        self.set_postfix(known, refresh=False)
        self.update(done - self.n)

    def note(self, line: str) -> None:
        """A line on standard error, after the name, also where that is no terminal."""
        if self._speaks:
            self.write(f"{self._name}: {line}", file=sys.stderr)
