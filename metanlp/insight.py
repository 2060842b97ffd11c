"""What a test shows beside its scores: how sure answers are, which views count, what the hardest task mixes up, which
training tasks are like a test task.

All of it is bounded in size. Texts stand in `mistakes` alone, which belongs into no file that is published.
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

from metanlp.algorithms import Frozen
from metanlp.backbone import Backbone
from metanlp.exams import Exam, Support
from metanlp.forms import Form, Scored
from metanlp.heads import own
from metanlp.heads.base import view_weights
from metanlp.learner import Learner
from metanlp.metrics import confusion, reliability
from metanlp.pool import Pool
from metanlp.rivals import Rival
from metanlp.types import Row, Task
from metanlp.weights import detach, pick

WORST = 12  # mistakes that are kept
LONGEST = 400  # characters of a text among them
MOST = 16  # classes in a table of confusions; the others are added up
BINS = ("answers", "sure", "right")  # in each bin: how many, the sum of their probabilities, right ones
NEAREST, ROWS = 5, 8  # training tasks named for a test task; rows that a task is known by


class Insight:
    """Looks on while a test goes on; its task is the one that `see` was last given, and `done` ends it."""

    def __init__(self, main: str) -> None:
        self.main = main  # the method of which all is kept
        self.mistakes: dict[str, Any] = {}  # of the hardest task: its texts and what was said of them
        self._bins: dict[str, dict[str, np.ndarray]] = {}  # method -> shots -> (3, 10)
        self._shares: dict[str, Tensor] = {}  # task -> (V,)
        self._prior: dict[str, list[Any]] = {}
        self._hardest: dict[str, Any] = {}
        self._look: Look | None = None  # at the main method, with the most shots of the task

    def see(self, name: str, learner: Learner | Rival, exam: Exam, support: Support, found: Scored) -> None:
        """One method's scores of all query rows, after adapting to one support set."""
        sure = exam.form.sure(*exam.counting(found, support))
        if sure is not None:
            by_shots = self._bins.setdefault(name, {})
            by_shots[str(support.shots)] = by_shots.get(str(support.shots), 0) + reliability(*sure)
        if name != self.main or isinstance(learner, Rival):
            return
        if support.number == 0 and not isinstance(learner.algorithm, Frozen):
            self._views(learner, exam.task.name, support)
        if self._look is None or self._look.shots < support.shots:
            self._look = Look(exam, support.shots)
        if self._look.shots == support.shots:
            self._look.add(support, found)

    def done(self) -> None:
        """The task's last support set has been seen."""
        look, self._look = self._look, None
        if look and (not self._hardest or np.mean(look.judged) < self._hardest["score"]):
            about = {"task": look.exam.task.name, "shots": look.shots}
            self._hardest = about | {"score": float(np.mean(look.judged))} | look.mixed_up()
            self.mistakes = about | {"rows": look.mistakes()}

    def record(self) -> dict[str, Any]:
        """What may be published, by the fields of a `Report`."""
        bins = {
            name: {k: dict(zip(BINS, sums.round(4).tolist(), strict=True)) for k, sums in by_shots.items()}
            for name, by_shots in self._bins.items()
        }
        tasks = {task: rounded(share) for task, share in self._shares.items()}
        return {"reliability": bins, "views": self._prior | {"tasks": tasks} if tasks else {}, "hardest": self._hardest}

    def _views(self, learner: Learner, task: str, support: Support) -> None:
        share, prior = view_shares(learner, support)
        self._shares[task] = share
        self._prior = {"names": list(learner.net.view_names), "prior": rounded(prior)}


