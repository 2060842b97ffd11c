"""The command `metanlp`: the list of its commands, which stand in the files beside this one."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro

from metanlp.cli.experiments import COMPARE, TRAIN, Compare, Evaluate, Page, Train
from metanlp.cli.help_page import WHOLE, asks_for_help, help_page
from metanlp.cli.launch import guarded
from metanlp.cli.models import Adapt, Join, Predict, Rank, Score
from metanlp.cli.options import Json, Printed
from metanlp.cli.serving import Serve
from metanlp.cli.sharing import Export, Publish
from metanlp.cli.tasks import BuildTasks, Tasks
from metanlp.core.progress import at_work
from metanlp.core.settings import completion, parse
from metanlp.core.versions import versions

NAME = "metanlp"
MANY = (["compare"], ["train"])  # commands with the options of an experiment
ABOUT = """Few-shot learners from many tasks.

Exit codes: 0 done; 1 another process of the run is gone; 2 bad input, configuration, training that diverged, or too
little memory; 3 damaged file; 4 storage failure; 130 and 143 stopped by SIGINT or SIGTERM, with a line that says how to
go on."""


@dataclass(frozen=True, kw_only=True)
class Info(Json):
    """Say what a folder holds and how to use it; without one, what is installed here."""

    source: Annotated[Path | None, tyro.conf.Positional] = None  # folder of a run or a model, or owner/name on the Hub

    def run(self) -> Printed:
        from metanlp.cli.info import lines, of_folder, of_machine

        found = of_folder(self.source) if self.source else of_machine()
        print("\n".join(lines(found)))
        return found


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Print the script by which a shell completes this command."""

    shell: Annotated[Literal["bash", "zsh"], tyro.conf.Positional]  # bash: source <(metanlp completion bash)

    def run(self) -> None:
        print(completion(COMMANDS, NAME, self.shell))


Command = (  # in the order of --help
    Annotated[Tasks, tyro.conf.subcommand("tasks")]
    | Annotated[BuildTasks, tyro.conf.subcommand("tasks build")]
    | Annotated[Train, tyro.conf.subcommand("train", default=TRAIN)]
    | Annotated[Compare, tyro.conf.subcommand("compare", default=COMPARE)]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Adapt, tyro.conf.subcommand("adapt")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Score, tyro.conf.subcommand("score")]
    | Annotated[Rank, tyro.conf.subcommand("rank")]
    | Annotated[Join, tyro.conf.subcommand("join")]
    | Annotated[Page, tyro.conf.subcommand("report")]
    | Annotated[Publish, tyro.conf.subcommand("publish")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Serve, tyro.conf.subcommand("serve")]
    | Annotated[Info, tyro.conf.subcommand("info")]
    | Annotated[Completion, tyro.conf.subcommand("completion")]
)
COMMANDS = cast("type[Any]", Command)


def main() -> None:
    """The console script."""
    words = sys.argv[1:]
    if words == ["--version"]:
        guarded(lambda: print(NAME, versions()["metanlp"]))
        return
    if words[:2] == ["tasks", "build"]:  # one command; a folder of that name is ./build
        words = ["tasks build", *words[2:]]
    if words[:1] in MANY and asks_for_help(words):
        more = "" if WHOLE in words else f"{NAME} {words[0]} --help {WHOLE}"
        guarded(lambda: print(help_page(lambda: parse(COMMANDS, [words[0], "--help"], prog=NAME), more)))
        return
    to_resume = ["--resume"] if words[:1] in MANY else []
    guarded(lambda: in_sight(parse(COMMANDS, words, prog=NAME, description=ABOUT), words[0]), *to_resume)


def in_sight(command: Any, name: str) -> None:
    """Run it, with a line now and then, but for a server, whose silence is no matter."""
    with nullcontext() if isinstance(command, Serve) else at_work(name):
        answer(command)


def answer(command: Any) -> None:
    """Run it; with --json its lines for people are no part of standard output."""
    if not getattr(command, "json", False):
        command.run()
        return
    with redirect_stdout(sys.stderr):
        said: Printed = command.run()
    if said is not None:  # of several processes one speaks
        print(json.dumps(said, ensure_ascii=False))
