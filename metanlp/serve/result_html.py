"""The result of one text as HTML; all user text is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from metanlp.algorithms import ALGORITHMS
from metanlp.core.types import Row
from metanlp.evaluation.diagnostics import in_words
from metanlp.learner.learner import Adapted, Learner
from metanlp.learner.origin import teachers
from metanlp.serve.textbox import shown
from metanlp.serve.trial import Near, Trial, Word, nearest, words

STYLE = """
.bars {display: grid; grid-template-columns: minmax(4rem, max-content) 1fr max-content; gap: .2rem .6rem;
    align-items: center; overflow-wrap: anywhere}
.bars i {display: block; height: .7rem; border-radius: .2rem; background: #2a78d6; min-width: 1px}
.closer h4 {margin: 1rem 0 .3rem; font-size: .95rem}
.closer p, .closer li {overflow-wrap: anywhere; line-height: 1.7}
.closer mark {color: inherit; border-radius: .2rem; padding: .1rem .15rem}
.closer small {opacity: .8}
"""
LONGEST = 200  # characters of a text in a list
LEAST = 0.01  # smallest change of the score that can be marked in full colour
FOR, AGAINST = "42, 120, 214", "224, 121, 31"  # RGB of words that raise or lower the score of the answer


def about(model: Learner | Adapted, name: str) -> str:
    """What the model is called, what it is, and what it was trained on."""
    method = {kind: word for word, kind in ALGORITHMS.items()}[type(model.algorithm)]
    tasks = [*teachers(model.record)]
    sources = list(dict.fromkeys(task.partition("/")[0] for task in tasks))
    learned = f"meta-trained on {len(tasks)} tasks ({', '.join(sources)})" if tasks else "not meta-trained"
    answers = f"answers {', '.join(model.label_words)}; " if isinstance(model, Adapted) and model.labels else ""
    tip = escape("\n".join(tasks), quote=True)
    return (
        f'<p class=about title="{tip}"><b>{escape(name)}</b>: {escape(answers)}{method} on {escape(model.net.name)}, '
        f"{escape(learned)}</p>"
    )


def lines(trial: Trial, rows: Sequence[Row], answers: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each text: what it is, and what the model says of it."""
    return [_line(trial, row, answer) for row, answer in zip(rows, answers, strict=True)]


def _line(trial: Trial, row: Row, answer: Mapping[str, Any]) -> str:
    return f"{_short(shown(row.values()))} → {_said(answer, trial.form.shown or trial.form.answer)}"


def closer(trial: Trial, row: Row) -> str:
    """Details of one row: the score of every class, the words that changed it most, and the nearest examples."""
    labels, parts = trial.adapted.label_words, list[str]()
    if trial.form.single_label:
        scores = trial.adapted.scores([row])[0]
        parts += [_bars(scores, labels), _words(words(trial.adapted, row), scores, labels)]
    else:
        (answer,) = trial.adapted.answers([row])
        parts += [f"<p>{escape(_line(trial, row, answer))}</p>", _where(trial.form.marked(row, answer))]
    return f"<div class=closer>{''.join(parts)}{_nearest(trial, nearest(trial, row))}</div>"


def _bars(scores: np.ndarray, labels: Sequence[str]) -> str:
    bars = "".join(
        f'<span>{escape(labels[n])}</span><i style="width: {100 * scores[n]:.1f}%"></i>'
        f"<span>{percent(float(scores[n]))}</span>"
        for n in map(int, np.argsort(-scores, kind="stable"))
    )
    return f"<h4>Score of every class</h4><div class=bars>{bars}</div>"


def _words(pieces: Sequence[Word], scores: np.ndarray, labels: Sequence[str]) -> str:
    """The text, words marked by how much the score of the answer changes without them; the three largest changes."""
    score, answer = float(scores.max()), escape(labels[int(scores.argmax())])
    changes = [0.0 if word.without is None else score - word.without for word in pieces]
    most = max(LEAST, *map(abs, changes))
    marked = "".join(_marked(word.text, change, most) for word, change in zip(pieces, changes, strict=True))
    first = sorted(range(len(pieces)), key=lambda n: -abs(changes[n]))[:3]
    told = ", ".join(
        f"without “{escape(pieces[n].text)}” {percent(pieces[n].without or 0.0)}" for n in first if changes[n]
    )
    told = f"{answer} has {percent(score)}; {told}" if told else "There is no word that could be left out."
    return (
        f"<h4>Words that counted</h4><p>{marked}</p><p><small>{told}. Blue speaks for it, orange against.</small></p>"
    )


def _where(place: tuple[str, int, int] | None) -> str:
    """The text with the answer marked in it."""
    if place is None:
        return ""
    text, start, end = place
    before, there, after = (escape(part) for part in (text[:start], text[start:end], text[end:]))
    return f'<h4>Where it stands</h4><p>{before}<mark style="background: rgba({FOR}, 0.40)">{there}</mark>{after}</p>'


def _marked(text: str, change: float, most: float) -> str:
    if abs(change) < 0.05 * most:
        return escape(text)
    alpha = 0.6 * abs(change) / most
    return f'<mark style="background: rgba({FOR if change > 0 else AGAINST}, {alpha:.2f})">{escape(text)}</mark>'


def _nearest(trial: Trial, near: Sequence[Near]) -> str:
    items = "".join(
        f"<li>{escape(_short(shown(trial.form.title(row))))} → "
        f"<b>{escape(in_words(trial.form.truth(row, trial.adapted.meaning)))}</b> <small>{cosine:.2f}</small></li>"
        for row, cosine in near
    )
    return f"<h4>Nearest examples, and their cosine</h4><ol>{items}</ol>" if items else ""


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _said(answer: Mapping[str, Any], part: str) -> str:
    sure = answer.get("probability")
    return in_words(answer[part]) + (f" ({percent(sure)})" if isinstance(sure, float) else "")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"
