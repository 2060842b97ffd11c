"""What users hold: a Learner, which knows how to adapt, and what it becomes for one task, an Adapted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from reprlib import repr as brief
from typing import Any, Literal

import numpy as np
import torch

from metanlp.algorithms import ALGORITHMS, Algorithm
from metanlp.artefact import read_artefact, write_artefact
from metanlp.backbone import Backbone
from metanlp.config import from_json, to_json
from metanlp.errors import InputError
from metanlp.exams import chunks, scored
from metanlp.forms import FORMS, Scored
from metanlp.forms.base import softmax
from metanlp.pool import Pool
from metanlp.tasks.build import task_from_rows
from metanlp.types import Batch, Row, Task, Weights
from metanlp.weights import drop, expand, pick

Examples = Iterable[Row | tuple[str, ...]] | Sequence[str]


@dataclass(frozen=True)
class Learner:
    """A backbone, an algorithm with its adaptation recipe, and the θ that it learned."""

    algorithm: Algorithm  # the method, and how it adapts
    net: Backbone  # the frozen model, which several learners may share
    theta: Weights = field(repr=False)  # what was learned: adapters and head, no task axis
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
        with the label last, or plain texts with `labels` beside them. Rows of other forms have in place of `label` a
        `score`, `labels`, an `answer` to `question` and `choices`, or `tags` for `tokens`. `columns` maps our names to
        those of the rows: {"text": "body"}. "fast" takes no gradient step. θ stays as it was.
        Raises InputError for rows that can't be used, naming the row."""
        task = task_from_rows("examples", as_rows(examples, labels), columns=columns)
        return self.adapt_to(task, effort=effort)

    def adapt_to(self, task: Task, *, effort: Literal["fast", "recipe"] = "recipe") -> Adapted:
        """The same for the training rows of a Task."""
        algorithm, support = self._ready(task, effort)
        phi = algorithm.adapt(self.net, self.theta, support)
        return Adapted(algorithm, self.net, phi, task.labels, self.record, task.form, task.scale)

    def left_out(
        self, examples: Examples, labels: Sequence[str] | None = None, *, effort: Literal["fast", "recipe"] = "recipe"
    ) -> np.ndarray:
        """What the examples say of each other: the `logits` of each after `adapt`, itself left out of its class's
        prototype, classes in the order of `adapt(…).labels`: (N, K); NaN for one that is alone in its class."""
        task = task_from_rows("examples", as_rows(examples, labels))
        if task.form != "classify":
            raise InputError(f"the examples are of the form {task.form!r}; give texts with one label each")
        algorithm, support = self._ready(task, effort)
        scores, counted = algorithm.left_out(self.net, self.theta, support)
        return scores.masked_fill(counted[:, None] == 0, torch.nan).cpu().numpy()

    def save(self, folder: str | Path) -> None:
        """adapter_model.safetensors and adapter_config.json, which plain peft opens, meta_model.safetensors and
        meta_config.json. Heads of training tasks are not kept: they adapt to nothing."""
        write_artefact(Path(folder), "learner", self.net, drop(self.theta, "tasks/"), self._settings())

    @staticmethod
    def load(
        folder: str | Path, *, base: str | None = None, device: torch.device | str = "cpu", net: Backbone | None = None
    ) -> Learner:
        """The learner of a folder, or of `owner/name` or `owner/name@revision` on the Hub; `base` names another place
        for the pretrained model, by default its public id; `net` is that model where it is loaded already, with the
        same options. Raises InputError, DamagedError."""
        artefact = read_artefact(folder, "learner", base=base, device=device, net=net)
        algorithm = algorithm_from_json(artefact.settings["algorithm"])
        return Learner(algorithm, artefact.net, artefact.weights, artefact.settings["record"])

    def __sklearn_clone__(self) -> Learner:
        """scikit-learn copies the parameters of its estimators; what never changes needs no second copy."""
        return self

    def _ready(self, task: Task, effort: str) -> tuple[Algorithm, Batch]:
        if effort not in ("fast", "recipe"):
            raise InputError(f"effort is {brief(effort)}; give 'fast' or 'recipe'")
        if task.form not in self.algorithm.forms:
            known = ", ".join(self.algorithm.forms)
            raise InputError(f"the examples are of the form {task.form!r}; this learner's method knows {known}")
        inner = replace(self.algorithm.inner, steps=0) if effort == "fast" else self.algorithm.inner
        rows = task.pools["train"]
        support = Pool(task, rows, self.net.encode).pack(np.arange(len(rows)))
        return replace(self.algorithm, inner=inner), support

    def _settings(self) -> dict[str, Any]:
        return {"algorithm": algorithm_to_json(self.algorithm), "record": dict(self.record)}


