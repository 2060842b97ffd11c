"""Frozen dataclasses as command lines and as JSON. tyro and pydantic parse; both are imported when needed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeVar, cast

from metanlp.core.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import ValidationError

T = TypeVar("T")


def parse(
    cls: type[T],
    argv: Sequence[str],
    prog: str | None = None,
    description: str | None = None,
    *,
    default: T | None = None,
) -> T:
    """An instance of the frozen dataclass `cls` from the words of a command line; `default` holds the values of what
    they leave out.

    Ends the process with code 0 after `--help`. Raises InputError for words that it does not understand, naming the
    nearest option that exists.
    """
    import tyro

    def ask(words: Sequence[str]) -> T:
        given: dict[str, Any] = {} if default is None else {"default": default}
        return tyro.cli(cls, args=list(words), prog=prog, description=description, **given)

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return ask(argv)
    except SystemExit as ended:
        if ended.code:
            # One line, also where a word that was given holds several.
            raise InputError(" ".join((_misspelt(argv, ask) or _unboxed(said.getvalue())).split())) from None
        raise


def completion(cls: type[T], prog: str, shell: str) -> str:
    """The script by which `shell` completes the words of `prog`."""
    import tyro

    with contextlib.redirect_stdout(io.StringIO()) as script, contextlib.suppress(SystemExit):
        tyro.cli(cls, args=["--tyro-print-completion", shell], prog=prog)
    return script.getvalue()


def _misspelt(argv: Sequence[str], ask: Callable[[Sequence[str]], object]) -> str:
    """The first option that there is not, and the nearest that there is. Only what stands under --help is known, as
    tyro complains of a value that is missing before it complains of an option that it does not know."""
    command = [*takewhile(lambda word: not word.startswith("-"), argv[:1])]
    with contextlib.redirect_stdout(io.StringIO()) as page, contextlib.suppress(SystemExit):
        ask([*command, "--help"])
    usage = page.getvalue().partition("\n")[0]
    if command and f" {command[0]} " not in usage:  # nobody can say what options it would have
        commands = re.findall(r"\{(.+)\}$", usage)
        near = _nearest(command[0], commands[0].split(",")) if commands else ""
        return near and f"there is no command {command[0]}; the nearest one is {near}"
    columns = re.findall(r"^. (-\S+(?: \S+)*)", page.getvalue(), flags=re.MULTILINE)
    known = {option for column in columns for option in re.findall(r"--?[a-z][\w.-]*", column)}
    given = (word.partition("=")[0] for word in argv if re.match(r"--?[A-Za-z]", word))
    wrong = next((name for name in given if name.replace("_", "-") not in known), "") if known else ""
    return wrong and f"option {wrong} is not known; the nearest one is {_nearest(wrong, sorted(known))}"


def _unboxed(panel: str) -> str:
    """What tyro says in a box, as one line."""
    lines = [line.strip(" │╭╮╰╯") for line in panel.splitlines()[1:]]  # without the box's title
    inside = [";" if line and not line.strip("─") else line for line in lines]
    return " ".join(" ".join(inside).split()).replace(" ;", ";").strip("; ")


def to_json(obj: DataclassInstance) -> dict[str, Any]:
    """The fields as what JSON can hold: tuples become lists, paths and keys strings."""
    return json.loads(json.dumps(asdict(obj), default=os.fspath))


def from_json(cls: type[T], data: dict[str, Any], *, whole: bool = True) -> T:
    """The instance of the frozen dataclass `cls` for which `to_json` gave `data`: every field is there, nothing else
    is, and "3" is not 3. Without `whole`, a field that is not there has its default. Raises InputError naming the key.
    """
    import pydantic

    try:
        made = pydantic.TypeAdapter(cls).validate_json(json.dumps(data), strict=True)
    except pydantic.ValidationError as problem:
        raise InputError(f"{cls.__name__}: {_reason(problem)}") from None
    # pydantic fills in defaults and drops keys that it does not know; what it made shows both.
    given, known = flat(data), flat(to_json(cast("DataclassInstance", made)))
    for key in sorted(given.keys() - known.keys()):
        near = _nearest(key, known).rpartition(".")[2]
        raise InputError(f"{cls.__name__}: the key {key!r} is unknown; the nearest known one is {near!r}")
    for key in sorted(known.keys() - given.keys() if whole else ()):
        raise InputError(f"{cls.__name__}: the key {key!r} is missing; `to_json` writes every key")
    return made


def require_same(place: object, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises InputError, naming the first key, where what a run is asked `now` is not what `place` was made with."""
    before, now = flat(before), flat(now)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise InputError(
                f"{place} was made with {key} = {before.get(key)}, now it is {now.get(key)}; resume with the same "
                "settings, or take another --out"
            )


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The leaves by their path: {"plan": {"lr": 1}} -> {"plan.lr": 1}."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, dict) and value else {f"{above}{key}": value}
    return found


def _reason(problem: ValidationError) -> str:
    """The first of pydantic's complaints in one line."""
    first = problem.errors()[0]
    key, given = ".".join(str(part) for part in first["loc"]), first["input"]
    if first["type"] == "missing":
        near = f"; the nearest one given is {_nearest(key.split('.')[-1], given)!r}" if isinstance(given, dict) else ""
        return f"the key {key!r} is missing{near}"
    # A complaint of ours comes wrapped in one of pydantic's.
    said = str(first.get("ctx", {}).get("error", first["msg"]))
    return " ".join(f"{key or 'the whole'} is {reprlib.repr(given)}: {said}".split())


def _nearest(key: str, names: Iterable[str]) -> str:
    return next(iter(get_close_matches(key, list(names), n=1, cutoff=0.0)), "none")
