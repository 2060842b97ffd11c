"""What somebody wants to know of one task before anything learns from it: labels, chance, long texts, a few rows."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np

from metanlp.core.types import Task
from metanlp.forms import FORMS
from metanlp.tasks.rowset import row_sets, targets_of, words_of

SHOWN = 5  # rows
READ = 128  # tokens of a text that models read by default: a text of more words is cut for sure


def details(task: Task) -> dict[str, Any]:
    """Of all pools: `labels`, rows by label, the commonest first; `chance`, of guessing, and `commonest`, of always
    saying that label, as accuracies; `longest`, in words; `cut`, how many texts are longer than a model reads, at
    least; `sample`, texts and answer of the first row of each class, or of the first rows. Labels and what follows from
    them are there where rows have one each."""
    form, rows = FORMS[task.form], [*chain.from_iterable(row_sets(task))]
    words = np.concatenate([words_of(each, form) for each in row_sets(task)])
    found: dict[str, Any] = {"longest": int(words.max()), "cut": int((words > READ).sum())}
    places = [*range(min(SHOWN, len(rows)))]
    if form.single_label:
        classes = np.concatenate([targets_of(each, form) for each in row_sets(task)])
        counts = np.bincount(classes, minlength=len(task.labels))
        order = np.argsort(-counts, kind="stable")
        first = sorted(np.unique(classes, return_index=True)[1].tolist())
        places = [*dict.fromkeys([*first, *places])][:SHOWN]
        found |= {
            "labels": {task.labels[n]: int(counts[n]) for n in order},
            "chance": 1 / len(task.labels),
            "commonest": float(counts.max() / counts.sum()),
        }
    return found | {"sample": [[*form.title(rows[n]), str(form.truth(rows[n], task.meaning))] for n in places]}
