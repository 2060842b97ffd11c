"""What the page computes, as functions of a learner, examples and texts, without any gradio.

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

from metanlp.backbone.models import encoder_of
from metanlp.core.effort import Effort
from metanlp.core.errors import InputError
from metanlp.core.types import Row, Task
from metanlp.core.weights import expand, pick
from metanlp.episodes.chunks import chunks
from metanlp.episodes.pool import Pool
from metanlp.forms import FORMS, Form
from metanlp.forms.base import softmax
from metanlp.forms.heads.base import normalized
from metanlp.learner.learner import Adapted, Learner
from metanlp.serve.textbox import BAR

MOST_WORDS = 100  # words of a row that are left out one by one; each costs one more forward pass of the row
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # a fixed date, so that the same model gives the same zip
# A Chinese or Japanese character counts as a word.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+")


@dataclass(frozen=True, eq=False)
class Trial:
    """An adapted model, and the examples that it was adapted to where these are known."""

    adapted: Adapted
    examples: Sequence[Row] = ()
    features: Tensor | None = None  # (R, F) normalised ones of the examples; None where a row has several units
    seconds: float = 0.0  # to adapt

    @property
    def form(self) -> Form:
        """What one example is."""
        return FORMS[self.adapted.form]


class Near(NamedTuple):
    """An example and its cosine to a text."""

    row: Row
    cosine: float


class Word(NamedTuple):
    """A word of a text, or the characters between words, and the probability of the answer without it."""

    text: str
    without: float | None  # None if it was not left out


def adapt(learner: Learner, task: Task, effort: Effort) -> Trial:
    """Raises InputError for a form that the learner's method does not know."""
    begun = perf_counter()
    adapted = learner.adapt_to(task, effort=effort)
    seconds = perf_counter() - begun
    form, rows = FORMS[task.form], task.pools["train"]
    whole = not (form.words or form.written) and len(form.texts(rows[0])) == 1
    return Trial(adapted, rows, features(adapted, rows) if whole else None, seconds)


def features(adapted: Adapted, rows: Sequence[Row]) -> Tensor:
    """What the adapted model reads off texts, or pairs of texts: (R, F) of length one, every view as long as others."""
    # A method without adapters reads through such as change nothing.
    net = encoder_of(adapted.net)
    adapters = pick(adapted.phi, "lora/") or expand(net.init(torch.Generator()), 1)
    parts = chunks(Pool(adapted.meaning, rows, net.encode))
    with torch.no_grad():
        found = torch.cat([normalized(net.features(adapters, part.batch)) for part in parts])
    order = torch.as_tensor(np.argsort(np.concatenate([part.rows for part in parts])), device=found.device)
    return normalize(found[order], dim=-1)


def nearest(trial: Trial, row: Row, most: int = 3) -> list[Near]:
    """The examples with the highest cosine of adapted features to the row; none if rows have several units, or the
    examples are not known."""
    if trial.features is None:
        return []
    cosines = trial.features @ features(trial.adapted, [row])[0]
    best = cosines.argsort(descending=True, stable=True)[:most].tolist()
    return [Near(trial.examples[n], float(cosines[n])) for n in best]


def words(adapted: Adapted, row: Row) -> list[Word]:
    """The words of a row, each with the probability of the row's answer without it (Li, Monroe & Jurafsky 2016, arXiv
    1612.08220). A text's only word and words after the first `MOST_WORDS` are not left out. Raises InputError for forms
    other than classify."""
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
    """Unlabelled rows, most uncertain first: smallest margin of the two likeliest classes, or highest entropy (Settles
    2009, Active Learning Literature Survey, §3.1), without examples and repeats. Raises InputError where answers are no
    classes."""
    if not trial.form.single_label:
        raise InputError(
            f"what to label next is known where answers are classes; these are of the form {trial.adapted.form!r}"
        )
    key = trial.form.key
    known, fresh = {key(row) for row in trial.examples}, dict[tuple[str, ...], Row]()
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
    """A zip of the folder that `Adapted.save` writes, as `adapted/`; the same bytes for the same model."""
    packed = io.BytesIO()
    with TemporaryDirectory() as folder, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        adapted.save(folder)
        for path in sorted(Path(folder).iterdir()):
            archive.writestr(zipfile.ZipInfo(f"adapted/{path.name}", LONG_AGO), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return packed.getvalue()
