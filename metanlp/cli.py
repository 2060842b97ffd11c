"""The command `metanlp`: what may be asked of it, a class a command. `Command` at the end is the list of them."""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro

from metanlp.config import completion, parse
from metanlp.errors import InputError
from metanlp.launch import Compare, guarded, publish
from metanlp.options import LEAVE_ONE_OUT, Experiment

NAME = "metanlp"
ABOUT = """Few-shot learners from many tasks.

Exit codes: 0 done; 2 bad input, configuration, or training that diverged; 3 damaged file; 4 storage failure;
130 and 143 stopped by SIGINT or SIGTERM, with a line that says how to go on."""
Said = dict[str, Any] | None
"""What `--json` prints; a command's `run` gives it, and prints its lines for people by itself."""


@dataclass(frozen=True, kw_only=True)
class ForPrograms:
    """A command that programs may read."""

    json: bool = False  # one JSON object on standard output, everything else on standard error


COMPARE = Compare(model="minilm", data=tyro.MISSING, test=LEAVE_ONE_OUT, lr=2e-3, out=Path("out/compare"))


@dataclass(frozen=True)
class Evaluate(ForPrograms):
    """Score saved learners, and the frozen encoder beside them, on held-out tasks."""

    source: Annotated[tuple[Path, ...], tyro.conf.arg(name="from")]  # folders of learners, or owner/name on the Hub
    test: tuple[str, ...]  # tasks: mini, leopard, folders, Hub's owner/name; a task's own support sets are used
    shots: tuple[int, ...] = (4, 8, 16)  # support rows a class
    episodes: int = 10  # support sets a task and shots, where it does not bring its own
    test_rows: int | None = None  # query rows a task at the most; all where it is not given
    drop_repeats: bool = False  # leave out query rows that stand in the support set too
    seed: int = 0  # of everything that is drawn
    base: str | None = None  # where the pretrained model is, if not at its public id
    columns: str = ""  # your files' names for our columns: text=body,label=intent; published sets have their own
    page: bool = True  # leave report.html and plots/, which takes a second or two
    out: Path = Path("out/evaluate")  # folder for results.json and report.html

    def run(self) -> Said:
        from metanlp.evaluation import evaluate
        from metanlp.exams import Protocol
        from metanlp.tasks.columns import parse_columns
        from metanlp.tasks.roles import read_role

        root = os.environ.get("METANLP_DATA")
        tasks = read_role(",".join(self.test), "test", Path(root) if root else None, parse_columns(self.columns))
        protocol = Protocol(self.shots, self.episodes, self.test_rows, self.drop_repeats, self.seed)
        return asdict(evaluate(self.source, tasks, protocol, self.out, base=self.base, page=self.page))


@dataclass(frozen=True)
class Adapt(ForPrograms):
    """Adapt a saved learner to a new task from a handful of labelled examples."""

    source: Annotated[Path, tyro.conf.arg(name="from")]  # folder of a learner, or owner/name on the Hub
    examples: Path  # JSONL, CSV or Parquet with text and label, or the columns of another form
    out: Path  # folder for the adapted model
    effort: Literal["fast", "recipe"] = "recipe"  # fast takes no gradient step
    base: str | None = None  # where the pretrained model is, if not at its public id
    columns: str = ""  # the file's names for our columns: text=body,label=intent

    def run(self) -> Said:
        from metanlp.checkpoint import lock
        from metanlp.learner import Learner
        from metanlp.tasks.columns import parse_columns
        from metanlp.tasks.files import read_task

        task = read_task(self.examples, columns=parse_columns(self.columns))
        learner = Learner.load(self.source, base=self.base)
        adapted = learner.adapt_to(task, effort=self.effort)
        with lock(self.out) if self.out.is_dir() else nullcontext():  # a run may be writing there
            adapted.save(self.out)
        of = f" of {', '.join(adapted.labels)}" if adapted.labels else ""
        count = len(task.pools["train"])
        print(f"{self.out}: adapted to {count} examples{of}")
        return {"out": str(self.out), "examples": count, "labels": list(adapted.labels), "form": adapted.form}


