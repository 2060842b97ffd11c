"""What `metanlp tasks` tells of one file, without the seconds that the libraries of training take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from form_tasks import FORMS as NAMES
from form_tasks import rows_of

import metanlp
from metanlp.forms import FORMS
from metanlp.tasks.details import READ, SHOWN, details
from metanlp.tasks.reading.build import task_from_rows

ROOT = Path(next(iter(metanlp.__path__))).parent
ROWS = [("jams again", "printer"), ("jams", "printer"), ("stays black", "monitor"), ("is dead", "printer"),
        ("long " * (READ + 1), "badge"), ("beeps", "monitor")]  # fmt: skip


def test_labels_chance_long_texts_and_a_row_of_each_class() -> None:
    task = task_from_rows("t", [{"text": text, "label": label} for text, label in ROWS])
    found = details(task)
    assert list(found["labels"].items()) == [("printer", 3), ("monitor", 2), ("badge", 1)]
    assert (found["chance"], found["commonest"]) == (1 / 3, 0.5)
    assert (found["longest"], found["cut"]) == (READ + 1, 1)
    assert len(found["sample"]) == SHOWN
    assert [answer for _, answer in found["sample"][:3]] == ["printer", "monitor", "badge"]
    assert found["sample"][1] == ["stays black", "monitor"]


@pytest.mark.parametrize("name", NAMES)
def test_every_form_has_some(name: str) -> None:
    found = details(task_from_rows("t", rows_of(name, 8, 0)))
    assert ("chance" in found) == FORMS[name].single_label
    assert len(found["sample"]) == SHOWN
    assert found["longest"] > 0
    json.dumps(found)


def test_a_file_is_described_without_what_trains(tmp_path: Path) -> None:
    """Of one alone, its rows too; of several only the table."""
    (tmp_path / "one.csv").write_text("\n".join(["text;label", *map(";".join, ROWS)]))
    (tmp_path / "two.csv").write_text("\n".join(["text;label", *map(";".join, ROWS)]))
    code = f"""
import sys
from metanlp.cli.commands import main
for source in ({str(tmp_path / "one.csv")!r}, {str(tmp_path)!r}):
    sys.argv = ["metanlp", "tasks", source, "--json"]
    main()
heavy = {{"torch", "transformers", "datasets", "pandas", "scipy", "sklearn", "pyarrow"}} & {{*sys.modules}}
assert not heavy, heavy
"""
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    one, several = map(json.loads, ended.stdout.splitlines())
    assert list(one["details"]["labels"]) == ["printer", "monitor", "badge"]
    assert "details" not in several
    assert "accuracy without learning: 0.333 by guessing, 0.500 by always saying 'printer'" in ended.stderr
    assert "1 texts have more words than the 128 tokens that a model reads by default" in ended.stderr
    assert "  monitor: stays black\n" in ended.stderr
