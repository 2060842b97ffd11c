"""The page of the model card, from the template `card.md.j2`: how a published model is used and what is known of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from metanlp.algorithms import ALGORITHMS
from metanlp.backbone.views import adapter_sets
from metanlp.core.intervals import Interval
from metanlp.evaluation.results import Report
from metanlp.forms import Form
from metanlp.learner.origin import origins, taught_before, teachers
from metanlp.report.advice import lines
from metanlp.report.tables import percent, score_rows
from metanlp.share.card_header import Subject, header

MOST_NAMES = 40  # of tasks on the page; meta_config.json has them all


def card(subject: Subject) -> str:
    """README.md: YAML header and page."""
    config, report = subject.config, subject.report
    paper = (ALGORITHMS[subject.kind].__doc__ or "").split("\n\n")[0]
    words: dict[str, Any] = {
        "subject": subject,
        "config": config,
        "report": report,
        "method": " ".join(paper.split()),
        "question": _python([_example(subject)]),
        "few": _python([*subject.form.few]),
        "opens": config["backbone"].get("opens", "AutoModel"),  # what transformers opens the pretrained model with
        "origin": _origin(config["record"]),
        "sets": adapter_sets(config["backbone"].get("views", ())),
        "taught": len(teachers(config["record"])),
        "cost": _cost(subject),
        "versions": _versions(config),
    }
    if report:
        words["left_out"] = sum((report.protocol.get("training_rows_left_out") or {}).values())
        words["scores"] = _table(("task", "shots", "metric", *report.methods), score_rows(report))
        words["answers"] = lines(report, {"learners": {subject.method: subject.repo_id}} if subject.learner else {})
        words["curves"] = _curves(report)
    template = Path(__file__).with_name("card.md.j2").read_text(encoding="utf-8")
    return str(ModelCard.from_template(header(subject), template_str=template, **words)).rstrip() + "\n"


def _example(subject: Subject) -> Any:
    """A question to a model: one text or two, as those that it was adapted to."""
    form, pairs = subject.form, subject.config.get("pairs")
    if pairs is None or form.example not in (Form.example, Form.pair):
        return form.example
    return Form.pair if pairs else Form.example


def _origin(record: Mapping[str, Any]) -> str:
    """The tasks that taught or chose, by role and source; empty where none is recorded."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    roles = {"taught the learner that training began from": taught_before(record)}
    for role, names in record.get("tasks", {}).items():
        roles["teaches" if role == "train" else "chooses weights and recipe"] = origins(record, names)
    for does, tasks in roles.items():
        for name, origin in tasks.items():
            rows.setdefault((does, origin.source, origin.licence), []).append(name)
    table = [(*row, _some(names)) for row, names in rows.items()]
    return _table(("role", "source", "licence of its texts", "tasks"), table) if table else ""


def _curves(report: Report) -> str:
    """Score by inner step."""
    steps = list(dict.fromkeys(step for curve in report.curves.values() for step in curve))
    rows = [
        (name, *(percent(Interval(**curve[step])) if step in curve else "" for step in steps))
        for name, curve in report.curves.items()
    ]
    return _table(("method", *(f"{step} steps" for step in steps)), rows) if rows else ""


def _cost(subject: Subject) -> str:
    record = subject.config["record"]
    rows = [
        ("meta-training, seconds", _number(record.get("train_s"))),
        ("meta-steps", _number(record.get("steps"))),
        ("tokens through the model, forward and backward", _number(record.get("tokens"))),
        ("search of the recipe, seconds", _number(record.get("recipe_s"))),
        ("processes", _number(record.get("world_size"))),
    ]
    if subject.report:
        cost = subject.report.methods[subject.method]
        rows += [("to adapt to a task, seconds, median", f"{cost['adapt_s']:.2f}"),
                 ("peak memory of training and tests, MB", _number(cost["peak_mb"])),
                 ("parameters learned", _number(cost["parameters"]))]  # fmt: skip
    return _table(("what", "how much"), rows)


def _versions(config: Mapping[str, Any]) -> str:
    base, files = config["base"], {f"`{name}`": sha256 for name, sha256 in config["files"].items()}
    if base["sha256"]:
        files[f"the weights of `{base['name']}`"] = base["sha256"]
    rows = [*config["versions"].items(), *((f"sha256 of {name}", f"`{sha256}`") for name, sha256 in files.items())]
    return _table(("what", "which"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _python(value: Any) -> str:
    """Texts, and lists and tuples of them, as they are written in Python."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    opening, closing = "()" if isinstance(value, tuple) else "[]"
    return f"{opening}{', '.join(map(_python, value))}{closing}"


def _number(value: float | None) -> str:
    return "not written down" if value is None else f"{value:,.0f}"
