"""How far a run is: a line now and then where nobody looks, a bar in a terminal, nothing where it is quiet."""

from __future__ import annotations

import io
import re
import sys
import time

import pytest

from metanlp.core import progress
from metanlp.core.progress import Progress, at_work, part

LINE = r"maml: 50% done after 00:00, about 00:00 left; loss 0.250, validation 0.750\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(name: str = "maml", *, pieces: int = 4, pause: float = 0.0, **options: bool | float) -> None:
    with Progress(name, **options) as shown:  # pyright: ignore[reportArgumentType]
        for number in range(1, pieces + 1):
            time.sleep(pause)
            shown.show(number / pieces, loss=0.25, validation=0.75)


def test_a_line_each_time_that_is_over(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    work()
    out, said = capsys.readouterr()
    assert out == ""
    assert len(said.splitlines()) == 4
    assert re.search(LINE, said)
    assert said.splitlines()[-1].startswith("maml: 100% done")


def test_no_more_lines_than_the_time_allows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work()
    assert capsys.readouterr().err == ""  # a minute is not over
    monkeypatch.setattr(progress, "EVERY", 0.1)
    work(pieces=25, pause=0.01)
    assert 1 <= len(capsys.readouterr().err.splitlines()) <= 4


def test_what_is_left_is_told_at_the_pace_of_this_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was resumed at the half did nothing of it now: a tenth took 0.1 s, so four tenths take 0.4 s."""
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(progress.tqdm, "format_interval", staticmethod("{:.1f} s".format))
    with Progress("maml", done=0.5) as shown:
        time.sleep(0.1)
        shown.show(0.6)
    assert capsys.readouterr().err == "maml: 60% done after 0.1 s, about 0.4 s left\n"


def test_a_part_of_a_larger_work_is_named_after_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with part("2 of 5"):
        work(pieces=1)
    work(pieces=1)
    inside, after = capsys.readouterr().err.splitlines()
    assert inside == f"2 of 5, {after}"
    assert after.startswith("maml: 100% done")


def test_notes_are_said_and_quiet_is_quiet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with Progress("maml") as loud, Progress("maml", quiet=True) as quiet:
        loud.note("all texts look alike")
        quiet.note("not this")
        quiet.show(0.5)
    assert capsys.readouterr().err == "maml: all texts look alike\n"
    monkeypatch.setattr(sys, "stderr", None)  # closed by the shell
    work()
    assert capsys.readouterr() == ("", "")


def test_work_of_no_known_share_is_told_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line each time that is over; a piece of work that tells its share is left time to say it."""
    monkeypatch.setattr(progress, "EVERY", 0.2)
    with at_work("export"):
        time.sleep(0.7)
    said = capsys.readouterr().err.splitlines()
    assert 2 <= len(said) <= 4
    assert {*said} == {"export: at work for 00:00"}
    with at_work("train"):
        work(pieces=40, pause=0.02)
    assert {line.split(":")[0] for line in capsys.readouterr().err.splitlines()} == {"maml"}
    with at_work("score"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "speaks", lambda: False)  # another process does
    with at_work("train"):
        time.sleep(0.3)
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    work(pause=0.03)
    drawn = sys.stderr.getvalue()  # pyright: ignore
    assert "maml 100%|" in drawn
    assert "loss=0.250, validation=0.750" in drawn
    assert "\n" not in drawn.rstrip("\n")
    monkeypatch.setattr(sys, "stderr", Terminal())
    work(delay=5.0)
    assert "maml" not in sys.stderr.getvalue()  # pyright: ignore