@dataclass(frozen=True)
class Predict:
    """Answer for new rows with an adapted model: one line a row, JSON or CSV."""

    source: Annotated[Path, tyro.conf.arg(name="from")]  # folder of an adapted model, or owner/name on the Hub
    texts: Annotated[Path | None, tyro.conf.Positional] = None  # lines of text, CSV or JSONL; else standard input
    out: Path | None = None  # .csv or .jsonl, in place of standard output
    format: Literal["csv", "jsonl"] = "jsonl"  # of standard output
    base: str | None = None  # where the pretrained model is, if not at its public id
    columns: str = ""  # the file's names for our columns: text=body; lines of text have none

    def run(self) -> None:
        from metanlp.answers import as_table
        from metanlp.artefact import located, read_config
        from metanlp.checkpoint import atomic_write
        from metanlp.learner import Adapted
        from metanlp.tasks.columns import parse_columns
        from metanlp.tasks.files import read_texts

        kind = self.out.suffix.lstrip(".") if self.out else self.format
        if kind not in ("csv", "jsonl"):
            raise InputError(f"--out {self.out}: predictions are written as .csv or .jsonl; give one of these endings")
        columns, folder = parse_columns(self.columns), located(self.source)
        said = read_config(folder, "adapted")
        if not self.texts and not sys.stdin:  # None where the shell closed it
            raise InputError("standard input is closed; name a file with the texts")
        rows = read_texts(self.texts or sys.stdin.buffer, columns=columns, labels=said["labels"], form=said["form"])
        adapted = Adapted.load(folder, base=self.base)
        text = as_table(rows, adapted.answers(rows), kind)
        if self.out:
            atomic_write(self.out, text.encode())
        else:
            print(text, end="")


@dataclass(frozen=True)
class Page(ForPrograms):
    """Make report.html and plots/ anew from what a run left in its folder."""

    folder: Annotated[Path, tyro.conf.Positional]  # with results.json, and metrics.jsonl where it trained

    def run(self) -> Said:
        from metanlp.report.page import write_page

        page = write_page(self.folder)
        print(page)
        return {"report": str(page)}


@dataclass(frozen=True)
class Publish(ForPrograms):
    """Publish a model on the Hub, with a card: one commit, private; the token is HF_TOKEN."""

    source: Annotated[Path, tyro.conf.arg(name="from")]  # folder of a run, a learner or an adapted model
    repo_id: Annotated[str, tyro.conf.Positional]  # owner/name
    public: bool = False  # for everybody, and not for its owner alone
    results: Path | None = None  # results.json of the learner, if it is not in the folder
    method: str | None = None  # the learner's name in it, if that is not its algorithm's
    licence: str | None = None  # of the weights, in the Hub's words: apache-2.0
    base_model: str | None = None  # public name of a pretrained model that came from a folder
    with_examples: Path | None = None  # a file with rows to publish; without, no row of any data set is

    def run(self) -> Said:
        from metanlp.publish import Publication

        how = Publication(not self.public, self.results, self.method, self.licence, self.base_model, self.with_examples)
        return publish(self.source, self.repo_id, how)


@dataclass(frozen=True)
class Export(ForPrograms):
    """Write an adapted model for other people's programs."""

    source: Annotated[Path, tyro.conf.arg(name="from")]  # folder of an adapted model, or owner/name on the Hub
    # One ONNX file; a plain peft adapter with its head; a folder for transformers' pipeline.
    to: Literal["onnx", "lora", "pipeline"]
    out: Path  # folder for it
    base: str | None = None  # where the pretrained model is, if not at its public id

    def run(self) -> Said:
        from metanlp.export import export
        from metanlp.learner import Adapted

        said = export(Adapted.load(self.source, base=self.base), self.to, self.out, base=self.base)
        print(f"{self.out}: exported to {self.to}{f'; {said}' if said else ''}")
        return {"out": str(self.out), "to": self.to, "note": said}


