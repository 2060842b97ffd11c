"""Tables of answers that other programs read back as they were."""

from __future__ import annotations

import csv
import io
import json

import pandas as pd

from metanlp.learner.prediction_table import as_table


def test_a_lone_carriage_return_stays_in_its_cell() -> None:
    rows = [{"id": 1, "text": "first\rsecond", "label": "a"}, {"id": 2, "text": 'say "no"', "label": "b"}]
    table = as_table(rows, "csv")
    assert [row["text"] for row in csv.DictReader(io.StringIO(table, newline=""))] == [row["text"] for row in rows]
    frame = pd.read_csv(io.StringIO(table))
    assert frame.text.tolist() == [row["text"] for row in rows]
    assert frame.id.tolist() == [1, 2]


def test_numbers_that_json_has_no_word_for_are_null() -> None:
    rows = [{"f": float("nan"), "g": [float("inf"), 1.5], "h": {"i": float("-inf")}, "text": "NaN"}]
    (line,) = as_table(rows, "jsonl").splitlines()
    assert json.loads(line, parse_constant=lambda word: word + " is not JSON") == {
        "f": None, "g": [None, 1.5], "h": {"i": None}, "text": "NaN",
    }  # fmt: skip
