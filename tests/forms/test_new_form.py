"""A form is one file: a sixth one, written here, goes all the way from a file to a card with nothing else changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Here
from form_tasks import rows_of
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Meaning, Row
from metanlp.evaluation.meta_test import Report
from metanlp.experiment.options import Experiment
from metanlp.experiment.run import run
from metanlp.forms import FORMS
from metanlp.forms.base import Form, Scored, mean_per_task
from metanlp.forms.heads import RidgeHead
from metanlp.forms.multilabel import sigmoid
from metanlp.forms.reading import Cells, came
from metanlp.learner.learner import Learner
from metanlp.serve import textbox, trial
from metanlp.serve.result_html import closer
from metanlp.share.card_header import Subject
from metanlp.share.model_card import card
from metanlp.tasks.reading.build import task_from_rows
from metanlp.tasks.reading.columns import guess_columns


def likelihood(scores: Tensor, batch: Batch, weight: Tensor | None = None) -> Tensor:
    """The loss of `Share`: (N, 1) -> (T,)."""
    each = binary_cross_entropy_with_logits(scores[:, 0], batch.targets, reduction="none")
    return mean_per_task(each, batch, weight)


class Share(Form):
    """A text, and the share of its readers who liked it: binary cross-entropy."""

    name, metric, answer = "share", "closeness", "share"
    answer_columns, numbers, answer_type = ("share",), ("share",), complex
    head, prefix = RidgeHead(likelihood), "share/"
    loss = staticmethod(likelihood)
    by_class, class_targets, least = False, False, 1
    hub_task, example = "text-regression", "superb coffee"

    def read_answer(self, cells: Cells, row: Row) -> float:
        value = cells["share"]
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InputError(f"{cells.where}: the share is {came(value)}; write a number from 0 to 1")
        return float(value)

    def gold(self, row: Row, meaning: Meaning) -> Sequence[float]:
        return (row.get("share", 0.0),)

    def answers(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> list[dict[str, Any]]:
        return [{"share": share} for share in sigmoid(scored.values[:, 0]).tolist()]

    def metrics(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> dict[str, float]:
        return {"closeness": float(1 - self.wrong_by(scored, rows, meaning).mean())}

    def wrong_by(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> np.ndarray:
        return np.abs(sigmoid(scored.values[:, 0]) - np.array([row["share"] for row in rows]))


@pytest.fixture(autouse=True)
def share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMS, "share", Share())


def write(path: Path, seed: int) -> Path:
    """Twenty texts, as CSV for the first seed and as JSON lines for others."""
    rows = [{"text": row["text"], "share": row["score"] / 4} for row in rows_of("regress", 20, seed)]
    lines = ["text,share", *(f"{row['text']},{row['share']}" for row in rows)] if seed == 0 else map(json.dumps, rows)
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_from_a_file_to_a_card(tiny: Path, tmp_path: Path, here: Here) -> None:
    taught = [write(tmp_path / "data" / f"{seed}.{'jsonl' if seed else 'csv'}", seed) for seed in range(2)]
    judging = write(tmp_path / "judge.jsonl", 2)
    asked = Experiment(
        model=str(tiny), data=str(tmp_path / "data"), validation=str(taught[1]), test=str(judging),
        baselines=("frozen", "multitask"), steps=3, shots=(3,), episodes=2, rank=4, validations=1, validation_trials=1,
        search_trials=1, out=tmp_path / "out", precision="fp32",
    )  # fmt: skip
    report = run(asked)
    assert isinstance(report, Report)
    assert report.protocol["metrics"] == {"judge": "closeness"}
    assert 0 < report.scores["maml"]["judge"]["3"]["closeness"]["mean"] < 1
    assert "judge" in (tmp_path / "out" / "report.html").read_text()
    learner = Learner.load(tmp_path / "out", base=str(tiny))
    assert {key.split("/")[1] for key in learner.theta if key.startswith("share/")} == {"head", "views"}
    config = json.loads((tmp_path / "out" / "meta_config.json").read_text())
    assert "closeness" in card(Subject("lab/share", config, report=report, method="maml"))

    few = trial.adapt(learner, textbox.examples(judging.read_text()), "fast")
    assert "Nearest examples" in closer(few, {"text": "good coffee"})

    adapt = ("metanlp", "adapt", "--from", tmp_path / "out", "--base", tiny, "--examples", judging, "--out")
    assert here(*adapt, tmp_path / "new")[0] == 0
    (tmp_path / "texts.txt").write_text("good coffee\nawful train\n")
    code, out, _ = here("metanlp", "predict", "--from", tmp_path / "new", tmp_path / "texts.txt", "--base", tiny)
    told = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["text"] for row in told] == ["good coffee", "awful train"]
    assert all(0 < row["share"] < 1 for row in told)
    page = card(Subject("lab/one", json.loads((tmp_path / "new" / "meta_config.json").read_text())))
    assert "pipeline_tag: text-regression" in page
    assert 'model.predict(["superb coffee"])' in page


def test_its_mistakes_are_told() -> None:
    with pytest.raises(InputError, match="rows: row 2: the share is 'x'; write a number from 0 to 1"):
        task_from_rows("rows", [{"text": "a", "share": 0.5}, {"text": "b", "share": "x"}])
    with pytest.raises(InputError, match="row 1: has 'score', 'share', each an answer of its own"):
        task_from_rows("rows", [{"text": "a", "share": 0.5, "score": 1.0}])
    found = guess_columns({"review": "a", "label": 1j}, {}, classes=(), not_label=(), source="hub")
    assert found == {"share": "label", "text": "review"}
