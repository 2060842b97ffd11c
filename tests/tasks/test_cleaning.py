"""Cleaning: what it changes, that once is enough, and what it leaves out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from form_tasks import task_of
from hypothesis import given
from hypothesis import strategies as st

from metanlp.core.types import Row
from metanlp.forms import DEFAULT
from metanlp.report.cleaning import cleaning_examples, cleaning_rows
from metanlp.tasks.reading.cleaning import clean_rows, clean_task, cleaned
from metanlp.tasks.rowset import keys_of

MARKS = ["<b>", "</b>", "<br/>", "<script>", "</script>", "<!--", "-->", "<![", "<!x", "<?", ">", "<", "&", "&amp;",
         "lt;", "&#60;", "&#x26;", "amp;", "&nbsp;", "$", "US$", "€", " EUR", "USD ", "5", "1,299.00", "1.299,5", "0.0",
         ".", ",", " ", "\n", "\x00", "\u200b", "e", "\u0301", "😀", "x", "<3", "<a href='q'>", "</foo>",
         "<foo@bar.org>"]  # fmt: skip


@given(st.one_of(st.text(), st.lists(st.sampled_from(MARKS), max_size=25).map("".join)))
def test_once_is_enough(text: str) -> None:
    once = cleaned(text)[0]
    assert cleaned(once) == (once, [])


@given(st.lists(st.lists(st.sampled_from(MARKS), max_size=5).map("".join), max_size=8))
def test_clean_rows_stay_as_they_are(texts: Sequence[str]) -> None:
    kept, rows, said = clean_rows([{"text": text, "label": n % 2} for n, text in enumerate(texts)])
    assert len(kept) + sum(said.counts[kind] for kind in ("empty", "repeats", "near repeats")) == len(texts)
    again, same, nothing = clean_rows(rows)
    assert (again, same) == (list(range(len(rows))), rows)
    assert not any(count for kind, count in nothing.counts.items() if kind != "other script")


@pytest.mark.parametrize(
    ("text", "clean", "kinds"),
    [
        ("plain text, <3 and a < b", "plain text, <3 and a < b", []),
        ("<p>Fits <b>well</b>.</p><p>Cheap</p>", "Fits well. Cheap", ["markup"]),
        ("big<br>small<!-- ad --><script>steal()</script>", "big small", ["markup"]),
        ("AT&amp;T &#40;new&#41; &amp;lt;3 &quot;so&quot;", 'AT&T (new) <3 "so"', ["markup"]),
        ("mail <me@shop.org> <lt;<br/>", "mail <me@shop.org> <lt;<br/>", []),
        ("cafe\u0301 so\u00adft\u200b \x07 bell", "café soft bell", ["characters"]),
        ("US$ 1,299.00 or €12,5 or £3", "1299 USD or 12.50 EUR or 3 GBP", ["prices"]),
        ("1.299,95 EUR and 20 usd, 7 $5", "1299.95 EUR and 20 USD, 7 5 USD", ["prices"]),
        ("model 12.5, 5k, v2.0", "model 12.5, 5k, v2.0", []),
        ("$1.5k, US$1.2bn, HK$100, R$ 20, $1.2.3, $007", "$1.5k, US$1.2bn, HK$100, R$ 20, $1.2.3, $007", []),
        ("$0.125, €0,005 and £1,234.5678.", "0.125 USD, 0.005 EUR and 1234.5678 GBP.", ["prices"]),
        ("₹1,23,456 $1.250.000 $1250.125", "123456 INR 1250000 USD 1250.125 USD", ["prices"]),
        (" two\t\n lines\u00a0", "two lines", ["spaces"]),
        ("<br>&nbsp;", "", ["markup"]),
    ],
)
def test_what_it_changes(text: str, clean: str, kinds: list[str]) -> None:
    assert cleaned(text) == (clean, kinds)


def test_a_line_of_many_angles_takes_no_longer_than_others() -> None:
    """Squares of its length would be minutes; a tenth of it took 13 seconds."""
    begun, text = time.perf_counter(), "a<b " * 40_000
    assert cleaned(text) == (text.strip(), ["spaces"])
    assert time.perf_counter() - begun < 10


def test_repeats_and_empty_rows_are_left_out_and_counted() -> None:
    rows: list[Row] = [
        {"text": "A red <b>kettle</b>", "label": 0},
        {"text": "A red kettle", "label": 0},
        {"text": "a RED kettle!", "label": 0},
        {"text": "a red kettle", "label": 1},  # another answer to the same text is no repeat
        {"text": "<br>", "label": 1},
        {"text": "красный чайник", "label": 1},
    ]
    kept, found, said = clean_rows(rows)
    assert kept == [0, 3, 5]
    assert [row["text"] for row in found] == ["A red kettle", "a red kettle", "красный чайник"]
    counts = {"markup": 2, "repeats": 1, "near repeats": 1, "empty": 1, "other script": 1}
    assert (said.rows, {kind: n for kind, n in said.counts.items() if n}) == (6, counts)
    assert said.examples["markup"] == ("A red <b>kettle</b>", "A red kettle")
    assert said.examples["empty"] == ("<br>", "")


def test_of_a_repeat_across_pools_the_training_row_goes() -> None:
    plain, other_task = task_of("classify"), task_of("classify", seed=1)
    one, other, *rest = plain.pools["train"]
    judging = {**other, "text": f"<p>{other['text']}</p>"}
    task = replace(plain, pools={"train": (one, other, *rest), "test": (judging,)}, supports={1: ((judging,),)})
    done = clean_task(task)
    assert [*done.pools] == ["train", "test"]
    assert list(done.pools["test"]) == [other] == list(done.supports[1][0])
    assert list(done.pools["train"]) == [one, *rest]
    assert done.cleaning
    assert keys_of(done.pools["train"], DEFAULT).tolist() == keys_of(list(done.pools["train"]), DEFAULT).tolist()
    row, whole = cleaning_rows([done, clean_task(other_task)])
    assert row == {"task": task.name, "rows": 1 + len(plain.pools["train"]), "markup": 1, "repeats": 1}
    assert whole == row | {"task": "all 2", "rows": row["rows"] + len(other_task.pools["train"])}
    assert [each["change"] for each in cleaning_examples([done])] == ["repeats", "markup"]


@pytest.mark.parametrize("form", ["choose", "tag"])
def test_rows_that_are_no_texts_stay(form: str) -> None:
    task = task_of(form)
    assert clean_task(task) is task
