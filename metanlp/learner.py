"""What users hold: a Learner, which knows how to adapt, and what it becomes for one task, an Adapted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from reprlib import repr as brief
from typing import Any, Literal, cast

import numpy as np
import torch

from metanlp.algorithms import ALGORITHMS, Algorithm
from metanlp.artefact import read_artefact, write_artefact
from metanlp.backbone import Backbone
from metanlp.config import from_json, to_json
from metanlp.episodes import pack_rows
from metanlp.errors import InputError
from metanlp.exams import packed
from metanlp.tasks.build import task_from_rows
from metanlp.types import Batch, Row, Task, Weights
from metanlp.weights import drop, expand, pick

Examples = Iterable[Row | tuple[str, ...]] | Sequence[str]


@dataclass(frozen=True)
class Learner:
    """A backbone, an algorithm with its adaptation recipe, and the θ that it learned."""

    algorithm: Algorithm
    net: Backbone
    theta: Weights = field(repr=False)
    record: Mapping[str, Any] = field(default_factory=dict)  # how it was made: tasks, seeds, cost, versions

    def adapt(
        self,
        examples: Examples,
        labels: Sequence[str] | None = None,
        *,
        columns: Mapping[str, str] | None = None,
        effort: Literal["fast", "recipe"] = "recipe",
    ) -> Adapted:
        """Adapt to a new task. `examples` are rows ({"text": …, "label": …}, or "text_a" and "text_b"), or tuples
        with the label last, or plain texts with `labels` beside them. `columns` maps our names to those of the rows:
        {"text": "body"}. "fast" takes no gradient step. θ stays as it was.
        Raises InputError for rows that can't be used, naming the row."""
        algorithm, task, support = self._ready(examples, labels, columns, effort)
        return Adapted(algorithm, self.net, algorithm.adapt(self.net, self.theta, support), task.labels, self.record)

    def left_out(
        self, examples: Examples, labels: Sequence[str] | None = None, *, effort: Literal["fast", "recipe"] = "recipe"
    ) -> np.ndarray:
        """What the examples say of each other: the `logits` of each after `adapt`, itself left out of its class's
        prototype, classes in the order of `adapt(…).labels`: (N, K); NaN for one that is alone in its class."""
        algorithm, _, support = self._ready(examples, labels, None, effort)
        scores, counted = algorithm.left_out(self.net, self.theta, support)
        return scores.masked_fill(counted[:, None] == 0, torch.nan).cpu().numpy()

    def save(self, folder: str | Path) -> None:
        """adapter_model.safetensors and adapter_config.json, which plain peft opens, meta_model.safetensors and
        meta_config.json. Heads of training tasks are not kept: they adapt to nothing."""
        write_artefact(Path(folder), "learner", self.net, drop(self.theta, "tasks/"), self._settings())

    @staticmethod
    def load(folder: str | Path, *, base: str | None = None, device: torch.device | str = "cpu") -> Learner:
        """The learner of a folder; `base` names another place for the pretrained model, by default its public id."""
        artefact = read_artefact(Path(folder), "learner", base=base, device=device)
        algorithm = algorithm_from_json(artefact.settings["algorithm"])
        return Learner(algorithm, artefact.net, artefact.weights, artefact.settings["record"])

    def __sklearn_clone__(self) -> Learner:
        """scikit-learn copies the parameters of its estimators; what never changes needs no second copy."""
        return self

    def _ready(
        self,
        examples: Examples,
        labels: Sequence[str] | None,
        columns: Mapping[str, str] | None,
        effort: str,
    ) -> tuple[Algorithm, Task, Batch]:
        if effort not in ("fast", "recipe"):
            raise InputError(f"effort is {brief(effort)}; give 'fast' or 'recipe'")
        task = task_from_rows("examples", as_rows(examples, labels), columns=columns)
        inner = replace(self.algorithm.inner, steps=0) if effort == "fast" else self.algorithm.inner
        support = pack_rows(task.pools["train"], len(task.labels), self.net.encode)
        return replace(self.algorithm, inner=inner), task, support

    def _settings(self) -> dict[str, Any]:
        return {"algorithm": algorithm_to_json(self.algorithm), "record": dict(self.record)}


