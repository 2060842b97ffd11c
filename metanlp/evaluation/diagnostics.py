"""What a test shows beside its scores: calibration, weights of the views, confusions and mistakes on the hardest task,
the nearest training tasks.

All of it is bounded in size. Texts are in `mistakes` alone, which belongs into no file that is published.
Letters: R rows, K classes, V views, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from metanlp.backbone import Backbone
from metanlp.core.types import Task
from metanlp.core.weights import detach
from metanlp.episodes.pool import Pool
from metanlp.evaluation.external import ExternalBaseline
from metanlp.evaluation.held_out import HeldOutTask, Support
from metanlp.forms import Scored
from metanlp.forms.all_heads import own
from metanlp.forms.heads.base import view_weights
from metanlp.forms.metrics import confusion, reliability
from metanlp.learner.learner import Learner

WORST = 12  # mistakes that are kept
LONGEST = 400  # characters of a text among them
MOST = 16  # classes in a table of confusions; the others are added up
BINS = ("answers", "sure", "right")  # in each bin: how many, the sum of their probabilities, right ones
NEAREST, ROWS = 5, 8  # training tasks named for a test task; rows that a task is known by


class Diagnostics:
    """Collects while a test goes on, task by task."""

    def __init__(self, main: str) -> None:
        self.main = main  # the method whose views and mistakes are kept
        self.mistakes: dict[str, Any] = {}  # on the hardest task
        self._bins: dict[str, dict[str, np.ndarray]] = {}  # method -> shots -> (3, 10)
        self._views: dict[str, Any] = {}
        self._hardest: dict[str, Any] = {}
        self._look: TaskDiagnostics | None = None  # at the main method on the current task, with the most shots so far

    def see(
        self, name: str, learner: Learner | ExternalBaseline, held_out: HeldOutTask, support: Support, found: Scored
    ) -> None:
        """Adds one method's scores of all query rows after it adapted to one support set."""
        sure = held_out.form.sure(*held_out.counting(found, support))
        if sure is not None:
            by_shots = self._bins.setdefault(name, {})
            by_shots[str(support.shots)] = by_shots.get(str(support.shots), 0) + reliability(*sure)
        if name != self.main or isinstance(learner, ExternalBaseline):
            return
        if support.number == 0 and learner.algorithm.adapters:
            share, prior = map(rounded, view_shares(learner, support))
            tasks = self._views.get("tasks", {}) | {held_out.task.name: share}
            self._views = {"names": list(learner.net.view_names), "prior": prior, "tasks": tasks}
        if self._look is None or self._look.shots < support.shots:
            self._look = TaskDiagnostics(held_out, support.shots)
        if self._look.shots == support.shots:
            self._look.add(support, found)

    def done(self) -> None:
        """Ends the current task."""
        look, self._look = self._look, None
        if look and (not self._hardest or np.mean(look.judged) < self._hardest["score"]):
            about = {"task": look.held_out.task.name, "shots": look.shots}
            self._hardest = about | {"score": float(np.mean(look.judged))} | look.mixed_up()
            self.mistakes = about | {"rows": look.mistakes()}

    def record(self) -> dict[str, Any]:
        """What may be published, by the fields of a `Report`."""
        bins = {
            name: {k: dict(zip(BINS, sums.round(4).tolist(), strict=True)) for k, sums in by_shots.items()}
            for name, by_shots in self._bins.items()
        }
        return {"reliability": bins, "views": self._views, "hardest": self._hardest}


