"""The commands that adapt a saved learner to one task and ask the result."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from metanlp.cli.options import Columns, Json, Output, Printed, Source, Taught
from metanlp.core.effort import Effort
from metanlp.core.errors import InputError
from metanlp.core.outputs import OutputFolder, check_file, check_standard_output


@dataclass(frozen=True, kw_only=True)
class Adapt(Taught, Columns, Output, Json):
    """Adapt a learner to a new task from a handful of labelled examples."""

    examples: Path  # JSONL, CSV or Parquet with text and label, or the columns of another form
    effort: Effort = "recipe"  # fast takes no gradient step, best as many as pay on examples left out of them
    label_names: bool = False  # what the labels are called counts too: it helps where examples are few
    describe: Path | None = None  # the same with a CSV of columns label and description, for labels that say little

    def run(self) -> Printed:
        from metanlp.learner.best_effort import said
        from metanlp.learner.learner import Learner
        from metanlp.tasks.reading.columns import parse_columns
        from metanlp.tasks.reading.descriptions import read_descriptions
        from metanlp.tasks.reading.files import read_task

        out = OutputFolder(self.out, (self.source, self.examples, *filter(None, [self.describe])), self.replace)
        out.check()
        task = read_task(self.examples, columns=parse_columns(self.columns))
        names = read_descriptions(self.describe) if self.describe else self.label_names
        adapted = Learner.load(self.source, base=self.base).adapt_to(task, effort=self.effort, label_names=names)
        with out.claimed():
            adapted.save(self.out)
        of = f" of {', '.join(adapted.label_words)}" if adapted.labels else ""
        count = len(task.pools["train"])
        chosen = [said(adapted.record["best_effort"])] if self.effort == "best" else []
        print(*task.notes, *chosen, f"{self.out}: adapted to {count} examples{of}", sep="\n")
        warn(adapted.net.notice())
        return {"out": str(self.out), "examples": count, "labels": list(adapted.labels), "form": adapted.form}


@dataclass(frozen=True, kw_only=True)
class Predict(Source, Columns):
    """Answer for new rows with an adapted model: one line a row, JSON or CSV."""

    texts: Annotated[Path | None, tyro.conf.Positional] = None  # lines of text, CSV or JSONL; else, or as "-", stdin
    out: Path | None = None  # .csv or .jsonl, in place of standard output
    replace: bool = False  # replace --out where it is there already
    format: Literal["csv", "jsonl"] = "jsonl"  # of standard output

    def run(self) -> None:
        from metanlp.core.storage import atomic_write
        from metanlp.learner.learner import Adapted
        from metanlp.learner.prediction_table import as_table
        from metanlp.tasks.reading.columns import parse_columns
        from metanlp.tasks.reading.files import read_asked

        kind = self._check()
        columns, adapted = parse_columns(self.columns), Adapted.load(self.source, base=self.base)
        stream, words = self._file or sys.stdin.buffer, adapted.label_words
        asked = read_asked(stream, columns=columns, labels=words, form=adapted.form)
        text = as_table(asked, adapted.answers([row for row, _ in asked]), kind)
        if self.out:
            atomic_write(self.out, text.encode())
        else:
            print(text, end="")
        warn(adapted.net.notice())

    @property
    def _file(self) -> Path | None:
        """With the texts; None where they come on standard input."""
        return None if self.texts == Path("-") else self.texts

    def _check(self) -> str:
        """Raises InputError for what can be said before a model is loaded; the format of the answers."""
        kind = self.out.suffix.lstrip(".") if self.out else self.format
        if kind not in ("csv", "jsonl"):
            raise InputError(f"--out {self.out}: predictions are written as .csv or .jsonl; give one of these endings")
        sources = (self.source, self._file) if self._file else (self.source,)
        if self.out:
            check_file(self.out, sources, replace=self.replace)
        else:
            check_standard_output(sources)
        if not self._file and not sys.stdin:  # None where the shell closed it
            raise InputError("standard input is closed; name a file with the texts")
        return kind


@dataclass(frozen=True, kw_only=True)
class Score(Columns, Json):
    """Say how good an adapted model is on a labelled file: metrics, recall by class, what is taken for what."""

    rows: Annotated[Path, tyro.conf.Positional]  # JSONL, CSV or Parquet with text and label, as for adapt
    # Folder of an adapted model, or owner/name on the Hub. With --examples a learner, by default the one that comes
    # with the package.
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    examples: Path | None = None  # a file of examples that a learner is adapted to first; nothing is saved
    base: str | None = None  # where the pretrained model is, if not at its public id

    def run(self) -> Printed:
        from metanlp.learner.learner import Adapted, Learner
        from metanlp.report.tables import show_score
        from metanlp.tasks.reading.columns import parse_columns
        from metanlp.tasks.reading.files import read_task
        from metanlp.tasks.reading.rows import read_rows

        columns = parse_columns(self.columns)
        rows = read_rows(self.rows, columns)
        if self.examples:
            task = read_task(self.examples, columns=columns)
            adapted = Learner.load(self.source or "default", base=self.base).adapt_to(task)
        elif self.source:
            adapted = Adapted.load(self.source, base=self.base)
        else:
            raise InputError("say what is judged: --from an adapted model, or --examples that a learner adapts to")
        found = adapted.score_rows(rows)
        show_score(found)
        warn(adapted.net.notice())
        return found


@dataclass(frozen=True, kw_only=True)
class Serve(Taught, Columns):
    """A page to try a learner on: label a few texts, adapt, look at the answers and why, download the adapted model."""

    host: str = "127.0.0.1"  # this machine alone; 0.0.0.0 is whoever can reach it
    port: int = 7860  # of the page

    def run(self) -> None:
        from importlib.util import find_spec

        from metanlp.serve.address import check_free
        from metanlp.tasks.reading.columns import parse_columns

        if not find_spec("gradio"):
            raise InputError("the page is made by gradio, which is not installed; pip install 'metanlp[serve]'")
        columns = parse_columns(self.columns)
        check_free(self.host, self.port)
        from metanlp.learner.learner import Learner

        learner = Learner.load(self.source, base=self.base)
        from metanlp.serve.page import serve  # seconds to import

        serve(learner, self.host, self.port, columns)


def warn(notice: str) -> None:
    """Print a line on standard error, if there is anything to say."""
    if notice:
        print(notice, file=sys.stderr)
