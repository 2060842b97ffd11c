"""How a command begins and ends: its options, its streams, its exit code."""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

from metanlp.cli.help_page import asks_for_help, help_page
from metanlp.core.errors import EXIT_CODES, InputError, StorageError
from metanlp.core.progress import at_work
from metanlp.core.settings import parse
from metanlp.core.signals import stoppable
from metanlp.experiment.options import LEAVE_ONE_OUT, NOTHING, Experiment

MEMORY = (
    "there is not enough memory; what was saved before is whole. Lower --tasks-per-pass or --rank, add "
    "--gradient-checkpoint or --quantize (options of the recipes), give fewer or shorter texts, or a smaller --model"
)
LOST = (
    "another process of this run is gone, or did not answer in time; what was saved before is whole: start all of them "
    "again with --resume"
)

if TYPE_CHECKING:
    from metanlp.evaluation.results import Report
    from metanlp.share.publish import Publication

# What the operating system says where a file or stream takes nothing more.
NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EBADF)


def launch(defaults: Experiment) -> None:
    """Run a recipe: `defaults` are the values of the options that the command line leaves out."""

    def run() -> None:
        if asks_for_help(sys.argv[1:]):
            print(help_page(lambda: parse(Experiment, ["--help"], default=defaults)))
            return
        asked = parse(Experiment, sys.argv[1:], default=defaults)
        with at_work(Path(sys.argv[0]).stem):
            carry_out(asked)

    guarded(run, "--resume")


def carry_out(asked: Experiment) -> Report | None:
    """Train, test and, where asked, publish. Returns the report, on rank 0."""
    if asked.publish:
        from metanlp.core.hub import check_publishable

        check_publishable(asked.publish)  # before the hours, not after them
    if asked.test == LEAVE_ONE_OUT:
        from metanlp.experiment.leave_one_out import run as run_each

        if asked.publish:
            raise InputError(f"--test {LEAVE_ONE_OUT} leaves many learners; publish one by `metanlp publish`")
        return run_each(asked)
    if asked.test == NOTHING and asked.publish:
        raise InputError(f"--test {NOTHING} leaves a learner without results; publish it by `metanlp publish`")
    from metanlp.experiment.run import run

    found = run(asked)
    if found and asked.publish:
        publish(asked.out, asked.publish)
    return found


def publish(folder: Path, repo_id: str, how: Publication | None = None) -> dict[str, object]:
    """Publish a folder, and say where it is."""
    from metanlp.share.publish import Publication, publish_folder

    chosen = how or Publication()
    url, new = publish_folder(folder, repo_id, chosen)
    seen = "private" if chosen.private else "public"
    print(f"{url}: {f'published, {seen}' if new else f'is there already, {seen}'}")
    return {"url": url, "private": chosen.private, "new": new}


def guarded(run: Callable[[], object], *to_go_on: str) -> None:
    """Run a command. A user's mistake, a damaged file, a full disk and a signal end the process with one line on
    standard error and their exit code; `to_go_on` are the words by which a command that was stopped is resumed."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Idle threads of libgomp spin for milliseconds, which starves other processes on the same cores. A short spin is
    # nearly as quick alone, and beside another run as quick as none.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    prepare_streams()
    with stoppable(*to_go_on), ended_in_a_line():
        try:
            run()
        finally:
            sys.stdout.flush()  # here, as at the interpreter's exit it is too late to say what went wrong


@contextmanager
def ended_in_a_line() -> Generator[None]:
    """Inside, an error that a user can cause ends the process with one line and its exit code."""
    try:
        yield
    except tuple(EXIT_CODES) as error:
        end(next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), " ".join(str(error).split()))
    except BrokenPipeError:  # who reads our output has had enough
        discard(sys.stdout)
        end(141)
    except (MemoryError, RuntimeError) as error:
        if out_of_memory(error):
            end(EXIT_CODES[InputError], MEMORY)
        if not lost_process(error):
            raise
        end(1, LOST)
    except OSError as error:
        if error.errno not in NOT_WRITTEN:
            raise
        discard(sys.stdout)
        end(EXIT_CODES[StorageError], f"{error.filename or 'standard output'} could not be written: {error.strerror}")


def lost_process(error: Exception) -> bool:
    """Whether a sum over processes failed, as one of them is gone: gloo and NCCL say so by a RuntimeError."""
    words = ("gloo", "NCCL", "Connection closed by peer", "Timed out waiting")
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and any(word in str(error) for word in words)


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: torch says so on a GPU by a type of its own, on a CPU by a RuntimeError."""
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def end(code: int, said: str = "") -> NoReturn:
    """Leave the process with `code`, after the line `said` where standard error takes it."""
    try:
        print(said, end="\n" if said else "", file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)
    sys.exit(code)


def prepare_streams() -> None:
    """Make standard output and error take any text: a character that the encoding lacks is escaped as in JSON, so that
    JSON stays JSON. Where the shell closed standard output, writing to it fails as on a full disk."""
    codecs.register_error("json", escaped)
    if not sys.stdout:  # None where the shell closed it
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
    if not sys.stderr:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="json")


def escaped(error: UnicodeError) -> tuple[str, int]:
    """A handler of `codecs`: what can't be encoded as JSON escapes it, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def discard(stream: TextIO) -> None:
    """Send what a stream still holds nowhere: it would fail again at the interpreter's exit, and change its code."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
