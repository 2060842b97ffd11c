"""The page of the model card: what a published learner or adapted model is, how to use it, and what is known of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from huggingface_hub import ModelCard

from metanlp.algorithms import ALGORITHMS
from metanlp.card_data import Subject, header
from metanlp.meta_test import Report
from metanlp.metrics import metric_of_means
from metanlp.report import percent, verdict
from metanlp.tasks.licences import licence_of

TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

{{ summary }}

## How to use it

{{ use }}

## The adapter alone, with plain peft

{{ peft }}

## What it learned from

{{ origin }}

## Results

{{ results }}

## Cost

{{ cost }}

## Limits

{{ limits }}

## Versions and files

{{ versions }}
"""

# form -> a question to a model of it
QUESTIONS = {
    "classify": '["keyboard has three dead keys"]',
    "regress": '[("a man plays a guitar", "somebody makes music")]',
    "multilabel": '["keyboard has three dead keys"]',
    "choose": '[("What is ice?", ["frozen water", "warm air"])]',
    "tag": '["Maria lives in Lima."]',
}
ADAPT = """```python
from metanlp import Learner

learner = Learner.load("{name}"{base})
clf = learner.adapt([("The printer jams again", "equipment"), ("My badge stopped working", "access")])
print(clf.predict(["keyboard has three dead keys"]))
clf.save("out/clf")
```

Two rows show how; 4 to 16 of each class are what it is made for. It needs metanlp {version}."""
PREDICT = """```python
from metanlp import Adapted

model = Adapted.load("{name}"{base})
print(model.predict({question}))
```

It needs metanlp {version}."""
PEFT = """```python
from peft import PeftModel
from transformers import AutoModel

model = PeftModel.from_pretrained(AutoModel.from_pretrained("{model}"), "{name}")
```

This gives the adapted hidden states. The head, the weights of the views and how to adapt are in
`meta_model.safetensors` and `meta_config.json`, which peft does not read."""
OWN_FOLDER = """

The pretrained model was a folder of who made this, called `{name}`, its `model.safetensors` with the sha256
`{sha256}`. Have the same, and name its folder as `base`."""
MOST_NAMES = 40  # of tasks on the page; meta_config.json has them all


def card(subject: Subject) -> str:
    """README.md: YAML header and page."""
    sections = {"title": subject.repo_id.split("/")[1], "summary": _summary(subject), "use": _use(subject),
                "peft": PEFT.format(model=subject.config["base"]["name"], name=subject.repo_id),
                "origin": _origin(subject), "results": _results(subject), "cost": _cost(subject),
                "limits": _limits(subject), "versions": _versions(subject)}  # fmt: skip
    return str(ModelCard.from_template(header(subject), template_str=TEMPLATE, **sections)).rstrip() + "\n"


def _summary(subject: Subject) -> str:
    config, record, adapt = subject.config, subject.config["record"], subject.config["backbone"]["adapt"]
    taught = record.get("tasks", {}).get("train", [])
    learned = f"learned on {len(taught)} tasks" if taught and record.get("tokens") else "without any training before"
    places = adapt["targets"] + (", top half of the layers" if adapt["layers"] == "top half" else "")
    what = f"a LoRA adapter of rank {adapt['rank']} ({places}) on `{config['base']['name']}`"
    paper = " ".join((ALGORITHMS[subject.kind].__doc__ or "").split("\n\n")[0].split())
    if subject.learner:
        first = f"A starting point for few-shot learning, {learned}: a new task needs a handful of labelled examples."
    else:
        labels = ", ".join(f"`{label}`" for label in config["labels"])
        first = f"A model for one task of the form {subject.form}" + (f", with the labels {labels}" if labels else "")
        first += f", adapted from a starting point {learned}."
    return f"{first} It is {what}, with what reads it, made with metanlp.\n\nMethod `{subject.kind}`: {paper}"


def _use(subject: Subject) -> str:
    base = subject.config["base"]
    text = (ADAPT if subject.learner else PREDICT).format(
        name=subject.repo_id,
        base=', base="FOLDER"' if subject.own_folder else "",
        version=subject.config["versions"]["metanlp"],
        question=QUESTIONS[subject.form],
    )
    rows = f" The rows that it was adapted to are in `{subject.examples}`." if subject.examples else ""
    return text + rows + (OWN_FOLDER.format(**base) if subject.own_folder else "")


