"""The command `metanlp`, and the door of every recipe: options in, one clear line and an exit code out."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

import tyro

from metanlp.config import parse
from metanlp.errors import EXIT_CODES, InputError, StoppedError
from metanlp.options import LEAVE_ONE_OUT, Experiment
from metanlp.signals import raise_when_terminated

if TYPE_CHECKING:
    from metanlp.publish import Publication
    from metanlp.types import Row

T = TypeVar("T")


@dataclass(frozen=True)
class Adapt:
    """Adapt a saved learner to a new task from a handful of labelled examples."""

    source: Annotated[Path, tyro.conf.arg(name="from")]  # folder of a learner, or owner/name on the Hub
    examples: Path  # JSONL, CSV or Parquet with text and label, or the columns of another form
    out: Path  # folder for the adapted model
    effort: Literal["fast", "recipe"] = "recipe"  # fast takes no gradient step
    base: str | None = None  # where the pretrained model is, if not at its public id
    columns: str = ""  # the file's names for our columns: text=body,label=intent

    def run(self) -> None:
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
        print(f"{self.out}: adapted to {len(task.pools['train'])} examples{of}")


@dataclass(frozen=True)
class Predict:
    """Answer for new rows with an adapted model. One line a row on standard output, or a file with --out."""

    source: Annotated[Path, tyro.conf.arg(name="from")]  # folder of an adapted model, or owner/name on the Hub
    texts: Annotated[Path | None, tyro.conf.Positional] = None  # lines of text, CSV or JSONL; else standard input
    out: Path | None = None  # .csv or .jsonl
    format: Literal["csv", "jsonl"] = "jsonl"  # of standard output
    base: str | None = None  # where the pretrained model is, if not at its public id
    columns: str = ""  # the file's names for our columns: text=body; lines of text have none

    def run(self) -> None:
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
class Page:
    """Make report.html and plots/ anew from what a run left in its folder."""

    folder: Annotated[Path, tyro.conf.Positional]  # with results.json, and metrics.jsonl where it trained

    def run(self) -> None:
        from metanlp.report.page import write_page

        print(write_page(self.folder))


@dataclass(frozen=True)
class Publish:
    """Publish a learner or an adapted model on the Hub, with a card: one commit, private unless told
    otherwise. The token is HF_TOKEN."""

    source: Annotated[Path, tyro.conf.arg(name="from")]  # folder of a run, a learner or an adapted model
    repo_id: Annotated[str, tyro.conf.Positional]  # owner/name
    public: bool = False  # for everybody
    results: Path | None = None  # results.json of the learner, if it is not in the folder
    method: str | None = None  # the learner's name in it, if that is not its algorithm's
    licence: str | None = None  # of the weights, in the Hub's words: apache-2.0
    base_model: str | None = None  # public name of a pretrained model that came from a folder
    with_examples: Path | None = None  # a file with rows to publish; without, no row of any data set is

    def run(self) -> None:
        from metanlp.publish import Publication

        how = Publication(not self.public, self.results, self.method, self.licence, self.base_model, self.with_examples)
        publish(self.source, self.repo_id, how)


@dataclass(frozen=True)
class Export:
    """Write an adapted model for other people's programs."""

    source: Annotated[Path, tyro.conf.arg(name="from")]  # folder of an adapted model, or owner/name on the Hub
    # One ONNX file; a plain peft adapter with its head; a folder for transformers' pipeline.
    to: Literal["onnx", "lora", "pipeline"]
    out: Path  # folder for it
    base: str | None = None  # where the pretrained model is, if not at its public id

    def run(self) -> None:
        from metanlp.export import export
        from metanlp.learner import Adapted

        said = export(Adapted.load(self.source, base=self.base), self.to, self.out, base=self.base)
        print(f"{self.out}: exported to {self.to}{f'; {said}' if said else ''}")


@dataclass(frozen=True)
class Tasks:
    """Validate a file or a folder of tasks, or a data set of the Hub, and describe them. An index that `tasks build`
    made is used, and its files held against it."""

    source: Annotated[str, tyro.conf.Positional]  # a file, a task's folder, a folder of tasks, or owner/name of the Hub
    columns: str = ""  # the files' names for our columns: text=body,label=intent

    def run(self) -> None:
        from metanlp import report
        from metanlp.tasks.columns import parse_columns
        from metanlp.tasks.index import check_unchanged
        from metanlp.tasks.taskset import describe, read

        tasks = read(self.source, data_root=None, columns=parse_columns(self.columns))
        check_unchanged(tasks)
        report.console().print(report.task_table(describe(tasks)))


