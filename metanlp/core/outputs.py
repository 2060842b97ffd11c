"""Where a command writes. What is there already is replaced only where the user asks for it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from metanlp.core.errors import InputError
from metanlp.core.storage import disk, lock

CHECKPOINTS, LEAKAGE, METRICS = "checkpoints", "leakage.json", "metrics.jsonl"
RATE_SEARCH, RATE_RUNS = "rate_search.json", "rates"
CONFIG, RESULTS, LOCAL = "meta_config.json", "results.json", "local.json"
BEFORE = "before.json"  # what a test without adaptation found
OPTIONS, HELD_OUT = "options.json", "held_out.json"  # of a run of several stages, and what a test of one found
IN_TURN = "in turn"  # what results.json says of itself where tasks were held out in turn
CORPUS = "corpus"  # the texts of a pretraining, as tokens
OF_CORPUS = f"{CORPUS}/options.json"  # what made them; a folder of that name without it is the user's own
PRETRAINED = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
KINDS = {CONFIG: "a model", RESULTS: "results", CHECKPOINTS: "checkpoints"}
# A folder with one of these is ours; then so are all the others.
OURS = (CONFIG, RESULTS, LEAKAGE, METRICS)
MADE = (*OURS, CHECKPOINTS, RATE_SEARCH, RATE_RUNS, "adapter_config.json", "adapter_model.safetensors",
        "meta_model.safetensors", LOCAL, "report.html", "plots", "baselines", "trackers", CORPUS,
        OPTIONS, HELD_OUT, BEFORE, *PRETRAINED)  # fmt: skip


@dataclass(frozen=True)
class OutputFolder:
    """A folder that a command is to fill."""

    path: Path
    sources: tuple[str | Path, ...] = ()  # what the command reads; names that are no paths are passed over
    replace: bool = False  # what an earlier command left there may go
    resume: bool | None = None  # whether the run that is there goes on; None for commands that can't

    def check(self) -> None:
        """Raises InputError where the folder is or contains a source, or holds anything that is not to be replaced.
        Hidden files don't count, nor does `leakage.json`, which a run writes before it has learned anything."""
        _refuse_source(self.path, self.sources)
        if self.path.is_file():
            raise InputError(f"{self.path} is a file; give another --out, a folder")
        held = sorted(p.name for p in self.path.glob("*") if p.name[0] != "." and p.name != LEAKAGE)
        if not held or self.replace:
            return
        # Of leave-one-out, in the folders of its tasks; pretraining leaves its corpus, and domains of text one a pair.
        can_resume = any(self.path.rglob(LEAKAGE)) or (self.path / OF_CORPUS).is_file()
        can_resume = can_resume or any(path.is_dir() for path in self.path.glob(f"*+*/**/{CORPUS}"))
        if not (self.resume and can_resume):
            no_run = "there is no run to resume: " if self.resume else ""
            go_on = "go on with --resume, " if can_resume and self.resume is False else ""
            raise InputError(
                f"{self.path}: {no_run}it holds {_named(held)}; {go_on}give another --out, or --replace what is there"
            )

    def clear(self) -> None:
        """Remove what earlier commands left in the folder; the user's own files stay."""
        ours = any((self.path / name).is_file() for name in OURS)
        kept = () if (self.path / OF_CORPUS).is_file() else (CORPUS,)
        with disk(self.path):
            for made in (self.path / name for name in MADE if ours and name not in kept):
                if made.is_dir() and not made.is_symlink():
                    shutil.rmtree(made)
                else:
                    made.unlink(missing_ok=True)

    @contextmanager
    def claimed(self) -> Generator[None]:
        """Inside, nobody else writes there, and nothing of before is left. Raises InputError as `check`, or where a run
        holds the folder. A new folder is made by what is written into it."""
        with lock(self.path) if self.path.is_dir() else nullcontext():
            self.check()
            self.clear()
            yield


def check_file(path: Path, sources: Iterable[str | Path], *, replace: bool) -> None:
    """Raises InputError where `path` is or contains a source, or is there already and is not to be replaced."""
    _refuse_source(path, sources)
    if path.exists() and not replace:
        raise InputError(f"{path} is there already; give another --out, or --replace it")


def check_standard_output(sources: Iterable[str | Path]) -> None:
    """Raises InputError where a shell's `>` or `>>` sends standard output into a file that is read."""
    try:
        held = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):  # closed, or none of the operating system
        return
    for source in map(Path, sources):
        if source.is_file() and os.path.samestat(held, source.stat()):
            raise InputError(f"standard output goes into {source}, which is to be read; send it to another file")


def _refuse_source(out: Path, sources: Iterable[str | Path]) -> None:
    for source in map(Path, sources) if out.exists() else ():
        place = source.resolve()
        if source.exists() and any(out.samefile(part) for part in (place, *place.parents)):
            what = "is" if out.samefile(place) else "contains"
            raise InputError(f"--out {out} {what} {source}, which is read, and would replace it; give another --out")


def _named(held: list[str]) -> str:
    """What people know these files as; where there is none, the first of their names."""
    kinds = [kind for name, kind in KINDS.items() if name in held]
    more = f" and {len(held) - 3} more" if len(held) > 3 else ""
    return " and ".join(kinds) or ", ".join(held[:3]) + more