@dataclass(frozen=True)
class Tasks(ForPrograms):
    """Validate and describe tasks: a file, a folder, a data set of the Hub."""

    # A file, a task's folder, a folder of tasks, or owner/name of the Hub. An index that `tasks build` made is used,
    # and its files held against it.
    source: Annotated[str, tyro.conf.Positional]
    columns: str = ""  # the files' names for our columns: text=body,label=intent

    def run(self) -> Said:
        from metanlp import report
        from metanlp.tasks.columns import parse_columns
        from metanlp.tasks.index import check_unchanged
        from metanlp.tasks.taskset import describe, read

        tasks = read(self.source, data_root=None, columns=parse_columns(self.columns))
        check_unchanged(tasks)
        rows = describe(tasks)
        report.console().print(report.task_table(rows))
        return {"tasks": rows}


@dataclass(frozen=True)
class BuildTasks(ForPrograms):
    """Write an index into a folder of tasks, so that 100,000 of them open in seconds."""

    folder: Annotated[Path, tyro.conf.Positional]  # a folder of tasks; its index is .metanlp-index in it
    columns: str = ""  # the files' names for our columns: text=body,label=intent; the same then to open it

    def run(self) -> Said:
        from metanlp.progress import Progress
        from metanlp.tasks.columns import parse_columns
        from metanlp.tasks.indexing import build_index

        with Progress("index") as progress:
            built = build_index(self.folder, parse_columns(self.columns), progress.show)
        print(f"{self.folder}: indexed {built.tasks} tasks, {built.rows} rows, in {built.seconds:.1f} s")
        return {"folder": str(self.folder), **asdict(built)}


@dataclass(frozen=True)
class Serve:
    """A page to try a learner on: label a few texts, adapt, look at the answers and why, download the adapted model."""

    source: Annotated[Path, tyro.conf.arg(name="from")]  # folder of a learner or a run, or owner/name on the Hub
    host: str = "127.0.0.1"  # this machine alone; 0.0.0.0 is whoever can reach it
    port: int = 7860  # of the page
    base: str | None = None  # where the pretrained model is, if not at its public id
    columns: str = ""  # dropped files' names for our columns: text=body,label=intent

    def run(self) -> None:
        from importlib.util import find_spec

        from metanlp.serve.address import check_free
        from metanlp.tasks.columns import parse_columns

        if not find_spec("gradio"):
            raise InputError("the page is made by gradio, which is not installed; pip install 'metanlp[serve]'")
        columns = parse_columns(self.columns)
        check_free(self.host, self.port)
        from metanlp.learner import Learner

        learner = Learner.load(self.source, base=self.base)
        from metanlp.serve.page import serve  # seconds to import

        serve(learner, self.host, self.port, columns)


@dataclass(frozen=True)
class Info(ForPrograms):
    """Say what a folder holds and how to use it; without one, what is installed here."""

    source: Annotated[Path | None, tyro.conf.Positional] = None  # folder of a run or a model, or owner/name on the Hub

    def run(self) -> Said:
        from metanlp.info import lines, of_folder, of_machine

        found = of_folder(self.source) if self.source else of_machine()
        print("\n".join(lines(found)))
        return found


@dataclass(frozen=True)
class Completion:
    """Print the script by which a shell completes this command."""

    shell: Annotated[Literal["bash", "zsh"], tyro.conf.Positional]  # bash: source <(metanlp completion bash)

    def run(self) -> None:
        print(completion(COMMANDS, NAME, self.shell))


Command = (  # in the order of --help
    Annotated[Tasks, tyro.conf.subcommand("tasks")]
    | Annotated[BuildTasks, tyro.conf.subcommand("tasks build")]
    | Annotated[Compare, tyro.conf.subcommand("compare", default=COMPARE)]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Adapt, tyro.conf.subcommand("adapt")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
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
    if words[:2] == ["tasks", "build"]:  # one command; a folder of that name is ./build
        words = ["tasks build", *words[2:]]
    command = parse(COMMANDS, words, prog=NAME, description=ABOUT)
    guarded(lambda: answer(command), *(["--resume"] if isinstance(command, Experiment) else []))


def answer(command: Any) -> None:
    """Run it; with --json its lines for people are no part of standard output."""
    if not getattr(command, "json", False):
        command.run()
        return
    with redirect_stdout(sys.stderr):
        said: Said = command.run()
    if said is not None:  # of several processes one speaks
        print(json.dumps(said, ensure_ascii=False))
