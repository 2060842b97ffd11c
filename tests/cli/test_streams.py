"""Standard output and error that can't take what is said: no traceback, and the exit codes that are documented."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import metanlp

ROOT = Path(next(iter(metanlp.__path__))).parent
CSV = "text,label\nfine 👍,good\nlovely,good\nno way,bad\nawful 👎,bad\n"
HELP = ["metanlp", "--help"]
RECIPE = [str(ROOT / "recipes" / "custom_tasks.py"), "--help"]
FULL = "could not be written: No space left on device\n"
CLOSED = "could not be written: Bad file descriptor\n"


def ended(words: list[str], redirected: str = "", **environ: str) -> tuple[int, str, str]:
    """Code, standard output and standard error of a command whose streams a shell redirects."""
    start = ["-c", "from metanlp.cli.commands import main; main()"] if words[0] == "metanlp" else [words[0]]
    command = [sys.executable, *start, *words[1:]]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environ}
    ran = subprocess.run(["bash", "-c", f'"$@" {redirected}', "-", *command], env=env, capture_output=True, timeout=120)
    return ran.returncode, ran.stdout.decode("latin-1"), ran.stderr.decode("latin-1")


@pytest.mark.parametrize("words", [HELP, RECIPE, ["metanlp", "completion", "bash"]], ids=["help", "recipe", "print"])
def test_full_and_closed_standard_output_is_code_4(words: list[str]) -> None:
    assert ended(words, "> /dev/full") == (4, "", f"standard output {FULL}")
    assert ended(words, ">&-") == (4, "", f"standard output {CLOSED}")
    assert ended(words, ">&- 2>&-") == (4, "", "")


def test_a_reader_that_has_had_enough_ends_it_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)  # as `head -1` does when it has its line
    command = [sys.executable, "-c", "from metanlp.cli.commands import main; main()", "export", "--help"]
    with os.fdopen(writer) as stream:
        ran = subprocess.run(command, stdout=stream, stderr=subprocess.PIPE, timeout=120)
    assert (ran.returncode, ran.stderr) == (141, b"")


def test_standard_error_that_takes_nothing_changes_no_code() -> None:
    for redirected in ("2> /dev/full", "2>&-"):
        assert ended(["metanlp", "nonsense"], redirected) == (2, "", "")
        assert ended(["metanlp", "completion", "bash"], redirected)[0] == 0


def test_what_an_encoding_lacks_is_escaped(tmp_path: Path) -> None:
    """Tables too, of which frames become plain; and JSON stays JSON."""
    name = "müde 👍.csv"
    (tmp_path / name).write_text(CSV, encoding="utf-8")
    words = ["metanlp", "tasks", str(tmp_path / name)]
    code, out, said = ended(words, PYTHONIOENCODING="cp1252")
    assert (code, said) == (0, "")
    assert "müde \\ud83d\\udc4d" in out
    code, out, _ = ended([*words, "--json"], PYTHONIOENCODING="cp1252")
    assert (code, json.loads(out)["tasks"][0]["task"]) == (0, "müde 👍")
