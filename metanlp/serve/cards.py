"""What the page shows of one text, as HTML; every text of the user's is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from metanlp.forms import FORMS
from metanlp.insight import in_words
from metanlp.serve.box import shown
from metanlp.serve.trial import Near, Trial, Word, nearest, words
from metanlp.tasks.columns import TEXTS
from metanlp.types import Row

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
LEAST = 0.01  # a change of the score by which no word counts fully
FOR, AGAINST = "42, 120, 214", "224, 121, 31"  # what a word speaks, in red, green and blue


def answers(trial: Trial, rows: Sequence[Row]) -> list[str]:
    """A line for each text: what it is, and what the model says of it."""
    form = FORMS[trial.task.form]
    return [f"{_short(shown(row))} → {_said(answer, form.shown or form.answer)}"
            for row, answer in zip(rows, trial.adapted.answers(rows), strict=True)]  # fmt: skip


def closer(trial: Trial, row: Row) -> str:
    """One text: the score of every class, which words counted, and the examples that it is most like."""
    labels, parts = trial.adapted.labels, list[str]()
    if trial.task.form == "classify":
        scores = trial.adapted.scores([row])[0]
        parts += [_bars(scores, labels), _words(words(trial.adapted, row), scores, labels)]
    else:
        parts.append(f"<p>{escape(answers(trial, [row])[0])}</p>")
    return f"<div class=closer>{''.join(parts)}{_nearest(trial, nearest(trial, row))}</div>"


def _bars(scores: np.ndarray, labels: Sequence[str]) -> str:
    bars = "".join(
        f'<span>{escape(labels[n])}</span><i style="width: {100 * scores[n]:.1f}%"></i>'
        f"<span>{percent(float(scores[n]))}</span>"
        for n in map(int, np.argsort(-scores, kind="stable"))
    )
    return f"<h4>Score of every class</h4><div class=bars>{bars}</div>"


def _words(pieces: Sequence[Word], scores: np.ndarray, labels: Sequence[str]) -> str:
    """The text with the words marked whose absence changes the score of the answer, and the three that change it most
    in figures."""
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


def _marked(text: str, change: float, most: float) -> str:
    if abs(change) < 0.05 * most:
        return escape(text)
    alpha = 0.6 * abs(change) / most
    return f'<mark style="background: rgba({FOR if change > 0 else AGAINST}, {alpha:.2f})">{escape(text)}</mark>'


def _nearest(trial: Trial, near: Sequence[Near]) -> str:
    form = FORMS[trial.task.form]
    items = "".join(
        f"<li>{escape(_short(shown({n: row[n] for n in TEXTS if n in row})))} → "
        f"<b>{escape(in_words(form.truth(row, trial.task.labels)))}</b> <small>{cosine:.2f}</small></li>"
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
