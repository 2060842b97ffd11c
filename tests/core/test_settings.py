"""Command lines and JSON: what goes out comes back, and what is wrong is named."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from metanlp.algorithms.inner import Inner
from metanlp.core.errors import InputError
from metanlp.core.settings import from_json, parse, to_json
from metanlp.episodes.sampling import Sampling


@dataclass(frozen=True)
class Search:
    """How settings are tried."""

    tries: int = 12  # how many settings
    rates: tuple[float, ...] = (0.1, 0.3)  # step sizes

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise InputError(f"tries is {self.tries}; it must be at least 1")


@dataclass(frozen=True)
class Plan:
    """A run."""

    steps: int  # number of meta-steps
    method: Literal["maml", "reptile"] = "maml"  # what learns
    minutes: float | None = None  # limit in minutes
    out: Path | None = None  # a folder
    shots: tuple[int, int] = (4, 8)  # fewest and most
    exact: bool = False  # add in order
    search: Search = Search()  # settings
    seen: dict[str, tuple[int, ...]] = field(default_factory=dict)  # steps by task
    by_shots: dict[int, float] = field(default_factory=dict)  # numbers by shots


FULL = Plan(7, "reptile", 1.5, Path("out"), (1, 2), True, Search(3, (0.5,)), {"a": (1, 2), "b": ()}, {4: 0.5})


@pytest.mark.parametrize("obj", [Plan(1), FULL, Inner(), Sampling()], ids=["default", "full", "inner", "sampling"])
def test_json_goes_out_and_comes_back(obj: Any) -> None:
    written = json.dumps(to_json(obj))
    assert from_json(type(obj), json.loads(written)) == obj


def test_tuples_are_lists_in_json() -> None:
    assert to_json(FULL)["seen"] == {"a": [1, 2], "b": []}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stepz": 3}, ["'stepz' is unknown", "'steps'"]),
        ({"search": {"tries": 3, "rates": [], "ratess": 1}}, ["'search.ratess' is unknown", "'rates'"]),
        ({"search": {"tries": 3}}, ["'search.rates' is missing"]),
        ({"search": {"tries": 0, "rates": []}}, ["search is {", "must be at least 1"]),
        ({"search": {"tries": "3", "rates": []}}, ["search.tries is '3'", "valid integer"]),
        ({"search": 5}, ["search is 5"]),
        ({"steps": 2.5}, ["steps is 2.5"]),
        ({"exact": 1}, ["exact is 1"]),
        ({"method": "mamll"}, ["method is 'mamll'", "'maml' or 'reptile'"]),
        ({"shots": [1]}, ["'shots.1' is missing"]),
        ({"shots": [1, 2, 3]}, ["shots is [1, 2, 3]"]),
        ({"seen": {"a": ["x"]}}, ["seen.a.0 is 'x'"]),
        ({"by_shots": {"four": 1.0}}, ["four"]),
    ],
)
def test_what_is_wrong_is_named_in_one_line(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        from_json(Plan, to_json(FULL) | change)
    message = str(caught.value)
    assert message.startswith("Plan: ")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("key", ["steps", "minutes", "search"])
def test_every_key_must_be_there(key: str) -> None:
    data = to_json(FULL)
    data[f"{key}_"] = data.pop(key)
    with pytest.raises(InputError, match=key):
        from_json(Plan, data)


@pytest.mark.parametrize("data", [None, [], 3, "text"])
def test_what_is_no_object_is_refused(data: Any) -> None:
    with pytest.raises(InputError, match="the whole"):
        from_json(Plan, data)


def test_a_command_line_sets_nested_fields() -> None:
    words = ["--steps", "7", "--method", "reptile", "--minutes", "1.5", "--out", "out", "--shots", "1", "2", "--exact"]
    words += ["--search.tries", "3", "--search.rates", "0.5", "--by-shots", "4", "0.5"]
    asked = parse(Plan, words, "run", "Runs.")
    assert asked == Plan(7, "reptile", 1.5, Path("out"), (1, 2), True, Search(3, (0.5,)), {}, {4: 0.5})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "1", "--search.triez", "3"], "--search.tries"),
        (["--steps", "1", "--method", "mamll"], "'maml'"),
        (["--steps", "one"], "--steps"),
        (["--steps", "1", "--search.tries", "0"], "must be at least 1"),
        ([], "--steps"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_says_why(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError) as caught:
        parse(Plan, words, "run", "Runs.")
    assert said in str(caught.value)
    assert "\x1b" not in str(caught.value), "colours belong on a terminal"
    assert capsys.readouterr() == ("", "")


def test_a_default_holds_what_the_words_leave_out() -> None:
    assert parse(Plan, ["--steps", "9"], default=FULL) == replace(FULL, steps=9)


def test_help_tells_the_sentence_of_each_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(Plan, ["--help"], "run", "Runs.")
    shown = capsys.readouterr().out
    assert caught.value.code == 0
    assert "number of meta-steps" in shown
    assert "\x1b" not in shown


def test_importing_config_loads_no_parser() -> None:
    code = "import sys, metanlp.core.settings; print([m for m in ('tyro', 'pydantic', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
