"""The commands that adapt a saved learner to one task and ask the result."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from metanlp.cli.options import Columns, Json, Output, Printed, Repeats, Source, Taught
from metanlp.core.effort import Effort
from metanlp.core.errors import InputError
from metanlp.core.outputs import OutputFolder, check_file, check_standard_output

if TYPE_CHECKING:
    from metanlp.core.types import Row, Task
    from metanlp.forms.reading import LabelledRow
    from metanlp.learner.learner import Adapted


@dataclass(frozen=True, kw_only=True)
class Adapt(Taught, Columns, Repeats, Output, Json):
    """Adapt a learner to a new task from a handful of labelled examples."""

    examples: Path  # CSV, Excel, JSONL or Parquet with text and label, or the columns of another form
    effort: Effort = "recipe"  # fast takes no gradient step, best as many as pay on examples left out of them
    label_names: bool = True  # what the labels are called counts too: it helps where examples are few
    max_length: int | None = None  # longer texts are cut, in tokens; by default as the learner has it
    describe: Path | None = None  # in place of names a CSV of columns label and description, for labels that say little

    def run(self) -> Printed:
        from metanlp.learner.best_effort import said
        from metanlp.learner.learner import Learner
        from metanlp.tasks.reading.columns import parse_columns
        from metanlp.tasks.reading.descriptions import read_descriptions
        from metanlp.tasks.reading.files import read_task

        out = OutputFolder(self.out, (self.source, self.examples, *filter(None, [self.describe])), self.replace)
        out.check()
        task = read_task(self.examples, columns=parse_columns(self.columns), drop_repeats=self.drop_repeats)
        names = read_descriptions(self.describe) if self.describe else self.label_names
        learner = Learner.load(self.source, base=self.base, max_length=self.max_length)
        adapted = learner.adapt_to(task, effort=self.effort, label_names=names)
        with out.claimed():
            adapted.save(self.out)
        of = f" of {', '.join(adapted.label_words)}" if adapted.labels else ""
        count = len(task.pools["train"])
        chosen = [said(adapted.record["best_effort"])] if self.effort == "best" else []
        print(*task.notes, *chosen, f"{self.out}: adapted to {count} examples{of}", sep="\n")
        warn(adapted.net.notice())
        return {"out": str(self.out), "examples": count, "labels": list(adapted.labels), "form": adapted.form}


@dataclass(frozen=True, kw_only=True)
class Join(Output, Json):
    """Make one learner of several of one encoder: adapters side by side, of which a task's examples say what they are
    worth."""

    # Two or more: folders or zips of learners, owner/name on the Hub, or default, the one that comes with the package.
    source: Annotated[tuple[Path, ...], tyro.conf.arg(name="from")]
    base: str | None = None  # where the pretrained model is, if not at its public id
    max_length: int | None = None  # longer texts are cut, in tokens; by default as the learners have it

    def run(self) -> Printed:
        from metanlp.learner.joining import join
        from metanlp.learner.learner import Learner
        from metanlp.learner.origin import teachers

        out = OutputFolder(self.out, self.source, self.replace)
        out.check()
        learners = [Learner.load(each, base=self.base, max_length=self.max_length) for each in self.source]
        for source in (each for each, learner in zip(self.source, learners, strict=True) if not len(learner.seen)):
            warn(f"{source} has no hashes of the rows that it has seen; nothing can tell if they judge the whole")
        made = join(learners)
        with out.claimed():
            made.save(self.out)
        tasks = len(teachers(made.record))
        print(f"{self.out}: {len(self.source)} learners side by side, taught by {tasks} tasks")
        print(f"metanlp adapt --from {shlex.quote(str(self.out))} --examples EXAMPLES.csv --out ADAPTED")
        return {"out": str(self.out), "learners": len(self.source), "tasks": tasks, "views": list(made.net.view_names)}


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A command that answers row by row."""

    out: Path | None = None  # .csv or .jsonl, in place of standard output
    replace: bool = False  # replace --out where it is there already
    format: Literal["csv", "jsonl"] = "jsonl"  # of standard output


@dataclass(frozen=True, kw_only=True)
class Written:
    """A command whose answers may be texts that are written."""

    beams: int = 1  # of a model that writes: texts that are tried side by side, 1 is greedy


