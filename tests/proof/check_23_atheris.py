"""Bytes made up by atheris, which is guided by the lines of metanlp that they reach: an error of ours or an answer.
Where atheris is not installed there is no case; check 7 needs hypothesis alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from case import Cases, UnableError

ENDINGS = (".jsonl", ".csv", ".json", ".tsv", ".txt", ".parquet")
SETTINGS, CONFIG = len(ENDINGS), len(ENDINGS) + 1  # what the first byte of a case asks for beside readers of files
LONGEST = 2_000  # bytes of a case

Read = Callable[[int, bytes], object]


def cases(count: int, folder: Path) -> Cases:
    """So many runs of one fuzzer, which begins at good files of every form, good settings and a good learner."""
    if not find_spec("atheris"):
        raise UnableError("pip install atheris")
    (folder / "corpus").mkdir()
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    words = [str(folder / "corpus"), f"-runs={count}", "-seed=1", f"-max_len={LONGEST}", "-verbosity=0"]
    ended = subprocess.run([sys.executable, __file__, str(folder), *words], env=env, capture_output=True, check=False)
    said = (folder / "said.jsonl").read_text().splitlines()
    yield from map(json.loads, said[:count])
    if ended.returncode or len(said) < count:
        yield f"exit code {ended.returncode} after {len(said)} runs: {ended.stderr[-500:]!r}"


def good() -> list[bytes]:
    """A case of each kind: the byte that names it, and what is to be read."""
    forms, fuzzing = import_module("form_tasks"), import_module("check_07_fuzzing")
    files = [fuzzing.as_lines(forms.rows_of(form, 6, 0)) for form in forms.FORMS]
    found = [bytes([at]) + data for data in files for at in (0, 2)]
    found += [bytes([at]) + b'text,label\n"a, b",x\n"c ""d""",y\ne,x\n'.replace(b",", mark) for at, mark in
              ((1, b","), (3, b"\t"), (4, b" "))]  # fmt: skip
    settings = import_module("metanlp.core.settings")
    return found + [bytes([SETTINGS]) + json.dumps(settings.to_json(each)).encode() for each in fuzzing.SETTINGS]


def readers(folder: Path) -> Read:
    """Reads a case by its first byte."""
    fuzzing = import_module("check_07_fuzzing")
    learner, _ = fuzzing.made(folder)
    file, config = fuzzing.read_file(folder), fuzzing.read_learner(folder, learner)
    (folder / "corpus" / "learner").write_bytes(bytes([CONFIG]) + (learner / "meta_config.json").read_bytes())

    def read(kind: int, data: bytes) -> object:
        if kind < SETTINGS:
            return file((ENDINGS[kind], data))
        try:
            tree = json.loads(data)
        except (ValueError, RecursionError):
            return None  # whose reader is tried by the files
        if kind == CONFIG:
            return config((0, tree))
        return [fuzzing.read_settings((number, tree)) for number in range(len(fuzzing.SETTINGS))]

    return read


def main(folder: Path, words: list[str]) -> None:
    atheris: Any = import_module("atheris")
    with atheris.instrument_imports(include=["metanlp"]):
        fuzzing = import_module("check_07_fuzzing")
    for number, case in enumerate(good()):
        (folder / "corpus" / str(number)).write_bytes(case)
    read, told = readers(folder), (folder / "said.jsonl").open("w", buffering=1)

    def one(data: bytes) -> None:
        said = ""
        try:
            read(data[0] % (CONFIG + 1) if data else 0, data[1:])
        except fuzzing.OURS as error:
            said = f"two lines: {error!r}" if "\n" in str(error) else ""
        except Exception as error:
            said = f"{type(error).__name__} {str(error)[:200]!r} of {data[:300]!r}"
        told.write(json.dumps(said) + "\n")

    atheris.Setup([sys.argv[0], *words], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