@dataclass(frozen=True)
class Adapted:
    """A classifier for one task."""

    algorithm: Algorithm
    net: Backbone
    phi: Weights = field(repr=False)  # task axis of length one
    labels: tuple[str, ...]
    record: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, rows: Sequence[Row | str | tuple[str, str]]) -> list[str]:
        """The likeliest label of each row: a text, a pair of texts, or a row with `text` or `text_a` and `text_b`."""
        return [self.labels[int(n)] for n in self.logits(rows).argmax(1)]

    def scores(self, rows: Sequence[Row | str | tuple[str, str]]) -> np.ndarray:
        """Probabilities, classes in the order of `labels`: (N, K)."""
        return torch.softmax(torch.from_numpy(self.logits(rows)), dim=1).numpy()

    def logits(self, rows: Sequence[Row | str | tuple[str, str]]) -> np.ndarray:
        """What the probabilities are the softmax of: (N, K). A row far from every class has low ones throughout."""
        texts = as_texts(rows)
        out = np.zeros((len(texts), len(self.labels)), dtype=np.float32)
        with torch.no_grad():
            for arity in {len(text) for text in texts}:  # pairs and single texts are tokenised apart
                where = np.array([n for n, text in enumerate(texts) if len(text) == arity])
                tokens = self.net.encode([texts[n] for n in where])
                for part, batch in packed(tokens, np.zeros(len(where), np.int64), len(self.labels)):
                    out[where[part]] = self.algorithm.scores(self.net, self.phi, batch).cpu().numpy()
        return out

    def save(self, folder: str | Path) -> None:
        """The same four files as a learner's, with this task's weights and labels."""
        # A method without adapters is saved with such as change nothing: the files are the same four for all.
        phi = self.phi if pick(self.phi, "lora/") else self.phi | expand(self.net.init(torch.Generator()), 1)
        one = {key: value[0] for key, value in phi.items()}
        settings = {
            "algorithm": algorithm_to_json(self.algorithm),
            "labels": list(self.labels),
            "record": dict(self.record),
        }
        write_artefact(Path(folder), "adapted", self.net, one, settings)

    @staticmethod
    def load(folder: str | Path, *, base: str | None = None, device: torch.device | str = "cpu") -> Adapted:
        artefact = read_artefact(Path(folder), "adapted", base=base, device=device)
        phi = {key: value[None] for key, value in artefact.weights.items()}
        algorithm = algorithm_from_json(artefact.settings["algorithm"])
        return Adapted(algorithm, artefact.net, phi, tuple(artefact.settings["labels"]), artefact.settings["record"])


def as_rows(examples: Examples, labels: Sequence[str] | None) -> Iterable[Mapping[str, Any]]:
    """Whatever form examples come in, as rows. Raises InputError for one that is neither a row nor texts."""
    items = [examples] if isinstance(examples, str) else list(examples)
    if labels is not None and len(labels) != len(items):
        raise InputError(f"{len(items)} texts came with {len(labels)} labels; give one label for each text")
    for number, item in enumerate(items):
        label = {} if labels is None else {"label": labels[number]}
        if isinstance(item, Mapping):
            yield {**item, **label}
            continue
        names = {2: ("text", "label"), 3: ("text_a", "text_b", "label")}
        if labels is not None:
            names = {1: ("text",), 2: ("text_a", "text_b")}
        parts = _parts(item)
        if len(parts) not in names:
            raise InputError(
                f"example {number + 1} is {brief(item)}; give (text, label), (text, text, label), a row with names, or "
                "texts with `labels` beside them"
            )
        yield dict(zip(names[len(parts)], parts, strict=True)) | label


def as_texts(rows: Sequence[Row | str | tuple[str, str]]) -> list[tuple[str, ...]]:
    """One text or two of each row. Raises InputError for what is neither."""
    found: list[tuple[str, ...]] = []
    for number, row in enumerate([rows] if isinstance(rows, str) else rows, start=1):
        if isinstance(row, Mapping):
            texts = (row["text"],) if "text" in row else (row.get("text_a"), row.get("text_b"))
        else:
            texts = _parts(row)
        if len(texts) not in (1, 2) or not all(isinstance(text, str) for text in texts):
            raise InputError(f"row {number} is {brief(row)}; give a text, two texts, or a row with `text`")
        found.append(cast("tuple[str, ...]", texts))
    return found


def _parts(item: object) -> tuple[object, ...]:
    """A text alone, or what a list or tuple holds."""
    return (item,) if isinstance(item, str) else tuple(item) if isinstance(item, Sequence) else ()


def algorithm_to_json(algorithm: Algorithm) -> dict[str, Any]:
    names = {cls: name for name, cls in ALGORITHMS.items()}
    return {"name": names[type(algorithm)], **to_json(algorithm)}


def algorithm_from_json(data: Mapping[str, Any]) -> Algorithm:
    """Raises InputError for a name or a key that this version does not know."""
    settings = dict(data)
    name = settings.pop("name", None)
    if name not in ALGORITHMS:
        raise InputError(f"meta_config.json names the algorithm {name!r}, known are {sorted(ALGORITHMS)}")
    return from_json(ALGORITHMS[name], settings)
