"""What can go wrong that is not a bug, and the exit code of each. A message is one line."""

from __future__ import annotations


class InputError(ValueError):
    """The user's input is at fault: what came, what was allowed, what to do. Exit code 2."""


class DivergedError(ArithmeticError):
    """Training gave no finite number for too long; the last good weights are kept. Exit code 2."""


class DamagedError(RuntimeError):
    """A file of ours is cut, altered or not what it says it is. Exit code 3."""


class StorageError(RuntimeError):
    """A file could not be written: no space, no permission. What was there before is untouched. Exit code 4."""


class StoppedError(KeyboardInterrupt):
    """Told to stop by a signal; what the run had is saved. Exit code 128 + the signal's number: 130 or 143."""

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal


EXIT_CODES: dict[type[Exception], int] = {InputError: 2, DivergedError: 2, DamagedError: 3, StorageError: 4}
