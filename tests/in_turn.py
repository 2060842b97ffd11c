"""Commands in turn, as starting a process costs more than what is asked of it.

The fixture `here` runs a command in the process of the tests; `forked` and `child` run some in processes forked from
it, which have its libraries loaded: ranks of a group, and what is sent signals. A fresh process runs them where
libraries read the environment when they are loaded:

python in_turn.py '[["metanlp", "tasks", "a"], ["python", "recipe.py", "--steps", "1"]]' FOLDER

That each command starts in a process of its own, and what launchers start, is tested in test_cli.py and test_readme.py.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

Ended = tuple[Any, str, str]
Commands = Sequence[Sequence[object]]


def run(start: str, *words: str) -> None:
    """`metanlp …` or `python recipe.py …`, here."""
    sys.argv = [*words] if start == "python" else [start, *words]
    if start == "python":
        beside = str(Path(words[0]).resolve().parent)  # as Python has it, for what a recipe imports from there
        sys.path.insert(0, beside)
        try:
            runpy.run_path(words[0], run_name="__main__")
        finally:
            sys.path.remove(beside)
    else:
        from metanlp.cli.commands import main

        main()


def start(commands: Commands, folder: Path) -> list[str]:
    """The command line of a process that runs them; `ended` reads from `folder`."""
    return [sys.executable, __file__, told(commands), str(folder)]


def told(commands: Commands) -> str:
    return json.dumps([[*map(str, words)] for words in commands])


def forked(size: int, commands: Commands, folder: Path) -> None:
    """Runs them on each of `size` ranks."""
    import forked as fork  # torch

    fork.forked(size, Path(__file__).read_text(), told(commands), folder)


def child(commands: Commands, folder: Path) -> BaseProcess:
    """A process that runs them. Ctrl-C stops it as in a terminal, also where pytest may ignore that."""

    def work() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        main(json.loads(told(commands)), folder)

    made = multiprocessing.get_context("fork").Process(target=work)
    made.start()
    return made


def ended(folder: Path, number: int, rank: int = 0) -> Ended:
    """Exit code, standard output and standard error of a command, on one of the launcher's processes."""
    code, out, said = json.loads((folder / f"{number}.{rank}.json").read_text())
    return code, out, said


def main(commands: Sequence[Sequence[str]], folder: Path) -> None:
    """Without a network, if nothing else is said, and without data elsewhere."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.pop("METANLP_DATA", None)
    for number, words in enumerate(commands):
        code, out, said = 0, io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(said):
            try:
                run(*words)
            except SystemExit as end:
                code = end.code
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / f"{number}.{os.environ.get('RANK', '0')}.json"
        place.write_text(json.dumps([code, out.getvalue(), said.getvalue()]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