@dataclass(frozen=True)
class BuildTasks:
    """Validate every task below a folder and write an index there, so that 100,000 tasks open in seconds."""

    folder: Annotated[Path, tyro.conf.Positional]  # a folder of tasks; its index is .metanlp-index in it
    columns: str = ""  # the files' names for our columns: text=body,label=intent; the same then to open it

    def run(self) -> None:
        from metanlp.progress import Progress
        from metanlp.tasks.columns import parse_columns
        from metanlp.tasks.indexing import build_index

        with Progress("index") as progress:
            built = build_index(self.folder, parse_columns(self.columns), progress.show)
        print(f"{self.folder}: indexed {built.tasks} tasks, {built.rows} rows, in {built.seconds:.1f} s")


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


Command = (
    Annotated[Adapt, tyro.conf.subcommand("adapt")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Page, tyro.conf.subcommand("report")]
    | Annotated[Publish, tyro.conf.subcommand("publish")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Serve, tyro.conf.subcommand("serve")]
    | Annotated[Tasks, tyro.conf.subcommand("tasks")]
    | Annotated[BuildTasks, tyro.conf.subcommand("tasks build")]
)


def main() -> None:
    """The console script."""
    asked = cast("type[Adapt | Predict | Page | Publish | Export | Serve | Tasks | BuildTasks]", Command)
    words = sys.argv[1:]
    if words[:2] == ["tasks", "build"]:  # one command; a folder of that name is ./build
        words = ["tasks build", *words[2:]]
    command = parse(asked, words, prog="metanlp", description="Few-shot learners from many tasks.")
    guarded(command.run)


def launch(defaults: Experiment) -> None:
    """What a recipe does: its values are the defaults of the command line."""
    asked = parse(Experiment, sys.argv[1:], default=defaults)

    def run() -> None:
        if asked.publish:
            from metanlp.hub import check_publishable

            check_publishable(asked.publish)  # before the hours, not after them
        if asked.test == LEAVE_ONE_OUT:
            from metanlp.leave_one_out import run as run_each

            if asked.publish:
                raise InputError(f"--test {LEAVE_ONE_OUT} leaves many learners; publish one by `metanlp publish`")
            run_each(asked)
        else:
            from metanlp.experiment import run as run_once

            if run_once(asked) and asked.publish:
                publish(asked.out, asked.publish)

    guarded(run)


def publish(folder: Path, repo_id: str, how: Publication | None = None) -> None:
    """Publish a folder, and say where it is."""
    from metanlp.publish import Publication, publish_folder

    chosen = how or Publication()
    url, new = publish_folder(folder, repo_id, chosen)
    seen = "private" if chosen.private else "public"
    print(f"{url}: {f'published, {seen}' if new else f'is there already, {seen}'}")


def guarded(run: Callable[[], object]) -> None:
    """Run; a user's mistake, a damaged file or a full disk ends in one line and its exit code."""
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
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except KeyboardInterrupt:
        print("stopped; a run with checkpoints goes on with --resume", file=sys.stderr)
        sys.exit(130)


def as_table(rows: Sequence[Row], answers: Sequence[Mapping[str, Any]], kind: str) -> str:
    """Each row with its answer, as JSONL or CSV, where lists stand in JSON."""
    import io

    records = [{**row, **rounded(answer)} for row, answer in zip(rows, answers, strict=True)]
    if kind == "jsonl":
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(records[0]), lineterminator="\n")
    writer.writeheader()
    for record in records:
        flat = (json.dumps(v, ensure_ascii=False) if isinstance(v, list | tuple | dict) else v for v in record.values())
        writer.writerow(dict(zip(record, flat, strict=True)))
    return stream.getvalue()


def rounded(value: Any) -> Any:
    """Numbers to four places, however deep they lie."""
    if isinstance(value, float):
        return round(value, 4)
    return {key: rounded(part) for key, part in value.items()} if isinstance(value, dict) else value
