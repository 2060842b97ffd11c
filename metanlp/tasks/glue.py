"""GLUE, with SNLI beside it: nine tasks of classes and one of scores (Wang et al. 2019; Bowman et al. 2015), in a
folder or on the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from metanlp.errors import InputError
from metanlp.tasks.build import with_labels
from metanlp.tasks.columns import nearest
from metanlp.tasks.files import read_task
from metanlp.tasks.hub import read_hub
from metanlp.tasks.hub_client import HubName
from metanlp.tasks.records import entries, shown
from metanlp.types import Task


def _pair(first: str, second: str) -> dict[str, str]:
    return {"text_a": first, "text_b": second}


@dataclass(frozen=True)
class GlueTask:
    """What is fixed about one task."""

    name: str  # its folder, and its configuration on the Hub
    labels: tuple[str, ...]  # label words in the order of the published integers; () where there are scores
    hub_columns: Mapping[str, str]  # our columns -> the Hub's; in our own files they have our names
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
    GlueTask("stsb", (), _pair("sentence1", "sentence2") | {"score": "label"},
             "How alike in meaning two sentences are, from 0 to 5.", "pearson"),
)  # fmt: skip
BY_NAME = {row.name: row for row in GLUE}

LEFT_OUT = {
    "ax": "has a test split only",
}
BY_NAME_ONLY = ("stsb",)  # not part of `glue`, which is all classes: what scores beside them teach is not measured yet
WHOLE = tuple(name for name in BY_NAME if name not in BY_NAME_ONLY)

# What the Hub had when this was written, so that everybody reads the same rows.
COMMITS = {
    "nyu-mll/glue": "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
    "stanfordnlp/snli": "cdb5c3d5eed6ead6e5a341c8e56e669bb666725b",
}


def is_glue(folder: Path) -> bool:
    """Whether the sub-folders of `folder`, all of them, are GLUE's."""
    inside = [entry.name for entry in entries(folder) if entry.is_dir() and not entry.name.startswith(".")]
    return any(name in BY_NAME for name in inside) and all(name in BY_NAME or name in LEFT_OUT for name in inside)


def read_glue(folder: str | Path) -> tuple[Task, ...]:
    """The tasks of GLUE present as sub-folders, in the order of the table, without those that are read by name only.
    Raises InputError."""
    folder = Path(folder)
    present = [name for name in WHOLE if (folder / name).is_dir()]
    if not present:
        raise InputError(f"{shown(folder)}: holds none of {', '.join(BY_NAME)}; give the folder that holds them")
    return tuple(read_glue_task(folder / name) for name in present)


def read_glue_task(folder: str | Path) -> Task:
    """One task of GLUE, under the name `glue/NAME`, labels in the published order. Raises InputError."""
    folder = Path(folder)
    known = _known(folder.name, shown(folder))
    return replace(_finished(read_task(folder, name=f"glue/{known.name}", published=True), known), source="glue")


def read_glue_from_hub(name: str) -> Task:
    """One task of GLUE by its name in the table, at the commit of `COMMITS`; of the large ones the first rows, as
    `read_hub` reads them. Raises InputError, StorageError."""
    known = _known(name, f"glue/{name}")
    config = known.name if known.hub == GlueTask.hub else None
    try:
        (task,) = read_hub(known.hub, config, revision=COMMITS[known.hub], columns=known.hub_columns)
    except InputError as error:
        raise InputError(f"glue/{name} from the Hub: {error}; METANLP_DATA may name a folder with glue") from error
    return _finished(replace(task, name=f"glue/{known.name}"), known)


def is_of_glue(task: Task) -> bool:
    """Whether one of the two above made it."""
    hub = HubName.parse(task.source)
    return task.source == "glue" or (hub is not None and hub.repo_id in COMMITS and task.name.startswith("glue/"))


def _known(name: str, where: str) -> GlueTask:
    if name in LEFT_OUT:
        raise InputError(f"{where}: {name} {LEFT_OUT[name]}; choose among {', '.join(BY_NAME)}")
    if name not in BY_NAME:
        raise InputError(f"{where}: GLUE has no such task; choose among {', '.join(BY_NAME)}{nearest(name, BY_NAME)}")
    return BY_NAME[name]


def _finished(task: Task, known: GlueTask) -> Task:
    named = with_labels(task, known.labels) if known.labels else task
    return replace(named, metric=known.metric, about=known.about)
