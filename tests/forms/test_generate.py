"""What is particular to texts that are written: how rows are read, what identifies them, how texts are judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from near import near
from sacrebleu.metrics.chrf import CHRF

from metanlp.core.errors import InputError
from metanlp.core.types import Meaning
from metanlp.episodes.pool import Pool
from metanlp.forms import FORMS, OBJECTIVES, meant
from metanlp.forms.base import Scored
from metanlp.forms.generate import languages_of
from metanlp.tasks.reading.files import read_task, read_texts

FORM = FORMS["generate"]
MEANING = Meaning("generate")
ROWS = ({"source": "A dog  sleeps.", "target": "Ein Hund schläft."}, {"source": "b", "target": "ein b"})


def test_a_form_among_the_forms() -> None:
    assert OBJECTIVES["generate"] is FORM
    assert (meant(written=True), meant(written=False)) == (FORM, FORMS["classify"])
    assert [FORM.key(row) for row in ROWS] == [("a dog sleeps.",), ("b",)]
    assert FORM.identity(ROWS[0]) == FORM.identity({"source": "a DOG sleeps."})
    assert [FORM.texts(row)[0] for row in (ROWS[1], {"source": "b"})] == [("b", "ein b"), ("b",)]
    assert FORM.truth(ROWS[0], MEANING) == "Ein Hund schläft."
    with pytest.raises(InputError, match="rows of the form 'generate' need a model that writes, and this one reads"):
        Pool(MEANING, ROWS, lambda *_: None)  # pyright: ignore[reportArgumentType]


def test_rows_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "Source,target,target_lang,source_lang,note\nA dog\tsleeps,5,de,en,x\nb,c,de,en,y\n"
    )
    task = read_task(tmp_path / "t.csv")
    assert (task.form, task.labels, task.metric) == ("generate", (), "chrf")
    one, _ = task.pools["train"]
    assert one == {"source": "A dog sleeps", "target": "5", "source_lang": "en", "target_lang": "de"}
    assert languages_of(one) == ("en", "de")
    (tmp_path / "t.txt").write_text("a dog\nb\n")
    (tmp_path / "t.jsonl").write_text('{"english": "a dog", "target": null}\n{"english": "b"}\n')
    lines = read_texts(tmp_path / "t.txt", form="generate")
    assert lines == read_texts(tmp_path / "t.jsonl", columns={"source": "english"}, form="generate")
    assert lines == [{"source": "a dog"}, {"source": "b"}]
    (tmp_path / "texts.csv").write_text("text,label,source\na,x,web\nb,y,mail\n")
    assert read_task(tmp_path / "texts.csv").form == "classify"


def test_what_is_written_is_judged() -> None:
    costs = np.array([[1.0], [2.0], [6.0]], np.float32)
    scored = Scored(costs, np.array([2, 1]), np.array([0, 1, 0]), ("Ein Hund schlief.", "ein b"))
    found = FORM.metrics(scored, ROWS, MEANING)
    targets = [row["target"] for row in ROWS]
    near(found["nll"], 3.0)
    near(found["chrf"], CHRF().corpus_score(list(scored.texts), [targets]).score)
    assert 0 < found["bleu"] < 100
    assert FORM.answers(scored, ROWS, MEANING) == [{"target": text} for text in scored.texts]
    wrong = FORM.wrong_by(scored, ROWS, MEANING)
    assert 0 < wrong[0] < 1
    near(wrong[1], 0.0)
    turned = scored.of(np.array([1, 0]))
    assert turned.texts == scored.texts[::-1]
    assert turned.values[:, 0].tolist() == [6.0, 1.0, 2.0]
