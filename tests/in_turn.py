"""Commands in turn in one process of their own, as starting one costs more than what is asked of it.

python in_turn.py '[["metanlp", "tasks", "a"], ["python", "recipe.py", "--steps", "1"]]' FOLDER
"""

from __future__ import annotations

import io
import json
import os
import runpy
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

Ended = tuple[Any, str, str]


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


def start(commands: Sequence[Sequence[object]], folder: Path, *launcher: str) -> list[str]:
    """The command line of a process, or of a launcher's, that runs them; `ended` reads from `folder`."""
    told = json.dumps([[*map(str, words)] for words in commands])
    return [sys.executable, *launcher, __file__, told, str(folder)]


def ended(folder: Path, number: int, rank: int = 0) -> Ended:
    """Exit code, standard output and standard error of a command, on one of the launcher's processes."""
    code, out, said = json.loads((folder / f"{number}.{rank}.json").read_text())
    return code, out, said


def main(commands: Sequence[Sequence[str]], folder: Path) -> None:
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
