"""How a command begins and ends: a recipe's values in, one clear line and an exit code out."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metanlp.config import parse
from metanlp.errors import EXIT_CODES, InputError, StoppedError
from metanlp.options import LEAVE_ONE_OUT, Experiment
from metanlp.signals import raise_when_terminated

if TYPE_CHECKING:
    from metanlp.meta_test import Report
    from metanlp.publish import Publication


@dataclass(frozen=True)
class Compare(Experiment):
    """Ask whether meta-learning helps on your tasks: train, test, compare with baselines."""

    max_minutes: float | None = None  # of meta-training; 5 where neither it nor --steps is given
    json: bool = False  # results.json on standard output too, everything else on standard error

    def run(self) -> dict[str, Any] | None:
        asked = {field.name: getattr(self, field.name) for field in fields(Experiment)}
        if self.steps is None and self.max_minutes is None:
            asked["max_minutes"] = 5.0
        found = carry_out(Experiment(**asked))
        return asdict(found) if found else None


def launch(defaults: Experiment) -> None:
    """What a recipe does: its values are the defaults of the command line."""
    asked = parse(Experiment, sys.argv[1:], default=defaults)
    guarded(lambda: carry_out(asked), "--resume")


def carry_out(asked: Experiment) -> Report | None:
    """The whole experiment; the report, on rank 0."""
    if asked.publish:
        from metanlp.hub import check_publishable

        check_publishable(asked.publish)  # before the hours, not after them
    if asked.test == LEAVE_ONE_OUT:
        from metanlp.leave_one_out import run as run_each

        if asked.publish:
            raise InputError(f"--test {LEAVE_ONE_OUT} leaves many learners; publish one by `metanlp publish`")
        return run_each(asked)
    from metanlp.experiment import run

    found = run(asked)
    if found and asked.publish:
        publish(asked.out, asked.publish)
    return found


def publish(folder: Path, repo_id: str, how: Publication | None = None) -> dict[str, object]:
    """Publish a folder, and say where it is."""
    from metanlp.publish import Publication, publish_folder

    chosen = how or Publication()
    url, new = publish_folder(folder, repo_id, chosen)
    seen = "private" if chosen.private else "public"
    print(f"{url}: {f'published, {seen}' if new else f'is there already, {seen}'}")
    return {"url": url, "private": chosen.private, "new": new}


def guarded(run: Callable[[], object], *to_go_on: str) -> None:
    """Run; a user's mistake, a damaged file or a full disk ends in one line and its exit code. What was told to stop
    names the command that goes on: the same, with the words `to_go_on`."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Idle threads of libgomp spin for milliseconds, which starves other processes on the same cores. A short spin is
    # nearly as quick alone, and beside another run as quick as none.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    raise_when_terminated()
    try:
        run()
        sys.stdout.flush()
    except tuple(EXIT_CODES) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind)))
    except BrokenPipeError:  # who reads our output has had enough; nothing more may go there, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt as stopped:
        if os.environ.get("RANK", "0") == "0":  # of many processes one speaks
            print(farewell(str(stopped), to_go_on), file=sys.stderr)
        sys.exit(128 + stopped.signal if isinstance(stopped, StoppedError) else 130)


def farewell(said: str, to_go_on: tuple[str, ...]) -> str:
    """Where it stopped, and the command line to go on with, which a shell takes as it stands."""
    words = [*sys.argv[1:], *(word for word in to_go_on if word not in sys.argv)]
    place = Path(sys.argv[0])
    start = ["metanlp"] if place.stem in ("metanlp", "__main__") else ["python", sys.argv[0]]
    launcher = ", with the launcher that you took" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
    return f"{said or 'stopped'}; to {'go on' if to_go_on else 'begin again'}{launcher}: {shlex.join([*start, *words])}"