@dataclass
class TaskDiagnostics:
    """One method on one task, summed over support sets of equal size."""

    held_out: HeldOutTask
    shots: int
    judged: list[float] = field(default_factory=list)
    last: Scored | None = None
    total: Any = 0  # (N, K) scores
    confusion: Any = 0  # (K, K) where a row has one class

    def add(self, support: Support, found: Scored) -> None:
        held_out = self.held_out
        self.judged.append(held_out.judge(found, support)[held_out.form.metric])
        self.last, self.total = found, self.total + found.values
        if held_out.form.single_label:
            scored, rows = held_out.counting(found, support)
            right = np.array([held_out.form.shots_of(row)[0] for row in rows])
            self.confusion = self.confusion + confusion(scored.values.argmax(1), right, len(held_out.task.labels))

    def mixed_up(self) -> dict[str, Any]:
        """How often rows of one class were called another. Of many classes the least mixed up are added up as one."""
        if not self.held_out.form.single_label:
            return {}
        counts, labels = self.confusion, [label[:40] for label in self.held_out.task.labels]
        if len({*labels}) < len(labels):
            labels = [f"{n + 1} {label}" for n, label in enumerate(labels)]
        if len(labels) > MOST:
            wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
            shown = np.sort(np.argsort(-wrong, kind="stable")[:MOST])
            place = np.full(len(labels), MOST)
            place[shown] = range(MOST)
            merged = np.eye(MOST + 1, dtype=np.int64)[place]  # (K, MOST + 1)
            counts, labels = merged.T @ counts @ merged, [*(labels[n] for n in shown), f"{len(labels) - MOST} others"]
        return {"labels": labels, "confusion": counts.tolist()}

    def mistakes(self) -> list[dict[str, Any]]:
        """The rows that are most wrong by the mean of their scores: texts, right answer, answer, its probability."""
        assert self.last is not None
        form, meaning = self.held_out.form, self.held_out.task.meaning
        mean = replace(self.last, values=self.total / len(self.judged))
        wrong = form.wrong_by(mean, self.held_out.rows, meaning)
        worst = np.argsort(-wrong, kind="stable")[:WORST]
        worst = worst[wrong[worst] > 0]
        rows = [self.held_out.rows[n] for n in worst]
        answers = form.answers(mean.of(worst), rows, meaning) if rows else []
        return [
            {
                "text": [part if len(part) <= LONGEST else part[:LONGEST] + " …" for part in form.title(row)],
                "right": in_words(form.truth(row, meaning)),
                "said": in_words(answer[form.shown or form.answer]),
                "probability": answer.get("probability"),
            }
            for row, answer in zip(rows, answers, strict=True)
        ]


def view_shares(learner: Learner, support: Support) -> tuple[Tensor, Tensor]:
    """How the head weighs the views with a support set, and without: (V,) each."""
    theta, batch = detach(learner.theta), learner.net.with_trunk(support.batch)
    head = own(theta, batch)
    with torch.no_grad():
        against = learner.algorithm.evidence(learner.net, theta, batch)["views/loss"]
        return view_weights(head, against)[0], torch.softmax(head["views/prior"], 0)


def rounded(values: Tensor) -> list[float]:
    return [round(float(value), 4) for value in values]


def in_words(answer: Any) -> str:
    if isinstance(answer, Mapping):
        return f"{answer['text']} ({answer['label']})"
    if isinstance(answer, list):
        return ", ".join(map(in_words, answer)) or "none"
    return f"{answer:.2f}" if isinstance(answer, float) else str(answer) or "none"


def nearest(net: Backbone, train: Sequence[Task], test: Sequence[Task]) -> dict[str, list[dict[str, Any]]]:
    """Test task -> the training tasks that it is most like, by the cosine of their signatures less the mean of the
    training tasks'. {} for two training tasks, which such a mean makes opposites."""
    if len(train) < 3 or all(view.adapted for view in net.views):
        return {}
    marks = torch.stack([signature(net, task) for task in (*train, *test)])
    marks = normalize(marks - marks[: len(train)].mean(0), dim=-1)
    cosines = (marks[len(train) :] @ marks[: len(train)].T).cpu()
    return {
        task.name: [
            {"task": train[int(n)].name, "cosine": round(float(row[n]), 4)}
            for n in row.argsort(descending=True)[:NEAREST]
        ]
        for task, row in zip(test, cosines, strict=True)
    }


def signature(net: Backbone, task: Task) -> Tensor:
    """The mean of the frozen views over a few training rows: (V·D,)."""
    every = task.pools["train"]
    rows = [every[int(n)] for n in np.unique(np.linspace(0, len(every) - 1, ROWS).astype(int))]
    trunk = net.with_trunk(Pool(task.meaning, rows, net.encode).pack(np.arange(len(rows)))).trunk
    assert trunk is not None
    return normalize(trunk.frozen, dim=-1).flatten(1).mean(0)
