"""Small tasks of every form, made of words with a meaning that a model can find: tests train on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from metanlp.core.types import Task
from metanlp.tasks.reading.build import task_from_rows

GOOD = ("good", "great", "lovely", "fine", "superb")
BAD = ("bad", "awful", "poor", "sad", "broken")
THINGS = ("coffee", "printer", "train", "garden", "letter", "phone", "meal", "ticket")
NAMES = {"person": ("anna", "peter", "maria", "tom"), "place": ("rome", "paris", "oslo", "lima")}
FORMS = ("classify", "regress", "multilabel", "choose", "tag", "span")


def rows_of(form: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Rows as a user would write them."""
    rng = np.random.default_rng([seed, FORMS.index(form)])
    make = {"classify": _classify, "regress": _regress, "multilabel": _multilabel, "choose": _choose, "tag": _tag,
            "span": _span}[form]  # fmt: skip
    return [make(rng, number) for number in range(count)]


def task_of(form: str, count: int = 40, seed: int = 0, name: str = "") -> Task:
    return task_from_rows(name or f"{form}_{seed}", rows_of(form, count, seed))


def write_tasks(folder: Path, form: str, seeds: Iterator[int] | range, count: int = 40) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        lines = (json.dumps(row) + "\n" for row in rows_of(form, count, seed))
        (folder / f"{form}_{seed}.jsonl").write_text("".join(lines))
    return folder


def _text(rng: np.random.Generator, number: int, share: float) -> str:
    """Four things, each praised with the probability `share`; the number keeps texts apart."""
    words = [str(rng.choice(GOOD if rng.random() < share else BAD)) for _ in range(4)]
    return " ".join(f"{word} {rng.choice(THINGS)}" for word in words) + f" {number}"


def _classify(rng: np.random.Generator, number: int) -> dict[str, Any]:
    praised = number % 2
    return {"text": _text(rng, number, float(praised)), "label": ("complaint", "praise")[praised]}


def _regress(rng: np.random.Generator, number: int) -> dict[str, Any]:
    text = _text(rng, number, rng.random())
    return {"text": text, "score": float(sum(word in GOOD for word in text.split()))}


def _multilabel(rng: np.random.Generator, number: int) -> dict[str, Any]:
    text = _text(rng, number, (0.0, 0.5, 1.0)[number % 3])
    words = set(text.split())
    return {"text": text, "labels": [name for name, of in (("bad", BAD), ("good", GOOD)) if words & {*of}]}


def _choose(rng: np.random.Generator, number: int) -> dict[str, Any]:
    count, right = int(rng.integers(2, 5)), int(rng.integers(0, 2))
    choices = [f"{rng.choice(GOOD if place == right else BAD)} {thing}"
               for place, thing in enumerate(rng.permutation(THINGS)[:count])]  # fmt: skip
    return {"question": f"which do you want {number}", "choices": choices, "answer": right}


def _tag(rng: np.random.Generator, number: int) -> dict[str, Any]:
    tokens, tags = ["today", str(number)], ["O", "O"]
    for _ in range(int(rng.integers(1, 4))):
        kind = str(rng.choice(list(NAMES)))
        first, *more = rng.permutation(NAMES[kind])[: int(rng.integers(1, 3))].tolist()
        tokens += ["met", first, *more, "and"]
        tags += ["O", f"B-{kind}", *[f"I-{kind}"] * len(more), "O"]
    return {"tokens": tokens, "tags": tags}


def _span(rng: np.random.Generator, number: int) -> dict[str, Any]:
    """Two things and what they are like; asked is what one of them is."""
    said = {str(thing): str(rng.choice(GOOD + BAD)) for thing in rng.permutation(THINGS)[:2]}
    context = f"note {number}: " + ", ".join(f"the {thing} is {word}" for thing, word in said.items()) + "."
    thing = str(rng.choice(list(said)))
    start = context.index(f"{thing} is ") + len(f"{thing} is ")
    return {"question": f"how is the {thing}?", "context": context,
            "answers": {"text": [said[thing]], "answer_start": [start]}}  # fmt: skip
