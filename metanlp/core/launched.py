"""What a launcher tells its processes, by their environment."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from metanlp.core.errors import InputError

LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")  # by these, launchers tell libraries of others
ELASTIC = "TORCHELASTIC_RUN_ID"  # what torchrun and accelerate, which builds on it, set
TIMEOUT = "METANLP_TIMEOUT"  # seconds that a process waits for an answer of the others; torch's half an hour without


def threads_each(environ: Mapping[str, str]) -> int | None:
    """The share of a process in the cores of its machine; None where OMP_NUM_THREADS says how many threads.

    Where nobody set it the launchers set it to 1, and a single process would use one core and say nothing; so a 1 under
    a launcher counts as not set.
    """
    from joblib import cpu_count

    launched = bool(environ.keys() & {"ACCELERATE_MIXED_PRECISION", ELASTIC})
    given = environ.get("OMP_NUM_THREADS")
    if given and not (launched and given == "1"):
        return None
    return max(1, cpu_count(only_physical_cores=True) // int(environ.get("LOCAL_WORLD_SIZE", "1")))


def timeout(environ: Mapping[str, str]) -> timedelta | None:
    """How long a process waits for the others; None where TIMEOUT does not say it. Raises InputError."""
    if not (given := environ.get(TIMEOUT)):
        return None
    try:
        found = timedelta(seconds=float(given))
    except (ValueError, OverflowError):
        found = timedelta()
    if found <= timedelta():
        raise InputError(f"{TIMEOUT} is {given!r}; give the seconds that a process waits for the others, above 0")
    return found


@contextmanager
def alone() -> Generator[None]:
    """In this block no library learns that there were other processes, and waits for them; after `Ranks.close`."""
    told = {name: os.environ.pop(name) for name in LAUNCHED if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(told)
