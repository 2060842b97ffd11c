"""One example is a question and a passage; the answer stands in the passage, or there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from reprlib import repr as brief
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import numpy as np

from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Meaning, Row
from metanlp.forms.base import Form, Scored, folded, mean_per_task
from metanlp.forms.metrics import answer_match, calibration
from metanlp.forms.reading import MISSING, Cells, came, texts
from metanlp.forms.words import in_words

if TYPE_CHECKING:
    from torch import Tensor

    from metanlp.forms.heads.word_ridge import WordRidgeHead

NOTHING = "none"  # the first word of every window, whose scores are those of "there is no answer"
WINDOW, OVERLAP = 80, 20  # words of a passage that are read together; with a question they fit into 128 tokens
MOST = 30  # words of an answer


class Told(NamedTuple):
    """What is said of a row: characters [start, end) of its context, None where there is no answer."""

    text: str
    start: int | None
    end: int | None
    probability: float


def span_loss(scores: Tensor, batch: Batch, weight: Tensor | None = None) -> Tensor:
    """The loss of `Span`: (N, 2) -> (T,). An end that the model can't see costs nothing."""
    import torch

    from metanlp.forms.heads.ridge import group_sizes

    group, right = batch.group, batch.targets > 0
    missed = log_sums(scores, group) - log_sums(scores.masked_fill(~right, -torch.inf), group)
    seen = torch.zeros_like(scores).index_add(0, group, right.to(scores.dtype)) > 0
    each = torch.where(seen, missed, 0.0).mean(1).index_select(0, group)
    one = seen.any(1)[group] / group_sizes(group)[group]  # units of a question weigh one together
    return mean_per_task(each, batch, one if weight is None else one * weight)


def log_sums(values: Tensor, group: Tensor) -> Tensor:
    """log Σ exp over the units of each group, by its number: (N, K), (N,) -> (N, K). A very low number for none."""
    import torch

    place = group[:, None].expand_as(values)
    top = torch.full_like(values, -torch.inf).scatter_reduce(0, place, values.detach(), "amax")
    top = torch.where(top.isfinite(), top, 0.0)
    sums = torch.zeros_like(values).index_add(0, group, (values - top[group]).exp())
    return sums.clamp(min=torch.finfo(values.dtype).tiny).log() + top


