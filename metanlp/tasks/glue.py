"""GLUE, with SNLI beside it: nine classification tasks (Wang et al. 2019; Bowman et al. 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from metanlp.errors import InputError
from metanlp.tasks.build import with_labels
from metanlp.tasks.files import read_task
from metanlp.tasks.records import entries, shown
from metanlp.types import Task


def _pair(first: str, second: str) -> Mapping[str, str]:
    return {"text_a": first, "text_b": second}


@dataclass(frozen=True)
class GlueTask:
    """What is fixed about one task."""

    name: str  # its folder, and its configuration on the Hub
    labels: tuple[str, ...]  # label words in the order of the published integers
    hub_columns: Mapping[str, str]  # our text columns -> the Hub's; in our own files they have our names
    about: str  # one sentence
    metric: str = "accuracy"  # the metric that GLUE reports, or the first of two
    hub: str = "nyu-mll/glue"  # the data set's id on the Hub


ENTAILMENT = ("entailment", "neutral", "contradiction")

GLUE = (
    GlueTask("mnli", ENTAILMENT, _pair("premise", "hypothesis"),
             "Whether a hypothesis follows from a premise, over ten kinds of text."),
    GlueTask("qnli", ("entailment", "not entailment"), _pair("question", "sentence"),
             "Whether a sentence answers a question."),
    GlueTask("rte", ("entailment", "not entailment"), _pair("sentence1", "sentence2"),
             "Whether a hypothesis follows from a news text."),
    GlueTask("mrpc", ("not equivalent", "equivalent"), _pair("sentence1", "sentence2"),
             "Whether two sentences from the news say the same.", "f1"),
    GlueTask("qqp", ("not duplicate", "duplicate"), _pair("question1", "question2"),
             "Whether two questions from a forum ask the same.", "f1"),
    GlueTask("sst2", ("negative", "positive"), {"text": "sentence"},
             "Whether a film critic's sentence praises or blames."),
    GlueTask("cola", ("unacceptable", "acceptable"), {"text": "sentence"},
             "Whether a sentence is grammatical English.", "matthews"),
    GlueTask("wnli", ("not entailment", "entailment"), _pair("sentence1", "sentence2"),
             "Whether a sentence with its pronoun resolved follows from the one before."),
    GlueTask("snli", ENTAILMENT, _pair("premise", "hypothesis"),
             "Whether a hypothesis follows from the caption of a picture.", hub="stanfordnlp/snli"),
)  # fmt: skip
BY_NAME = {row.name: row for row in GLUE}

LEFT_OUT = {
    "stsb": "has scores from 0 to 5, not classes",
    "ax": "has a test split only",
}

# WNLI's validation split is adversarial: it asks about the premises of training, with answers set against them.
TRAIN = tuple(f"glue/{row.name}" for row in GLUE if row.name != "wnli")


def is_glue(folder: Path) -> bool:
    """Whether the sub-folders of `folder`, all of them, are GLUE's."""
    inside = [entry.name for entry in entries(folder) if entry.is_dir() and not entry.name.startswith(".")]
    return any(name in BY_NAME for name in inside) and all(name in BY_NAME or name in LEFT_OUT for name in inside)


def read_glue(folder: str | Path) -> tuple[Task, ...]:
    """The tasks of GLUE present as sub-folders, in the order of the table; STS-B stays out. Raises InputError."""
    folder = Path(folder)
    present = [row.name for row in GLUE if (folder / row.name).is_dir()]
    if not present:
        raise InputError(f"{shown(folder)}: holds none of {', '.join(BY_NAME)}; give the folder that holds them")
    return tuple(read_glue_task(folder / name) for name in present)


def read_glue_task(folder: str | Path) -> Task:
    """One task of GLUE, under the name `glue/NAME`, labels in the published order. Raises InputError."""
    folder = Path(folder)
    if folder.name in LEFT_OUT:
        raise InputError(f"{shown(folder)}: {folder.name} {LEFT_OUT[folder.name]}; choose among {', '.join(BY_NAME)}")
    known = BY_NAME[folder.name]
    task = with_labels(read_task(folder, name=f"glue/{known.name}", published=True), known.labels)
    return replace(task, source="glue", metric=known.metric, about=known.about)
