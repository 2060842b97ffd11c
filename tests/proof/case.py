"""What a check is made of: cases, each of which comes out as "" or as what went wrong in it."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

Cases = Iterator[str]


class UnableError(Exception):
    """This machine has not what the cases need: what it is, in one line."""


def refused(work: Callable[[], object], kinds: type[Exception] | tuple[type[Exception], ...], *words: object) -> str:
    """ "" where `work` raises one of these errors, in one line with all of the words."""
    try:
        work()
    except kinds as error:
        said = str(error)
        missing = [str(word) for word in words if str(word) not in said]
        return f"{missing or 'a line break'} in {said!r}" if missing or "\n" in said else ""
    except Exception:
        return f"another error: {traceback.format_exc()}"
    return f"it was not refused: {words}"


def attempt(work: Callable[[], object]) -> str:
    """ "" where `work` comes to its end."""
    try:
        work()
    except Exception:
        return traceback.format_exc()
    return ""


def spread(total: int, parts: int) -> list[int]:
    """`total` in parts as equal as can be: (10, 3) -> [4, 3, 3]."""
    return [total // parts + (number < total % parts) for number in range(parts)]


def child(work: Callable[[], Any]) -> int:
    """The number of a process, forked from this one, that does `work` and ends with 0, or 1 after a traceback. What it
    says goes nowhere."""
    number = os.fork()
    if not number:
        code = 1
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            # A shell starts what is to run in its background deaf to Ctrl-C, and deaf it would stay.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            work()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        finally:
            os._exit(code)
    return number


def ended(number: int, seconds: float = 60.0) -> int:
    """The exit code of a child, or minus the signal that ended it; one that takes longer than `seconds` is killed."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.kill(number, signal.SIGKILL)
        time.sleep(0.002)


class Told:
    """A plugin of pytest that keeps what came of each test."""

    def __init__(self) -> None:
        self.cases = list[str]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.cases.append(f"{report.nodeid}: {report.longreprtext[-600:]}")
        elif report.when == "call" and report.passed:
            self.cases.append("")


def tests(*selection: str) -> Cases:
    """Tests that hold a law already, each a case, the slow ones among them; those that are skipped here are none."""
    told = Told()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        pytest.main([*selection, "-m", "slow or not slow", "-p", "no:cacheprovider"], plugins=[told])
    yield from told.cases


def content(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by their path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
