"""Whatever container examples, labels and questions come in: the same rows by place, or one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from test_learner import refusal

from metanlp.algorithms import ProtoNet
from metanlp.backbone import Backbone
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.learner.learner import Adapted, Learner
from metanlp.learner.sklearn_classifier import FewShotClassifier
from metanlp.tasks.reading.build import task_from_rows
from metanlp.tasks.taskset import TaskSet

TEXTS = ["good good", "terrible", "good good good", "terrible terrible", "? ?", "? ? ?"]
LABELS = ["up", "down", "up", "down", "ask", "ask"]
ROWS = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
SHUFFLED = [3, 0, 5, 1, 4, 2]  # an index that says another order
FRAME = pd.DataFrame(ROWS, index=SHUFFLED)
ARROW = pa.table({"text": TEXTS, "label": LABELS})

COLUMNS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "generator": iter,
    "array": np.array,
    "array of objects": lambda cells: np.array(cells, object),
    "numpy scalars": lambda cells: list(np.array(cells)),
    "shuffled Series": lambda cells: pd.Series(cells, index=SHUFFLED[: len(cells)]),
    "filtered Series": lambda cells: pd.Series(["x", *cells])[1:],
    "Categorical": pd.Categorical,
    "pandas Index": pd.Index,
    "arrow array": pa.array,
    "column of a Dataset": lambda cells: datasets.Dataset.from_dict({"x": cells})["x"],
}
TABLES: dict[str, Any] = {
    "tuples": list(zip(TEXTS, LABELS, strict=True)),
    "array of two columns": np.array([TEXTS, LABELS]).T,
    "shuffled frame": FRAME,
    "frame without names": pd.DataFrame(FRAME.to_numpy()),
    "named tuples": list(FRAME.itertuples()),
    "arrow table": ARROW,
    "arrow batch": ARROW.to_batches()[0],
    "Dataset": datasets.Dataset.from_list(ROWS),
    "columns": {"text": TEXTS, "label": LABELS},
    "columns of pandas": {"text": FRAME["text"], "label": FRAME["label"].to_numpy()},
}


@pytest.fixture(scope="module")
def learner(net: Backbone) -> Learner:
    algorithm = ProtoNet()
    return Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def adapted(learner: Learner) -> Adapted:
    return learner.adapt(ROWS)


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_is_its_cells_by_place(learner: Learner, adapted: Adapted, kind: str) -> None:
    column = COLUMNS[kind]
    assert weights.equal(learner.adapt(column(TEXTS), column(LABELS)).phi, adapted.phi)
    assert list(adapted.predict(column(TEXTS))) == LABELS
    assert np.array_equal(adapted.logits(column(TEXTS)), adapted.logits(TEXTS))
    classifier = FewShotClassifier(learner).fit(column(TEXTS), column(LABELS))
    assert classifier.predict(column(TEXTS)).tolist() == LABELS


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_is_its_rows_by_place(learner: Learner, adapted: Adapted, kind: str) -> None:
    table = TABLES[kind]
    assert weights.equal(learner.adapt(table).phi, adapted.phi)
    assert task_from_rows("t", table).pools == task_from_rows("t", ROWS).pools


def test_a_table_is_answered_row_by_row(learner: Learner, adapted: Adapted) -> None:
    named = (FRAME, FRAME[["text"]], ARROW, {"text": TEXTS}, datasets.Dataset.from_list(ROWS))
    for table in (*named, FRAME[["text"]].to_numpy()):
        assert list(adapted.predict(table)) == LABELS
        assert np.array_equal(FewShotClassifier(learner).fit(table, LABELS).predict(table), LABELS)
    assert adapted.predict({"text": TEXTS[1]}) == ["down"]  # as one text alone is one row
    assert FewShotClassifier(learner).fit(pd.DataFrame({"body": TEXTS}), LABELS).predict(["good"]).tolist() == ["up"]


def test_answers_keep_the_index_of_pandas_objects(adapted: Adapted) -> None:
    for given in (FRAME["text"], FRAME, FRAME[["text"]]):
        told = adapted.predict(given)
        assert (type(told), told.name, told.tolist()) == (pd.Series, "label", LABELS)
        assert told.index.equals(FRAME.index)
        assert (FRAME.assign(told=told)["told"] == FRAME["label"]).all()  # pandas puts them beside each other by index
    assert adapted.predict(FRAME["text"][:0]).empty
    frame = adapted.answers(FRAME["text"], as_frame=True)
    assert frame.index.equals(FRAME.index)
    assert frame.to_dict("records") == adapted.answers(TEXTS) == adapted.answers(FRAME["text"])
    assert [*adapted.answers(TEXTS, as_frame=True).index] == [*range(len(TEXTS))]


def test_what_people_see_of_them_is_a_line(learner: Learner, adapted: Adapted) -> None:
    assert repr(learner) == f"Learner(ProtoNet on {learner.net.name}, learned from 0 tasks)"
    assert repr(adapted) == f"Adapted(ProtoNet on {learner.net.name}, classify: ask, down, up)"


def test_rows_of_lists_are_rows(learner: Learner) -> None:
    words, tags = [["Anna", "runs"], ["no", "Peter"]], [["B-person", "O"], ["O", "B-person"]]
    tagger = task_from_rows("t", {"tokens": words, "tags": tags})
    assert [row["tokens"] for row in tagger.pools["train"]] == [("Anna", "runs"), ("no", "Peter")]
    arrow = pd.DataFrame({"tokens": map(np.array, words), "tags": map(np.array, tags)})
    assert task_from_rows("t", arrow) == tagger == task_from_rows("t", pa.table({"tokens": words, "tags": tags}))
    one = {"question": "What is ice?", "choices": ["frozen water", "warm air"], "answer": 0}
    assert len(task_from_rows("t", one).pools["train"]) == 1
    assert "text" in task_from_rows("t", {"text": ["a", "b"], "labels": [["x"], ["x", "y"]]}).pools["train"][1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"a", "b"}, "rows is {'a', 'b'}; give a list"),
        (b"good", "rows is b'good'; give a list"),
        (None, "rows is None; give a list"),
        (np.array(5), "rows is 5; give a list"),
        ({"text": ["a"], "label": ["x", "y"]}, "rows: its columns have {'label': 2, 'text': 1} rows"),
        (datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)), "rows: 'train' is a Dataset of its own"),
        (FRAME.to_dict(), "rows: 'text' is a dict of its own"),
        (pd.concat([FRAME, FRAME], axis=1), "rows: the column 'text' stands twice"),
        (pd.Series(["a", None]), "row 2 is nan; give a text"),
        (pd.Series(["a", pd.NA], dtype=object), "row 2 is None; give a text"),
        (FRAME[["label"]], "row 1 is {'label': 'up'}; give a text"),
        ([""], "row 1 has a text with nothing to read, ''"),
        (["a", {"text": " \n"}], "row 2 has a text with nothing to read"),
        (["a", "\ud800"], "row 2 has a text with half of a surrogate pair"),
    ],
)
def test_what_is_no_container_of_rows(adapted: Adapted, given: Any, said: str) -> None:
    for ask in (adapted.predict, adapted.answers, adapted.scores, adapted.logits):
        assert said in refusal(InputError, ask, given)


@pytest.mark.parametrize("labels", ["updown", {"up": 1}, 5, {"up", "down"}])
def test_labels_that_have_no_places(learner: Learner, labels: Any) -> None:
    assert refusal(InputError, learner.adapt, TEXTS, labels).startswith("labels is ")


def test_a_task_set_holds_tasks(learner: Learner) -> None:
    task = task_from_rows("t", ROWS)
    assert TaskSet(iter([task])).tasks == (task,)  # type: ignore[arg-type]
    assert "a TaskSet holds tasks, and 't' is none" in refusal(InputError, TaskSet, {"t": task})


# What labels and rows were is what they are.


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8])
def test_integers_come_back_as_integers(learner: Learner, tiny: Path, tmp_path: Path, kind: type) -> None:
    labels = [kind({"up": 10, "down": 9, "ask": 2}[label]) for label in LABELS]
    model = learner.adapt(TEXTS, labels)
    model.save(tmp_path)
    classifier = FewShotClassifier(learner).fit(TEXTS, labels)
    for each in (model, Adapted.load(tmp_path, base=str(tiny)), classifier.adapted_):
        assert each.labels == (2, 9, 10)
        assert each.predict(TEXTS) == labels
        assert {type(label) for label in (*each.labels, *each.predict(TEXTS))} == {int}
    named = FRAME.assign(label=labels, label_text=[f"n{label}" for label in labels])
    assert learner.adapt(named).labels == ("n2", "n9", "n10")
    assert learner.adapt(FRAME.assign(y=labels), columns={"label": "y"}).labels == (2, 9, 10)
    other = FRAME.assign(Label=labels).drop(columns="label").rename(columns={"text": "Text"})
    model = learner.adapt(other)
    assert (
        model.labels == learner.adapt(other, columns={"text": "body|text", "label": "class|label"}).labels == (2, 9, 10)
    )
    assert model.predict(other[["Text"]]).tolist() == labels, "a column that examples may have, questions may have"
    assert learner.adapt(TEXTS, list(map(str, labels))).labels == ("10", "2", "9")


def test_pairs_and_single_texts_are_not_answered_by_the_other(learner: Learner, tiny: Path, tmp_path: Path) -> None:
    pairs = list(zip(TEXTS, TEXTS[::-1], strict=True))
    of_pairs, of_texts = learner.adapt(pairs, LABELS), learner.adapt(TEXTS, LABELS)
    for model, right, wrong in ((of_pairs, pairs, TEXTS), (of_texts, TEXTS, pairs)):
        model.save(tmp_path / str(model.pairs))
        for each in (model, Adapted.load(tmp_path / str(model.pairs), base=str(tiny))):
            assert np.array_equal(each.logits(right), model.logits(right))
            assert "but the model learned from" in refusal(InputError, each.predict, [*right, wrong[0]])
    said = refusal(InputError, of_pairs.scores, TEXTS)
    assert said == "row 1 is a single text, but the model learned from pairs of texts; give it such"
    with pytest.raises(InputError, match="row 1 is a pair of texts, but"):
        FewShotClassifier(learner).fit(TEXTS, LABELS).predict(pairs)


def test_a_column_without_a_name_takes_no_other_columns_place(learner: Learner) -> None:
    frame = pd.DataFrame({"text": ["a b", "c d"], "label": ["x", "y"], 0: [1, 2]})
    assert learner.adapt(frame).labels == ("x", "y")
    frame.columns = pd.MultiIndex.from_tuples([("q", "text"), ("q", "label"), ("n", "")])
    assert "a column is called ('q', 'text'); give each column one word" in refusal(InputError, learner.adapt, frame)
