"""What users hold: a Learner, which knows how to adapt, and what it becomes for one task, an Adapted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from reprlib import repr as brief
from typing import Any, cast, get_args

import numpy as np
import torch
from torch import Tensor

from metanlp.algorithms import Algorithm
from metanlp.backbone import Backbone
from metanlp.backbone.models import encoder_of
from metanlp.backbone.writer import Writer
from metanlp.core.effort import Effort
from metanlp.core.errors import InputError
from metanlp.core.progress import Progress
from metanlp.core.torch_modes import own_modes
from metanlp.core.types import Meaning, Row, Task, Weights
from metanlp.core.weights import aligned, expand, pick
from metanlp.episodes.chunks import chunks, scored
from metanlp.episodes.pool import Pool
from metanlp.forms import FORMS, Scored, meant, names_of
from metanlp.forms.base import softmax
from metanlp.forms.reading import LabelledRow
from metanlp.learner.artefact import (
    META,
    located,
    of_config,
    read_artefact,
    read_config,
    require_fit,
    write_artefact,
)
from metanlp.learner.best_effort import Best, best_effort
from metanlp.learner.label_names import named
from metanlp.learner.origin import teachers
from metanlp.learner.prediction_table import as_column, framed
from metanlp.learner.questions import as_questions
from metanlp.learner.scoring import judged
from metanlp.learner.seen import SEEN, as_bytes, from_bytes, nothing_seen
from metanlp.learner.settings import algorithm_from_json, algorithm_to_json
from metanlp.learner.writing import support_of, written
from metanlp.tasks.reading.build import build_task, rows_for, rows_from, task_from_rows
from metanlp.tasks.reading.containers import labelled_rows_of

WAITS = 2.0  # seconds of answering before there is a bar

Label = str | int


@dataclass(frozen=True)
class Learner:
    """A backbone, an algorithm with its adaptation recipe, and the θ that it learned."""

    algorithm: Algorithm  # the method, and how it adapts
    net: Backbone | Writer  # the frozen model, which several learners may share: an encoder, or one that writes
    theta: Weights = field(repr=False)  # what was learned: adapters and head, no task axis
    record: Mapping[str, Any] = field(default_factory=dict)  # how it was made: tasks, seeds, cost, versions
    seen: np.ndarray = field(default_factory=nothing_seen, repr=False, compare=False)  # rows it learned from: `seen_of`

    def __post_init__(self) -> None:
        object.__setattr__(self, "theta", aligned(self.theta))  # so that a saved and loaded one gives the same bits

    def __repr__(self) -> str:
        tasks = len(teachers(self.record))
        return f"Learner({type(self.algorithm).__name__} on {self.net.name}, learned from {tasks} tasks)"

    @property
    def encoder(self) -> Backbone:
        """The model, where it reads. Raises InputError for one that writes."""
        return encoder_of(self.net)

    def adapt(
        self,
        examples: Any,
        labels: Any = None,
        *,
        columns: Mapping[str, str] | None = None,
        effort: Effort = "recipe",
        label_names: bool | Mapping[Any, str] = True,
    ) -> Adapted:
        """Adapt to a new task. `examples` are rows ({"text": …, "label": …}, or "text_a" and "text_b"), or tuples
        with the label last, or plain texts with `labels` beside them, by place. Rows of other forms have in place of
        `label` a `score`, `labels`, an `answer` to `question` and `choices` or to `question` and `context`, or `tags`
        for `tokens`; for a learner that writes, `source` and `target`. They come as a list, a generator, an array, a
        pandas or arrow table or column, a Dataset, or a mapping of columns. `columns` maps our names to those of the
        rows: {"text": "body"}. Labels are words or integers, and stay what they are. "fast" takes no gradient step,
        "best" as many as pay on examples left out of them. θ stays as it was. What the labels of texts are called
        counts too, as far as it agrees with the examples: it helps most where these are few. `label_names` may give a
        text for each label instead, or False.
        Raises InputError for rows that can't be used, naming the row."""
        given = labelled_rows_of(examples, labels, meant(not isinstance(self.net, Backbone)))
        rows = rows_from("examples", given, columns)
        task = build_task("examples", {"train": rows}, source="python")
        adapted = self.adapt_to(task, effort=effort, label_names=label_names)
        return replace(adapted, labels=_as_given(adapted.labels, (row.label for row in rows)))

    @own_modes()
    def adapt_to(
        self,
        task: Task,
        *,
        effort: Effort = "recipe",
        label_names: bool | Mapping[Any, str] = True,
    ) -> Adapted:
        """The same for the training rows of a Task."""
        algorithm = self._ready(task, effort)
        if not isinstance(self.net, Backbone):
            writes, support = support_of(self.net, task, effort, label_names)
            return Adapted(algorithm, writes, algorithm.adapt(writes, self.theta, support), (), self.record, task.form)
        pool = Pool(task.meaning, task.pools["train"], self.net.encode)
        net = named(self.net, algorithm, task, label_names)
        best = best_effort(algorithm, net, self.theta, pool, self.net) if effort == "best" else Best(algorithm)
        phi, pairs = best.adapt(net, self.theta, pool.whole()), "text_a" in task.pools["train"][0]
        record = {**self.record, **best.record}
        return Adapted(best.algorithm, self.net, phi, task.labels, record, task.form, task.scale, pairs)

    @own_modes()
    def left_out(self, examples: Any, labels: Any = None, *, effort: Effort = "recipe") -> np.ndarray:
        """What the examples say of each other: the `logits` of each after `adapt`, itself left out of its class's
        prototype, or of the steps that "best" takes, classes in the order of `adapt(…).labels`: (N, K); NaN for one
        that is alone in its class, or was never left out."""
        task = task_from_rows("examples", labelled_rows_of(examples, labels))
        if not FORMS[task.form].single_label:
            raise InputError(f"the examples are of the form {task.form!r}; give texts with one label each")
        algorithm, net = self._ready(task, effort), self.encoder
        pool = Pool(task.meaning, task.pools["train"], net.encode)
        best = best_effort(algorithm, net, self.theta, pool, net) if effort == "best" else Best(algorithm)
        if best.scores is not None:
            return best.scores.numpy()
        scores, counted = algorithm.left_out(net, self.theta, pool.whole())
        return scores.masked_fill(counted[:, None] == 0, torch.nan).cpu().numpy()

    def save(self, folder: str | Path) -> None:
        """adapter_model.safetensors and adapter_config.json, which plain peft opens, meta_model.safetensors and
        meta_config.json. Heads of training tasks are not kept: they adapt to nothing."""
        seen = {SEEN: as_bytes(self.seen)} if len(self.seen) else {}
        write_artefact(Path(folder), "learner", self.net, self.theta | seen, self._settings())

    @staticmethod
    @own_modes()
    def load(
        folder: str | Path, *, base: str | None = None, device: torch.device | str = "cpu",
        net: Backbone | Writer | None = None, max_length: int | None = None,
    ) -> Learner:  # fmt: skip
        """The learner of a folder, or of `owner/name` or `owner/name@revision` on the Hub, or `default`, the one that
        comes with the package; `base` names another place for the pretrained model, by default its public id; `net` is
        that model where it is loaded already, with the same options. Texts are cut to `max_length` tokens, by default
        as the learner has it, and so are those of models that it adapts. Raises InputError, DamagedError."""
        artefact = read_artefact(folder, "learner", base=base, device=device, net=net, max_length=max_length)
        with of_config(folder):
            algorithm = algorithm_from_json(artefact.settings["algorithm"])
        theta, seen = dict(artefact.weights), artefact.weights.get(SEEN)
        theta.pop(SEEN, None)
        # A form that came after the learner begins as in a new one.
        begins = algorithm.head.init(len(artefact.net.view_names), artefact.net.width)
        require_fit(Path(folder) / META, theta, algorithm.init(artefact.net, torch.Generator().manual_seed(0)), begins)
        theta |= {key: value.to(artefact.net.device) for key, value in begins.items() if key not in theta}
        seen = nothing_seen() if seen is None else from_bytes(seen)
        return Learner(algorithm, artefact.net, theta, artefact.settings["record"], seen)

    def __sklearn_clone__(self) -> Learner:
        """scikit-learn copies the parameters of its estimators; what never changes needs no second copy."""
        return self

    def _ready(self, task: Task, effort: str) -> Algorithm:
        if effort not in get_args(Effort):
            raise InputError(f"effort is {brief(effort)}; give 'fast', 'recipe' or 'best'")
        writes = not isinstance(self.net, Backbone)
        if not self.algorithm.learns(FORMS[task.form]) or FORMS[task.form].written != writes:
            known = names_of(lambda form: self.algorithm.learns(form) and form.written == writes)
            raise InputError(f"the examples are of the form {task.form!r}; this learner's method knows {known}")
        inner = replace(self.algorithm.inner, steps=0) if effort == "fast" else self.algorithm.inner
        return replace(self.algorithm, inner=inner)

    def _settings(self) -> dict[str, Any]:
        return {"algorithm": algorithm_to_json(self.algorithm), "record": dict(self.record)}