@dataclass
class Look:
    """At what one method says of one task, over support sets with as many shots."""

    exam: Exam
    shots: int
    judged: list[float] = field(default_factory=list)
    last: Scored | None = None
    total: Any = 0  # (N, K) scores, summed over support sets
    confusion: Any = 0  # (K, K) where a row has one class

    def add(self, support: Support, found: Scored) -> None:
        self.judged.append(self.exam.judge(found, support)[self.exam.form.metric])
        self.last, self.total = found, self.total + found.values
        if self.exam.task.form == "classify":
            scored, rows = self.exam.counting(found, support)
            right = np.array([row["label"] for row in rows])
            self.confusion = self.confusion + confusion(scored.values.argmax(1), right, len(self.exam.task.labels))

    def mixed_up(self) -> dict[str, Any]:
        """How often rows of one class were called another. Of many classes the least mixed up are added up as one."""
        if self.exam.task.form != "classify":
            return {}
        counts, labels = self.confusion, [label[:40] for label in self.exam.task.labels]
        if len({*labels}) < len(labels):
            labels = [f"{n + 1} {label}" for n, label in enumerate(labels)]
        if (ways := len(labels)) > MOST:
            wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
            shown = np.sort(np.argsort(-wrong, kind="stable")[:MOST])
            place = np.full(ways, MOST)
            place[shown] = range(MOST)
            merged = np.zeros((MOST + 1, MOST + 1), dtype=np.int64)
            np.add.at(merged, (place[:, None], place[None]), counts)
            counts, labels = merged, [*(labels[n] for n in shown), f"{ways - MOST} others"]
        return {"labels": labels, "confusion": counts.tolist()}

    def mistakes(self) -> list[dict[str, Any]]:
        """The rows that are most wrong by the mean of their scores: texts, right answer, answer, its probability."""
        assert self.last is not None
        form, task = self.exam.form, self.exam.task
        mean = replace(self.last, values=self.total / len(self.judged))
        wrong = form.wrong_by(mean, self.exam.rows, task)
        worst = np.argsort(-wrong, kind="stable")[:WORST]
        worst = worst[wrong[worst] > 0]
        rows = [self.exam.rows[n] for n in worst]
        answers = form.answers(mean.of(worst), rows, task.labels, task.scale) if rows else []
        return [
            {
                "text": [part if len(part) <= LONGEST else part[:LONGEST] + " …" for part in read(form, row)],
                "right": in_words(form.truth(row, task.labels)),
                "said": in_words(answer[form.shown or form.answer]),
                "probability": answer.get("probability"),
            }
            for row, answer in zip(rows, answers, strict=True)
        ]


def read(form: Form, row: Row) -> tuple[str, ...]:
    """What a model reads of a row; of a question with choices the question."""
    return (row["question"],) if "question" in row else form.texts(row)[0]


def view_shares(learner: Learner, support: Support) -> tuple[Tensor, Tensor]:
    """How the head weighs the views with a support set, and without: (V,) each. A method that reads its evidence
    otherwise says so at the start of its inner loop."""
    algorithm, net = learner.algorithm, learner.net
    theta, batch = detach(learner.theta), net.with_trunk(support.batch)
    begin = next(iter(algorithm.inner_loop(net, theta, batch)))
    head = own(theta, batch.form)
    with torch.no_grad():
        if "views/loss" not in begin:
            begin = algorithm.head.evidence(theta, net.features(pick(theta, "lora/"), batch), batch)
        return view_weights(head, begin["views/loss"])[0], torch.softmax(head["views/prior"], 0)


def in_words(answer: Any) -> str:
    if isinstance(answer, Mapping):
        return f"{answer['text']} ({answer['label']})"
    if isinstance(answer, list):
        return ", ".join(map(in_words, answer)) or "none"
    return f"{answer:.2f}" if isinstance(answer, float) else str(answer)


def nearest(net: Backbone, train: Sequence[Task], test: Sequence[Task]) -> dict[str, list[dict[str, Any]]]:
    """The training tasks that each test task is most like, by the cosine of what a few texts of each read as before
    any learning, less what the training tasks have in common. Two have no more in common than not: {}."""
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
    trunk = net.with_trunk(Pool(task, rows, net.encode).pack(np.arange(len(rows)))).trunk
    assert trunk is not None
    return normalize(trunk.frozen, dim=-1).flatten(1).mean(0)


def rounded(values: Tensor) -> list[float]:
    return [round(float(value), 4) for value in values]