@dataclass(frozen=True, kw_only=True)
class Predict(Source, Columns, Answers, Written):
    """Answer for new rows with an adapted model: one line a row, JSON or CSV."""

    texts: Annotated[Path | None, tyro.conf.Positional] = None  # text lines, CSV, Excel, JSONL; else, or as "-", stdin
    # How standard input is read; by default as lines of text, unless it begins like one of the others.
    stdin: Literal["txt", "csv", "tsv", "jsonl"] | None = None

    def run(self) -> None:
        from metanlp.learner.learner import Adapted
        from metanlp.learner.prediction_table import as_table, rounded
        from metanlp.report.tables import score_line
        from metanlp.tasks.reading.columns import column_names, parse_columns
        from metanlp.tasks.reading.files import read_asked

        kind = self._check()
        columns, adapted = parse_columns(self.columns), Adapted.load(self.source, base=self.base)
        stream, words = self._file or sys.stdin.buffer, adapted.label_words
        asked = read_asked(stream, columns=columns, ending=self._ending(columns), labels=words, form=adapted.form)
        judging = labelled(self._file, columns, adapted) if self._file else []
        if judging:
            answers, found = adapted.answers_and_score(judging, self.beams)
        else:
            answers, found = adapted.answers([row for row, _ in asked], beams=self.beams), None
        names = column_names(columns)
        said = [beside(*each, rounded(answer), names) for each, answer in zip(asked, answers, strict=True)]
        write(as_table(said, kind), self.out)
        warn(adapted.net.notice())
        if found:
            warn(f"{score_line(found)}; more: metanlp score --from {shlex.quote(str(self.source))} {self._quoted}")

    def _ending(self, columns: Mapping[str, str] | None) -> str | None:
        """How standard input is read; None for a file, which has its own ending. Raises InputError."""
        from metanlp.tasks.reading.files import check_lines

        if self._file:
            return None
        return f".{self.stdin}" if self.stdin else check_lines(sys.stdin.buffer, columns)

    @property
    def _quoted(self) -> str:
        """The file and its columns, as a command has them."""
        columns = ["--columns", self.columns] if self.columns else []
        return shlex.join([str(self.texts), *columns])

    @property
    def _file(self) -> Path | None:
        """With the texts; None where they come on standard input."""
        return None if self.texts == Path("-") else self.texts

    def _check(self) -> str:
        """Raises InputError for what can be said before a model is loaded; the format of the answers."""
        kind = check_answers(self, (self.source, self._file) if self._file else (self.source,))
        if self._file and self.stdin:
            raise InputError(f"--stdin says how standard input is read, and {self._file} is a file; leave one out")
        if not self._file and not sys.stdin:  # None where the shell closed it
            raise InputError("standard input is closed; name a file with the texts")
        return kind


@dataclass(frozen=True, kw_only=True)
class Score(Columns, Written, Json):
    """Say how good an adapted model is on a labelled file: metrics, recall by class, what is taken for what."""

    rows: Annotated[Path, tyro.conf.Positional]  # CSV, Excel, JSONL or Parquet with text and label, as for adapt
    # Folder or zip of an adapted model, or owner/name on the Hub. With --examples a learner, by default the one that
    # comes with the package.
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    examples: Path | None = None  # a file of examples that a learner is adapted to first; nothing is saved
    drop_repeats: bool = False  # leave out rows that stand in --examples too
    base: str | None = None  # where the pretrained model is, if not at its public id

    def run(self) -> Printed:
        from metanlp.learner.learner import Adapted, Learner
        from metanlp.tasks.reading.columns import parse_columns
        from metanlp.tasks.reading.files import read_task
        from metanlp.tasks.reading.rows import read_rows

        columns = parse_columns(self.columns)
        rows = read_rows(self.rows, columns)
        if self.drop_repeats and not self.examples:
            raise InputError("--drop-repeats leaves out rows that stand in --examples, and there are none; name them")
        if self.examples:
            task = read_task(self.examples, columns=columns)
            rows = self._apart(rows, task)
            adapted = Learner.load(self.source or "default", base=self.base).adapt_to(task)
        elif self.source:
            adapted = Adapted.load(self.source, base=self.base)
        else:
            raise InputError("say what is judged: --from an adapted model, or --examples that a learner adapts to")
        return judge(adapted, rows, self.beams)

    def _apart(self, rows: list[LabelledRow], task: Task) -> list[LabelledRow]:
        """The rows that judge: where that is asked, without those of the examples; else these are counted aloud."""
        from metanlp.tasks.rowset import pool_keys

        taught = {*pool_keys(task, "train").tolist()}
        kept = [row for row in rows if row.key not in taught]
        lost, said = len(rows) - len(kept), f"{self.rows} stand in {self.examples} too"
        if not self.drop_repeats:
            if lost:
                warn(f"{lost} of the {len(rows)} rows of {said}, and were seen; --drop-repeats leaves them out")
            return rows
        if not kept:
            raise InputError(f"{self.rows}: every row of it stands in {self.examples}; give others to judge by")
        if lost:
            print(f"{lost} of the {len(rows)} rows of {said}, and are left out")
        return kept


