"""How good an adapted model is on labelled rows: the same by hand, whatever the rows leave out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from form_tasks import FORMS as NAMES
from form_tasks import rows_of
from near import near

from metanlp.algorithms import Frozen
from metanlp.backbone import Backbone
from metanlp.core.errors import InputError
from metanlp.episodes.chunks import chunks, scored
from metanlp.episodes.pool import Pool
from metanlp.forms import FORMS
from metanlp.learner.learner import Adapted, Learner
from metanlp.tasks.reading.build import task_from_rows


@pytest.fixture(scope="module")
def learner(net: Backbone) -> Learner:
    return Learner(Frozen(), net, Frozen().init(net, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", NAMES)
def test_every_form_is_judged_by_its_own_metrics(learner: Learner, name: str) -> None:
    """As rows of a task are that are numbered together with the examples."""
    taught, judging = rows_of(name, 16, 0), rows_of(name, 30, 1)
    adapted = learner.adapt(taught)
    task = task_from_rows("both", [*taught, *judging])
    rows = task.pools["train"][16:]
    passes = chunks(Pool(task.meaning, rows, adapted.net.encode))
    each = [adapted.algorithm.scores(adapted.net, adapted.phi, chunk.batch) for chunk in passes]
    wanted = FORMS[name].metrics(scored(passes, each), rows, adapted.meaning)
    found = adapted.score(judging)
    assert found["rows"] == 30
    for metric, value in wanted.items():
        near(found[metric], value, 1e-5)


def test_classes_that_no_row_has_keep_their_numbers(learner: Learner) -> None:
    adapted = learner.adapt(rows_of("classify", 16, 0))
    judging = [row for row in rows_of("classify", 30, 1) if row["label"] == "praise"]
    told = adapted.predict([row["text"] for row in judging])
    found = adapted.score([row["text"] for row in judging], [row["label"] for row in judging])
    praised = told.count("praise")
    near(found["accuracy"], praised / len(told), 1e-9)
    of: dict[str, dict[str, Any]] = found["classes"]
    assert (of["praise"]["rows"], of["complaint"]["rows"], of["complaint"]["recall"]) == (len(told), 0, None)
    assert of["praise"]["called"] == ({"complaint": len(told) - praised} if praised < len(told) else {})
    low, high = found["accuracy_interval"]
    assert 0 <= low <= found["accuracy"] <= high <= 1


def test_integers_stay_the_same_classes(learner: Learner) -> None:
    texts = [row["text"] for row in rows_of("classify", 8, 0)]
    adapted = learner.adapt(texts, np.array([3, 7] * 4))
    found = adapted.score(texts[1::2], [7] * 4)
    assert found["classes"]["7"]["rows"] == 4
    assert adapted.predict(texts[1::2]).count(7) == round(4 * found["accuracy"])


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([{"text": "a", "label": "pride"}], "row 1: the label 'pride' was never seen"),
        ([{"text": "a", "score": 1.0}], "row 1: is of the form 'regress', the model of 'classify'"),
        ([{"text_a": "a", "text_b": "b", "label": "praise"}], "a pair of texts, but the model learned from single"),
        ([{"text": "a"}], "label"),
        ([], "has no rows"),
    ],
)
def test_rows_that_can_not_judge(learner: Learner, rows: list[dict[str, Any]], fault: str) -> None:
    adapted: Adapted = learner.adapt(rows_of("classify", 8, 0))
    with pytest.raises(InputError, match=fault):
        adapted.score(rows)