def _origin(subject: Subject) -> str:
    record = subject.config["record"]
    tasks: Mapping[str, Sequence[str]] = record.get("tasks", {})
    sources: Mapping[str, str] = record.get("sources", {})
    rows: dict[tuple[str, str, str], list[str]] = {}
    for role, names in tasks.items():
        for name in names:
            source = sources.get(name, "")
            rows.setdefault((role, source, licence_of(name, source)), []).append(name)
    if not rows:
        return "Nothing is written down of that."
    table = [
        ("teaches" if role == "train" else "chooses weights and recipe", source, licence, _some(names))
        for (role, source, licence), names in rows.items()
    ]
    text = _table(("role", "source", "licence of its texts", "tasks"), table)
    left_out = sum((subject.report.protocol.get("training_rows_left_out") or {}).values()) if subject.report else 0
    noted = f"\n\n{left_out} of their rows also stand in a task that judges, and were left out." if left_out else ""
    return f"{text}{noted}\n\nSeed {record.get('seed', 'not written down')}."


def _results(subject: Subject) -> str:
    found = subject.report
    if found is None:
        return "None were published with it: nothing here says how good it is."
    metrics, count = found.protocol["metrics"], len(found.protocol["metrics"])
    title = metric_of_means(metrics)
    rows = [
        (task, k, metrics[task], *(percent(found.scores[name][task][k][metrics[task]]) for name in found.methods))
        for task, by_shots in found.scores[subject.method].items()
        for k in by_shots
    ]
    rows += [
        ("**mean**", k, title, *(percent(found.means[name][k][title]) for name in found.methods))
        for k in found.means[subject.method]
    ]
    whose = "" if subject.learner else " These are results of the learner that this model was adapted from."
    first = (
        f"On {count} tasks that taught nothing, in %, ± half the 95 % interval over support sets; every method saw the "
        f"same episodes, whose sha256 is `{found.protocol['episodes_sha256']}`. `{subject.method}` is what is "
        f"published here.{whose} `results.json` has the value of every episode."
    )
    parts = [first, _table(("task", "shots", "metric", *found.methods), rows)]
    parts += ["\n".join(f"* {line}" for line in verdict(found).splitlines())] if found.paired else []
    return "\n\n".join([*parts, *_curves(subject, found)])


def _curves(subject: Subject, found: Report) -> list[str]:
    """Score by inner step, and pictures."""
    steps = list(dict.fromkeys(step for curve in found.curves.values() for step in curve))
    rows = [
        (name, *(percent(curve[step]) if step in curve else "" for step in steps))
        for name, curve in found.curves.items()
    ]
    table = _table(("method", *(f"{step} steps" for step in steps)), rows)
    curve = [f"Mean score on the validation tasks by steps of adaptation, in %:\n\n{table}"] if rows else []
    return curve + [f"![{path}]({path})" for path in subject.plots]


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


def _limits(subject: Subject) -> str:
    found, length = subject.report, subject.config["backbone"]["max_length"]
    lines = [f"Texts are cut after {length} tokens."]
    if found is None:
        lines.append("It was not measured against anything.")
    else:
        shots = ", ".join(found.means[subject.method])
        lines.append(
            f"It was judged with {shots} shots on the tasks above; other numbers of shots, other languages and other "
            "kinds of texts were not tried."
        )
        if errors := found.calibration.get(subject.method):
            said = ", ".join(f"{100 * error:.0f} points at {k} shots" for k, error in errors.items())
            lines.append(f"Its probabilities are off by {said} (expected calibration error).")
    if subject.form == "classify":
        lines.append("It gives one of its labels to every text, also to one that is none of them.")
    lines.append("What the pretrained model and those texts hold of prejudice is in it too; nobody looked.")
    lines.append("The pretrained model and the texts keep their own licences.")
    return "\n".join(f"* {line}" for line in lines)


def _versions(subject: Subject) -> str:
    rows = [(name, version) for name, version in subject.config["versions"].items()]
    rows += [(f"sha256 of `{name}`", f"`{sha256}`") for name, sha256 in subject.config["files"].items()]
    if sha256 := subject.config["base"]["sha256"]:
        rows.append((f"sha256 of the weights of `{subject.config['base']['name']}`", f"`{sha256}`"))
    return _table(("what", "which"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _number(value: float | None) -> str:
    return "not written down" if value is None else f"{value:,.0f}"
