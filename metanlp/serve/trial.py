"""What the page does, as functions of a learner, examples and texts; nothing here knows of a page.

Letters: R rows, K classes, F features a row.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from metanlp.errors import InputError
from metanlp.exams import chunks
from metanlp.forms import FORMS
from metanlp.forms.base import softmax
from metanlp.heads.base import normalized
from metanlp.learner import Adapted, Learner
from metanlp.pool import Pool
from metanlp.serve.box import BAR
from metanlp.types import Row, Task
from metanlp.weights import expand, pick

MOST_WORDS = 100  # of a text that are left out one by one, each for one more run of the text
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same model is the same zip
# A sign of Chinese or Japanese is left out like a word.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+")


@dataclass(frozen=True, eq=False)
class Trial:
    """A learner adapted to some examples."""

    adapted: Adapted
    task: Task  # the examples are its training rows
    features: Tensor | None  # (R, F) of the examples, of length one; None where a row is more than one thing to score
    seconds: float  # to adapt


class Near(NamedTuple):
    """An example, seen from a text."""

    row: Row
    cosine: float


class Word(NamedTuple):
    """A word of a text, or what stands between words, and the probability of the text's answer without it."""

    text: str
    without: float | None  # None for what was not left out


def adapt(learner: Learner, task: Task, effort: Literal["fast", "recipe"]) -> Trial:
    """Raises InputError for a form that the learner's method does not know."""
    begun = perf_counter()
    adapted = learner.adapt_to(task, effort=effort)
    seconds = perf_counter() - begun
    whole = task.form not in ("choose", "tag")
    return Trial(adapted, task, features(adapted, task.pools["train"]) if whole else None, seconds)


def features(adapted: Adapted, rows: Sequence[Row]) -> Tensor:
    """What the adapted model reads off texts, or pairs of texts: (R, F) of length one, every view as long as others."""
    task = Task("asked", {}, adapted.labels, "", adapted.form, scale=adapted.scale)
    # A method without adapters reads through such as change nothing.
    adapters = pick(adapted.phi, "lora/") or expand(adapted.net.init(torch.Generator()), 1)
    parts = chunks(Pool(task, rows, adapted.net.encode))
    with torch.no_grad():
        found = torch.cat([normalized(adapted.net.features(adapters, part.batch)) for part in parts])
    order = torch.as_tensor(np.argsort(np.concatenate([part.rows for part in parts])), device=found.device)
    return normalize(found[order], dim=-1)


def nearest(trial: Trial, row: Row, most: int = 3) -> list[Near]:
    """The examples whose adapted features are most like the row's, by cosine; none where rows have several units."""
    if trial.features is None:
        return []
    cosines = trial.features @ features(trial.adapted, [row])[0]
    best = cosines.argsort(descending=True, stable=True)[:most].tolist()
    return [Near(trial.task.pools["train"][n], float(cosines[n])) for n in best]


def words(adapted: Adapted, row: Row) -> list[Word]:
    """The texts of a row in pieces, with the probability that its answer keeps when a word is erased (Li, Monroe &
    Jurafsky 2016, arXiv 1612.08220), all of them in one call. The only word of a text stays, as does what comes after
    the first `MOST_WORDS`. Raises InputError where answers are no classes."""
    spans = {field: [match.span() for match in WORD.finditer(text)] for field, text in row.items()}
    erased = [(field, *span) for field, found in spans.items() if len(found) > 1 for span in found][:MOST_WORDS]
    scores = adapted.scores([row, *(_without(row, *place) for place in erased)])
    without = dict(zip(erased, scores[1:, scores[0].argmax()].tolist(), strict=True))
    pieces: list[Word] = []
    for field, text in row.items():
        pieces += [Word(f" {BAR} ", None)] if pieces else []
        end = 0
        for start, stop in spans[field]:
            pieces += [Word(text[end:start], None), Word(text[start:stop], without.get((field, start, stop)))]
            end = stop
        pieces.append(Word(text[end:], None))
    return pieces


def _without(row: Row, field: str, start: int, stop: int) -> Row:
    text: str = row[field]
    return {**row, field: (text[:start] + text[stop:].lstrip()).strip()}


def next_to_label(trial: Trial, rows: Sequence[Row], by: Literal["margin", "entropy"] = "margin") -> list[Row]:
    """Of rows without labels the ones that are worth a label most, first: the likeliest two classes are nearest to each
    other, or the entropy over all is highest (Settles 2009, Active Learning Literature Survey, §3.1). Rows that are
    examples already, or stand twice, are left out. Raises InputError where answers are no classes."""
    if trial.task.form != "classify":
        raise InputError(
            f"what to label next is known where answers are classes; these are of the form {trial.task.form!r}"
        )
    key = FORMS["classify"].key
    known, fresh = {key(row) for row in trial.task.pools["train"]}, dict[tuple[str, ...], Row]()
    for row in rows:
        if key(row) not in known:
            fresh.setdefault(key(row), row)
    if not fresh:
        raise InputError("all of these texts are examples already; give others")
    found = list(fresh.values())
    p = softmax(trial.adapted.logits(found).astype(np.float64))
    top = np.sort(p, axis=1)
    sure = top[:, -1] - top[:, -2] if by == "margin" else (p * np.log(p.clip(min=1e-300))).sum(1)
    return [found[n] for n in np.argsort(sure, kind="stable")]


def zipped(adapted: Adapted) -> bytes:
    """The folder that `Adapted.save` writes, as `adapted/` in a zip; the same bytes for the same model."""
    packed = io.BytesIO()
    with TemporaryDirectory() as folder, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        adapted.save(folder)
        for path in sorted(Path(folder).iterdir()):
            archive.writestr(zipfile.ZipInfo(f"adapted/{path.name}", LONG_AGO), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return packed.getvalue()