@dataclass(frozen=True, kw_only=True)
class Rank(Taught, Columns, Answers):
    """Rank products for somebody who liked a few and, if known, disliked some: best first, with a column `score`."""

    products: Annotated[Path, tyro.conf.Positional]  # CSV or JSONL with a text, or lines; its columns are kept
    liked: Path  # products that are liked: lines of text, or a file like the products
    disliked: Path | None = None  # products that are not; without, others drawn from the list stand for them
    clean: bool = False  # put HTML, prices and spaces in order; leave out repeats and products without text
    effort: Effort = "recipe"  # fast takes no gradient step, best as many as pay on examples left out of them
    format: Literal["csv", "jsonl"] = "csv"  # of standard output

    def run(self) -> None:
        from metanlp.learner.learner import Learner
        from metanlp.learner.prediction_table import as_table
        from metanlp.learner.ranking import learn_taste, ranked
        from metanlp.report.cleaning import summary
        from metanlp.tasks.reading.columns import parse_columns
        from metanlp.tasks.reading.products import read_products

        kind = check_answers(self, (self.source, self.products, self.liked, *filter(None, [self.disliked])))
        columns = parse_columns(self.columns)
        listed, liked = (read_products(path, columns, clean=self.clean) for path in (self.products, self.liked))
        disliked = read_products(self.disliked, columns, clean=self.clean).rows if self.disliked else ()
        if "score" in listed.cells[0]:
            raise InputError(f"{self.products}: has a column 'score', which is to hold the new one; rename it")
        learner = Learner.load(self.source, base=self.base)
        order = ranked(learn_taste(learner, liked.rows, disliked, listed.rows, effort=self.effort), listed.rows)
        rows = [{"score": round(score, 4), **listed.cells[number]} for number, score in order]
        write(as_table(rows, kind), self.out)
        for part in filter(None, (summary(listed.cleaning), learner.net.notice())):
            warn(part)
        if not disliked:
            warn("nothing is disliked: products drawn from the list stood for what is; scores rank, and say no more")


def judge(adapted: Adapted, rows: Sequence[LabelledRow], beams: int = 1) -> dict[str, Any]:
    """How good an adapted model is on these rows; told, too."""
    from metanlp.report.tables import show_score

    found = adapted.score_rows(rows, beams)
    show_score(found)
    warn(adapted.net.notice())
    return found


def labelled(path: Path, columns: Mapping[str, str] | None, adapted: Adapted) -> list[LabelledRow]:
    """The rows of a file that is asked for answers, where all have the right one, of the model's form; else none."""
    from metanlp.tasks.reading.build import rows_for
    from metanlp.tasks.reading.rows import read_rows

    try:
        rows = read_rows(path, columns)
        rows_for(rows, adapted.meaning, adapted.pairs)
    except InputError:  # of the answers: the questions were read already
        return []
    return rows


def check_answers(asked: Answers, sources: Sequence[Path]) -> str:
    """The format of the answers. Raises InputError where they can't be written as asked, or over a source."""
    kind = asked.out.suffix.lstrip(".") if asked.out else asked.format
    if kind not in ("csv", "jsonl"):
        raise InputError(f"--out {asked.out}: predictions are written as .csv or .jsonl; give one of these endings")
    if asked.out:
        check_file(asked.out, sources, replace=asked.replace)
    else:
        check_standard_output(sources)
    return kind


def beside(
    row: Row, others: Mapping[str, object], answer: Mapping[str, Any], names: Mapping[str, str]
) -> dict[str, Any]:
    """A line of the answers: what the file has besides, the row, its answer. What the file calls as an answer is
    called gives way; where another column has our name of a text, the text has the file's, of `names`."""
    kept = {name: value for name, value in others.items() if name not in answer}
    return {**kept, **{names[name] if name in kept else name: value for name, value in row.items()}, **answer}


def write(answers: str, out: Path | None) -> None:
    """Into a file, whole or not at all; without one to standard output."""
    from metanlp.core.storage import atomic_write

    if out:
        atomic_write(out, answers.encode(errors="json"))  # as on the streams: see `prepare_streams`
    else:
        print(answers, end="")


def warn(notice: str) -> None:
    """Print a line on standard error, if there is anything to say."""
    if notice:
        print(notice, file=sys.stderr)
