"""A progress bar that says nothing where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm


class Progress:
    """Share of a run with time left; quiet when standard error is no terminal, or when told so."""

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        self._bar = tqdm(total=1.0, desc=name, bar_format=layout, disable=quiet or not sys.stderr.isatty(), leave=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def ticks(self, count: int) -> Callable[[], None]:
        """A function to call once for each of `count` equal pieces of work."""
        return lambda: self.show(min(1.0, self._bar.n + 1 / count))

    def show(self, done: float, **figures: float | None) -> None:
        """`done` from 0 to 1; figures that are not numbers yet are left out."""
        known = {name: f"{value:.3f}" for name, value in figures.items() if value is not None and value >= 0}
        self._bar.set_postfix(known, refresh=False)
        self._bar.update(done - self._bar.n)
