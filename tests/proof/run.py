"""Runs the checks of docs/reliability.md at their full number, each in a process of its own:

python tests/proof/run.py [NUMBER] [--cases N]

Each prints `N passed, M failed` and leaves an entry in results.json; the exit code is 1 where something failed."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
SHOWN = 10  # failures that are printed
# Helpers lie beside the tests, and some tests are cases here.
sys.path[:0] = [str(HERE), str(HERE.parent), *(str(HERE.parent / room) for room in ("training", "share"))]


def main() -> int:
    asked = argparse.ArgumentParser()
    asked.add_argument("number", nargs="?", type=int)
    asked.add_argument("--cases", type=int, help="fewer or more than the full number")
    given = asked.parse_args()
    from checks import CHECKS

    if given.number is None:
        each = ([sys.executable, __file__, str(number)] for number in CHECKS)
        return max(subprocess.run(command, check=False).returncode for command in each)
    return one(given.number, given.cases)


def one(number: int, cases: int | None) -> int:
    """Run a check and write its entry."""
    from case import UnableError
    from checks import CHECKS

    check, begun, here = CHECKS[number], time.monotonic(), circumstances()
    wrong, passed = list[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            for said in importlib.import_module(check.module).cases(cases or check.full, Path(folder)):
                passed += not said
                wrong += [said] * bool(said)
                if said and len(wrong) <= SHOWN:
                    print(f"  {said}", flush=True)
        except UnableError as error:
            print(f"{number:2} {check.law}: skipped, {error}", flush=True)
            return False
    print(f"{number:2} {check.law}: {passed} passed, {len(wrong)} failed", flush=True)
    asked = {"full": check.full, "asked": cases or check.full}
    counts = asked | {"run": passed + len(wrong), "passed": passed, "failed": len(wrong)}
    keep(number, {"check": check.law, **counts, "seconds": round(time.monotonic() - begun), **here})
    return bool(wrong)


def keep(number: int, entry: dict[str, Any]) -> None:
    """Put the entry into results.json, whole or not at all; those of other checks stay."""
    from metanlp.core.storage import atomic_write

    entries = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    entries[str(number)] = entry
    ordered = {key: entries[key] for key in sorted(entries, key=int)}
    atomic_write(RESULTS, (json.dumps(ordered, indent=1, ensure_ascii=False) + "\n").encode())


def circumstances() -> dict[str, Any]:
    """When, of what, on what."""
    import torch

    from metanlp.core.versions import versions

    kernels = torch.backends.cpu.get_cpu_capability()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "processor": f"{platform.machine()}, {kernels} kernels, {torch.get_num_threads()} thread(s)",
        "versions": {"python": platform.python_version(), **versions()},
    }


def commit() -> str:
    """The commit that runs, `-dirty` where any other file than results.json was changed since."""

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(HERE), *words], capture_output=True, text=True, check=False)

    changed = git("diff", "--quiet", "HEAD", "--", ":/", f":(exclude){RESULTS.name}").returncode
    found = git("rev-parse", "--short=12", "HEAD").stdout.strip()
    return f"{found}{'-dirty' if changed else ''}" if found else "no git here"


if __name__ == "__main__":
    sys.exit(main())