@dataclass(frozen=True)
class Adapted:
    """A model for one task."""

    algorithm: Algorithm  # the method that made it
    net: Backbone | Writer  # the frozen model, which several may share
    phi: Weights = field(repr=False)  # task axis of length one
    labels: tuple[Label, ...]  # words or integers, as the examples had them; () in the forms without
    record: Mapping[str, Any] = field(default_factory=dict)  # the learner's
    form: str = "classify"  # a name in `metanlp.forms.FORMS`
    scale: tuple[float, float] = (0.0, 1.0)  # in the forms with numbers: what the lowest and the highest example had
    pairs: bool = False  # whether the examples were pairs of texts, as every row then has to be

    def __repr__(self) -> str:
        of = f": {', '.join(self.label_words)}" if self.labels else ""
        return f"Adapted({type(self.algorithm).__name__} on {self.net.name}, {self.form}{of})"

    @property
    def meaning(self) -> Meaning:
        """What its answers mean."""
        return Meaning(self.form, cast("tuple[str, ...]", self.labels), self.scale)

    @property
    def weights(self) -> Weights:
        """φ without its task axis, as files have it: a method without adapters gets such as change nothing."""
        phi = self.phi if pick(self.phi, "lora/") else self.phi | expand(self.net.init(torch.Generator()), 1)
        return {key: value[0] for key, value in phi.items()}

    def __post_init__(self) -> None:
        object.__setattr__(self, "phi", aligned(self.phi))  # as in a Learner

    @property
    def label_words(self) -> tuple[str, ...]:
        """The labels as words."""
        return tuple(map(str, self.labels))

    def predict(self, rows: Any, *, beams: int = 1) -> Any:
        """The likeliest answer to each row: a label; a score; the number of a choice; a list of labels; a list of
        entities; a part of the context, "" where it holds no answer; what is written for a text, greedily or with so
        many `beams`. A row is a text, a pair of texts, or a mapping
        with `text` or `text_a` and `text_b`; (question, choices), (question, context) or a mapping with these; for
        entities a text, or a mapping with `tokens`. Rows come in any container
        that `Learner.adapt` takes, and answers in their order: in a list, or with the index of a pandas object as a
        Series. Raises InputError for a row that can't be answered."""
        name = FORMS[self.form].answer
        return as_column([answer[name] for answer in self.answers(rows, beams=beams)], rows, name)

    def answers(self, rows: Any, *, as_frame: bool = False, beams: int = 1) -> Any:
        """The same with all that there is to say of it: probabilities, the choice in words, where entities stand; a
        mapping a row, or where that is asked a pandas frame, which keeps the index of a pandas object."""
        form = FORMS[self.form]
        asked = as_questions(form, rows, self.pairs)
        said = form.answers(self._scored(asked, beams), asked, self.meaning) if asked else []
        return framed(said, rows) if as_frame else said

    def scores(self, rows: Any) -> np.ndarray:
        """Probabilities, classes in the order of `labels`: (N, K). Raises InputError for other forms than classify."""
        return softmax(self.logits(rows))

    def logits(self, rows: Any) -> np.ndarray:
        """What the probabilities are the softmax of: (N, K). A row far from every class has low ones throughout."""
        form = FORMS[self.form]
        if not form.single_label:
            raise InputError(f"a model of the form {self.form!r} has no probabilities of classes; call `answers`")
        asked = as_questions(form, rows, self.pairs)
        return self._scored(asked).values if asked else np.zeros((0, len(self.labels)), np.float32)

    def score(self, rows: Any, labels: Any = None, *, columns: Mapping[str, str] | None = None) -> dict[str, Any]:
        """How good the answers to labelled rows are, given as to `Learner.adapt`: metrics by name, and class by class
        where a row has one (`judged`). Raises InputError for rows that can't be used, or with a label never seen."""
        return self.score_rows(rows_from("rows", labelled_rows_of(rows, labels, FORMS[self.form]), columns))

    def score_rows(self, rows: Sequence[LabelledRow], beams: int = 1) -> dict[str, Any]:
        """The same for rows as they were read from a file."""
        return self.answers_and_score(rows, beams)[1]

    def answers_and_score(
        self, rows: Sequence[LabelledRow], beams: int = 1
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """`answers` and `score_rows` of the same rows, by reading these once."""
        asked = rows_for(rows, self.meaning, self.pairs)
        found = self._scored(asked, beams)
        return FORMS[self.form].answers(found, asked, self.meaning), judged(found, asked, self.meaning)

    @own_modes()
    @torch.no_grad()
    def _scored(self, rows: Sequence[Row], beams: int = 1) -> Scored:
        if not isinstance(self.net, Backbone):
            return written(self.algorithm, self.net, self.phi, rows, beams)
        if beams != 1:
            raise InputError(f"{beams} beams are asked for, but a model of the form {self.form!r} writes no text")
        passes, each = chunks(Pool(self.meaning, rows, self.net.encode)), list[Tensor]()
        with Progress("answers", delay=WAITS) as progress:
            tick = progress.ticks(len(passes))
            for chunk in passes:
                each.append(self.algorithm.scores(self.net, self.phi, chunk.batch))
                tick()
        return scored(passes, each)

    def save(self, folder: str | Path) -> None:
        """The same four files as a learner's, with this task's weights and labels."""
        settings = {
            "algorithm": algorithm_to_json(self.algorithm),
            "labels": list(self.labels),
            "form": self.form,
            "scale": list(self.scale),
            "pairs": self.pairs,
            "record": dict(self.record),
        }
        write_artefact(Path(folder), "adapted", self.net, self.weights, settings)

    @staticmethod
    @own_modes()
    def load(folder: str | Path, *, base: str | None = None, device: torch.device | str = "cpu") -> Adapted:
        """The model of a folder or of the Hub, as with a learner."""
        artefact = read_artefact(folder, "adapted", base=base, device=device)
        phi = {key: value[None] for key, value in artefact.weights.items()}
        with of_config(folder):
            algorithm = algorithm_from_json(artefact.settings["algorithm"])
        said, (low, high, *_) = artefact.settings, artefact.settings["scale"]
        labels, scale = tuple(said["labels"]), (float(low), float(high))
        if said["form"] not in FORMS:
            raise InputError(f"{folder} answers in the form {said['form']!r}; known are {sorted(FORMS)}")
        return Adapted(algorithm, artefact.net, phi, labels, said["record"], said["form"], scale, said["pairs"])


def load_model(name: str | Path, *, base: str | None = None) -> Learner | Adapted:
    """What a folder or the Hub holds, be it a learner or an adapted model. Raises InputError, DamagedError."""
    kind = Adapted if read_config(located(name), None)["kind"] == "adapted" else Learner
    return kind.load(name, base=base)


def _as_given(words: tuple[Label, ...], given: Iterable[Any]) -> tuple[Label, ...]:
    """The labels of a task as the caller's rows have them: integers, where their words are just these."""
    numbers = sorted({label for label in given if type(label) is int})
    return tuple(numbers) if tuple(map(str, numbers)) == words else words