@dataclass(frozen=True)
class Adapted:
    """A model for one task."""

    algorithm: Algorithm  # the method that made it
    net: Backbone  # the frozen model, which several may share
    phi: Weights = field(repr=False)  # task axis of length one
    labels: tuple[str, ...]  # () in the forms without
    record: Mapping[str, Any] = field(default_factory=dict)  # the learner's
    form: str = "classify"  # a name in `metanlp.forms.FORMS`
    scale: tuple[float, float] = (0.0, 1.0)  # regress: what the lowest and the highest example had

    def predict(self, rows: Sequence[Any]) -> list[Any]:
        """The likeliest answer to each row: a label; a score; the number of a choice; a list of labels; a list of
        entities. A row is a text, a pair of texts, or a mapping with `text` or `text_a` and `text_b`; (question,
        choices) or a mapping with these; for entities a text, or a mapping with `tokens`."""
        return [answer[FORMS[self.form].answer] for answer in self.answers(rows)]

    def answers(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """The same with all that there is to say of it: probabilities, the choice in words, where entities stand."""
        asked = as_questions(self.form, rows)
        return FORMS[self.form].answers(self._scored(asked), asked, self.labels, self.scale) if asked else []

    def scores(self, rows: Sequence[Any]) -> np.ndarray:
        """Probabilities, classes in the order of `labels`: (N, K). Raises InputError for other forms than classify."""
        return softmax(self.logits(rows))

    def logits(self, rows: Sequence[Any]) -> np.ndarray:
        """What the probabilities are the softmax of: (N, K). A row far from every class has low ones throughout."""
        if self.form != "classify":
            raise InputError(f"a model of the form {self.form!r} has no probabilities of classes; call `answers`")
        asked = as_questions(self.form, rows)
        return self._scored(asked).values if asked else np.zeros((0, len(self.labels)), np.float32)

    def _scored(self, rows: Sequence[Row]) -> Scored:
        """Pairs and single texts are tokenised apart."""
        arity = np.array([len(FORMS[self.form].texts(row)[0]) for row in rows])
        order, found = [np.flatnonzero(arity == n) for n in np.unique(arity)], list[Scored]()
        task = Task("asked", {}, self.labels, "", self.form, scale=self.scale)
        for part in order:
            passes = chunks(Pool(task, [rows[int(n)] for n in part], self.net.encode))
            with torch.no_grad():
                scores = [self.algorithm.scores(self.net, self.phi, chunk.batch) for chunk in passes]
            found.append(scored(passes, scores))
        return Scored.joined(found).of(np.argsort(np.concatenate(order)))

    def save(self, folder: str | Path) -> None:
        """The same four files as a learner's, with this task's weights and labels."""
        # A method without adapters is saved with such as change nothing: the files are the same four for all.
        phi = self.phi if pick(self.phi, "lora/") else self.phi | expand(self.net.init(torch.Generator()), 1)
        one = {key: value[0] for key, value in phi.items()}
        settings = {
            "algorithm": algorithm_to_json(self.algorithm),
            "labels": list(self.labels),
            "form": self.form,
            "scale": list(self.scale),
            "record": dict(self.record),
        }
        write_artefact(Path(folder), "adapted", self.net, one, settings)

    @staticmethod
    def load(folder: str | Path, *, base: str | None = None, device: torch.device | str = "cpu") -> Adapted:
        """The model of a folder or of the Hub, as with a learner."""
        artefact = read_artefact(folder, "adapted", base=base, device=device)
        phi = {key: value[None] for key, value in artefact.weights.items()}
        algorithm = algorithm_from_json(artefact.settings["algorithm"])
        said, low_high = artefact.settings, artefact.settings["scale"]
        scale = (float(low_high[0]), float(low_high[1]))
        return Adapted(algorithm, artefact.net, phi, tuple(said["labels"]), said["record"], said["form"], scale)


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


def as_questions(form: str, rows: Sequence[Any]) -> list[Row]:
    """Rows without answers, as a form has them. Raises InputError for what is not one."""
    found: list[Row] = []
    for number, item in enumerate([rows] if isinstance(rows, str) else rows, start=1):
        row = FORMS[form].question(item)
        if row is None:
            raise InputError(f"row {number} is {brief(item)}; give {FORMS[form].asks}")
        found.append(row)
    return found


def as_texts(rows: Sequence[Any]) -> list[tuple[str, ...]]:
    """One text or two of each row. Raises InputError for what is neither."""
    return [tuple(row.values()) for row in as_questions("classify", rows)]


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