class Span(Form):
    """Extractive question answering (Rajpurkar et al. 2016, arXiv 1606.05250): each word of the passage has two scores,
    that the answer begins there and that it ends there; the loss is the mean of two cross-entropies over all words of a
    question. Long passages are read in overlapping windows, each with the question (Devlin et al. 2019, §4.3), and
    before each window stands a word for "no answer"."""

    name, metric, answer = "span", "f1", "answer"
    asks = "(question, context), neither of them blank, or a row with `question` and `context`"
    question_columns, answer_columns, plain = ("question", "context"), ("answers", "answer"), ("answer",)
    usual: ClassVar = {"question": ("question",), "context": ("context",), "answers": ("answers",)}
    prefix = "span/"
    loss = staticmethod(span_loss)
    by_class, class_targets, words = False, False, True
    hub_task = "question-answering"
    example: ClassVar = ("Who lives in Lima?", "Maria lives in Lima.")

    def make_head(self) -> WordRidgeHead:
        from metanlp.forms.heads.word_ridge import WordRidgeHead

        return WordRidgeHead(span_loss)

    def read(self, cells: Cells) -> Row:
        return {name: cells.text(name) for name in self.question_columns}

    def read_answer(self, cells: Cells, row: Row) -> tuple[tuple[int, int], ...]:
        """Where each of the right answers stands, (start, end) in characters; () where there is none."""
        name = next((name for name in self.answer_columns if cells[name] is not MISSING), self.answer_columns[0])
        found = read_answers(cells[name], f"{cells.where}: {cells.names[name]!r}")
        return tuple(placed(text, start, row["context"], cells.where) for text, start in found)

    def question(self, item: Any) -> Row | None:
        if isinstance(item, Mapping):
            item = tuple(item.get(name) for name in self.question_columns)
        parts = tuple(item) if isinstance(item, Sequence) and not isinstance(item, str) else ()
        whole = len(parts) == 2 and all(isinstance(part, str) and part.strip() for part in parts)
        return dict(zip(self.question_columns, parts, strict=True)) if whole else None

    def texts(self, row: Row) -> tuple[tuple[str, ...], ...]:
        words = in_words(row["context"])["tokens"]
        return tuple(
            (" ".join([NOTHING, *words[part.start : part.stop]]), row["question"]) for part in windows(len(words))
        )

    def title(self, row: Row) -> tuple[str, ...]:
        return row["question"], row["context"]

    def key(self, row: Row) -> tuple[str, ...]:
        return folded(row["question"]), folded(row["context"])

    def outputs(self, meaning: Meaning) -> int:
        """Start and end."""
        return 2

    def episode_classes(self, chosen: np.ndarray) -> np.ndarray:
        return np.arange(2)

    def gold(self, row: Row, meaning: Meaning) -> Sequence[tuple[float, float]]:
        """Whether the first of the right answers begins, and ends, at each unit: in every window in which it stands."""
        offsets = in_words(row["context"])["offsets"]
        units, answers = words_of(len(offsets)), row.get("answers", ())
        first, last = covered(offsets, *answers[0]) if answers else (-1, -1)
        return [(float(word == first), float(word == last)) for word in units.tolist()]

    def answers(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> list[dict[str, Any]]:
        return [
            {"answer": each.text, "start": each.start, "end": each.end, "probability": each.probability}
            for each in told(scored, rows)
        ]

    def metrics(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> dict[str, float]:
        found = told(scored, rows)
        exact, f1 = judged(found, rows)
        sure = np.array([each.probability for each in found])
        return {"f1": float(f1.mean()), "exact_match": float(exact.mean()), "ece": calibration(sure, exact > 0)}

    def truth(self, row: Row, meaning: Meaning) -> str:
        return right_of(row)[0]

    def marked(self, row: Row, answer: Mapping[str, Any]) -> tuple[str, int, int] | None:
        return None if answer["start"] is None else (row["context"], answer["start"], answer["end"])

    def sure(self, scored: Scored, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
        found = told(scored, rows)
        return np.array([each.probability for each in found]), judged(found, rows)[0] > 0

    def wrong_by(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> np.ndarray:
        """What F1 lacks."""
        return 1 - judged(told(scored, rows), rows)[1]


def windows(count: int) -> list[range]:
    """Which of `count` words each window holds; together they hold all."""
    return [range(at, min(at + WINDOW, count)) for at in range(0, max(1, count - OVERLAP), WINDOW - OVERLAP)]


def words_of(count: int) -> np.ndarray:
    """The word of each unit of a passage of `count` words, -1 for that of no answer: (units,)."""
    return np.array([*chain.from_iterable((-1, *part) for part in windows(count))])


def covered(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """The first and the last word that has a character of [start, end)."""
    inside = [number for number, (begins, ends) in enumerate(offsets) if ends > start and begins < end]
    return inside[0], inside[-1]


def told(scored: Scored, rows: Sequence[Row]) -> list[Told]:
    """The likeliest answer to each row."""
    places = np.split(scored.places, np.cumsum(scored.counts)[:-1])
    return [
        likeliest(row["context"], values, seen) for row, values, seen in zip(rows, scored.rows(), places, strict=True)
    ]


def likeliest(context: str, values: np.ndarray, seen: np.ndarray) -> Told:
    """The answer of the highest sum of scores, from those of the units that the model could see: (units, 2), (units,).

    A word has the scores of the window in which they are best. The probability is a softmax over all answers of at most
    `MOST` words, and none."""
    offsets = in_words(context)["offsets"]
    best = np.full((len(offsets) + 1, 2), -np.inf)  # the first is for no answer
    np.maximum.at(best, words_of(len(offsets))[seen] + 1, values.astype(np.float64))
    ends = np.pad(best[1:, 1], (0, MOST - 1), constant_values=-np.inf)
    sums = best[1:, :1] + np.lib.stride_tricks.sliding_window_view(ends, MOST)  # (words, MOST)
    every = np.append(sums.ravel(), best[0].sum())
    chosen = int(every.argmax())
    probability = float(1 / np.exp(every - every[chosen]).sum())
    if chosen == sums.size:
        return Told("", None, None, probability)
    first, more = divmod(chosen, MOST)
    start, end = offsets[first][0], offsets[first + more][1]
    return Told(context[start:end], start, end, probability)


def right_of(row: Row) -> list[str]:
    """The right answers; one empty text where there is none."""
    return [row["context"][start:end] for start, end in row["answers"]] or [""]


def judged(found: Sequence[Told], rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Exact match and F1 of each row: (R,), (R,)."""
    pairs = [answer_match(each.text, right_of(row)) for each, row in zip(found, rows, strict=True)]
    return np.array([exact for exact, _ in pairs]), np.array([f1 for _, f1 in pairs])


def read_answers(value: object, what: str) -> list[tuple[str, int | None]]:
    """The right answers of a cell, each with its place where it is given: {"text": […], "answer_start": […]}, a list of
    {"text": …, "answer_start": …}, or the answer itself; none where there is none. Raises InputError."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise InputError(f"{what} begins like an object and is not valid JSON; mend it") from None
    if isinstance(value, str):
        return [(value.strip(), None)] if value.strip() else []
    if isinstance(value, list | tuple):
        parts = cast("Sequence[object]", value)
        return [each for part in parts for each in read_answers(part, what)]
    if not isinstance(value, Mapping):
        raise InputError(f'{what} is {came(value)}; write {{"text": […], "answer_start": […]}}, or the answer itself')
    cells = cast("Mapping[str, object]", value)
    text, given = cells.get("text", MISSING), cells.get("answer_start")
    found = (text,) if isinstance(text, str) else texts(text, f"{what}: 'text'")
    starts = cast("Sequence[object]", given) if isinstance(given, list | tuple) else [given] * len(found)
    if len(starts) != len(found) or not all(each is None or type(each) is int for each in starts):
        raise InputError(f"{what}: 'answer_start' is {brief(given)} for {len(found)} answers; give each a whole number")
    return list(zip(found, cast("Sequence[int | None]", starts), strict=True))


def placed(text: str, start: int | None, context: str, where: str) -> tuple[int, int]:
    """Where an answer stands in its context; the first place where none is given. Raises InputError."""
    if not text.strip():
        raise InputError(f"{where}: an answer is blank; give none where there is none")
    if start is None:
        start = context.find(text)
        if start < 0:
            raise InputError(
                f"{where}: the answer {brief(text)} is not in its context; copy it from there as it stands"
            )
    there = context[start : start + len(text)] if start >= 0 else ""
    if there != text:
        raise InputError(
            f"{where}: the answer is {brief(text)}, but answer_start {start} points at {brief(there)}; "
            "count characters from 0, or leave answer_start out"
        )
    return start, start + len(text)
