"""A task made ready to be tested on: frozen support sets and query rows, the same for every method."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from metanlp.algorithms.base import Algorithm
from metanlp.backbone import Backbone
from metanlp.episodes import taken
from metanlp.errors import InputError
from metanlp.forms import FORMS, Scored
from metanlp.pool import Pool, counts_of
from metanlp.types import Batch, Row, Task, Tokens, Weights
from metanlp.weights import checksum, pick

CHUNK = 6_000  # tokens in one pass without gradients
REMEMBERED = 8  # sets of adapters whose features of all query rows are kept


@dataclass(frozen=True)
class Protocol:
    """What is asked of every method."""

    shots: tuple[int, ...] = (4, 8, 16)  # support rows a class
    episodes: int = 10  # support sets a task and shots, where the task does not bring its own
    test_rows: int | None = None  # query rows a task at the most, drawn once; None takes all
    drop_repeats: bool = False  # leave out query rows whose text is also in the support set of a published split
    seed: int = 0  # of everything that is drawn


@dataclass(frozen=True)
class Support:
    """One support set."""

    shots: int  # k
    number: int  # which of the sets with k shots
    batch: Batch
    rows: tuple[Row, ...]
    keys: tuple[tuple[str, ...], ...]  # identities of these
    excluded: np.ndarray  # (R,) bool: query rows that may not be scored with it


class Exam:
    """Query rows of one task in packed passes, and support sets by shots."""

    def __init__(self, task: Task, net: Backbone, protocol: Protocol) -> None:
        self.task, self.net, self.protocol = task, net, protocol
        self.form = FORMS[task.form]
        self._train = Pool.of(task, net.encode)
        rows = task.pools.get("test", self._train.rows)
        order = self._rng().permutation(len(rows))[: protocol.test_rows]
        self.rows = [rows[n] for n in sorted(order)]
        self.keys = [self.form.key(row) for row in self.rows]
        self.supports, self.skipped = self._all_supports()
        self._features: dict[str, dict[int, Tensor]] = {}  # oldest first

    @cached_property
    def chunks(self) -> list[Chunk]:
        """The query rows with their trunk."""
        pool = Pool(self.task, self.rows, self.net.encode)
        return [replace(chunk, batch=self.net.with_trunk(chunk.batch)) for chunk in chunks(pool)]

    def scores(self, algorithm: Algorithm, phi: Weights) -> Scored:
        """Of every query row."""
        known, found = self._known(phi), list[Tensor]()
        with torch.no_grad():
            for number, chunk in enumerate(self.chunks):
                net = cast(Any, Remembering(self.net, known, number))
                found.append(algorithm.scores(net, phi, chunk.batch))
        return scored(self.chunks, found)

    def counting(self, found: Scored, support: Support) -> tuple[Scored, list[Row]]:
        """The query rows that count with this support set, with what was said of them."""
        counted = np.flatnonzero(~support.excluded)
        return found.of(counted), [self.rows[n] for n in counted]

    def judge(self, found: Scored, support: Support) -> dict[str, float]:
        """All metrics of the form, from the scores of every query row."""
        return self.form.metrics(*self.counting(found, support), self.task)

    def score(self, algorithm: Algorithm, phi: Weights, support: Support) -> float:
        """The metric by which the form is judged: accuracy, where there are classes."""
        return self.judge(self.scores(algorithm, phi), support)[self.form.metric]

    def _known(self, phi: Weights) -> dict[int, Tensor]:
        """Features of the query rows through these adapters, by pass, as far as they are known; of the adapters seen
        last, others make room."""
        adapters = checksum(pick(phi, "lora/"))
        known = self._features[adapters] = self._features.pop(adapters, {})
        while len(self._features) > REMEMBERED:
            del self._features[next(iter(self._features))]
        return known

    def fingerprint(self) -> str:
        """sha256 over the identities of all rows in use: equal where two people tested on the same episodes."""
        answers = [[*map(float, np.ravel(self.form.gold(row, self.task)))] for row in self.rows]
        digest = hashlib.sha256(repr((self.task.name, self.keys, answers)).encode())
        for support in self.supports:
            digest.update(repr((support.shots, support.number, support.keys)).encode())
        return digest.hexdigest()

    def _all_supports(self) -> tuple[list[Support], dict[int, str]]:
        """The support sets, and the shots that this task can't give with the reason."""
        found: list[Support] = []
        skipped: dict[int, str] = {}
        smallest = fewest(self.task, tuple(map(len, self._train.by_class)))
        for k in self.protocol.shots:
            reason, supports = why_not(self.task, smallest, k), list[Support]()
            if not reason:
                supports = self._supports(k)
                reason = "a support set leaves no query row" if any(s.excluded.all() for s in supports) else ""
            if reason:
                skipped[k] = reason
            else:
                found += supports
        return found, skipped

    def _supports(self, k: int) -> list[Support]:
        fixed = self.task.supports.get(k, ())[: self.protocol.episodes]
        if fixed:
            return [self._fixed(k, number, rows) for number, rows in enumerate(fixed)]
        return [self._drawn(k, number) for number in range(self.protocol.episodes)]

    def _fixed(self, k: int, number: int, rows: Sequence[Row]) -> Support:
        pool = Pool(self.task, rows, self.net.encode)
        support = self._support(k, number, pool, np.arange(len(rows)))
        return replace(support, excluded=support.excluded & self.protocol.drop_repeats)

    def _drawn(self, k: int, number: int) -> Support:
        rng, classes = self._rng(k, number), able(self.task, tuple(map(len, self._train.by_class)))
        orders = [rng.permutation(self._train.by_class[label]) for label in classes]
        return self._support(k, number, self._train, taken(self._train, classes, orders, k))

    def _support(self, k: int, number: int, pool: Pool, chosen: np.ndarray) -> Support:
        rows = tuple(pool.rows[n] for n in chosen)
        keys = tuple(map(self.form.key, rows))
        return Support(k, number, pool.pack(chosen), rows, keys, self._among(keys))

    def _rng(self, *which: int) -> np.random.Generator:
        """The same draws for (seed, task, shots, number), whatever else the protocol asks for. crc32 and not hash():
        Python's own hash of a string differs from process to process."""
        return np.random.default_rng([self.protocol.seed, zlib.crc32(self.task.name.encode()), *which])

    def _among(self, keys: Sequence[tuple[str, ...]]) -> np.ndarray:
        """Query rows with one of these identities: (R,) bool."""
        known = set(keys)
        return np.array([key in known for key in self.keys])


def check_forms(method: str, forms: Sequence[str], tasks: Sequence[Task]) -> None:
    """Raises InputError for a task whose form the method can't learn."""
    for task in tasks:
        if task.form not in forms:
            raise InputError(
                f"task {task.name!r} ({task.source}) is of the form {task.form!r}, but {method!r} learns "
                f"{', '.join(forms)}; leave out the task, or the method: --method, --baselines"
            )


def check_shots(tasks: Sequence[Task], shots: Sequence[int]) -> None:
    """Raises InputError where no task can give any of `shots`: better said before a run than at its end."""
    reasons: list[str] = []
    for task in tasks:
        smallest = fewest(task, counts_of(task, lambda task=task: Pool.of(task, untokenised)))
        why = [why_not(task, smallest, k) for k in shots]
        if not all(why):
            return
        reasons += [f"task {task.name!r} ({task.source}): {why[0]}"] if why else []
    if reasons:
        more = f" and {len(reasons) - 1} more tasks" if len(reasons) > 1 else ""
        said = f"{reasons[0]}{more}; lower --shots or add rows"
        raise InputError(f"no test task can give any of {list(shots)} shots: {said}")


def why_not(task: Task, smallest: int, k: int) -> str:
    """Why `task`, with `smallest` different rows to train on in its smallest class, can't give k shots; or nothing."""
    if task.supports:
        return "" if task.supports.get(k) else f"its support sets are for {sorted(task.supports)} shots"
    one_to_judge_by = "test" not in task.pools
    what = "its smallest class has" if FORMS[task.form].by_class else "it has"
    return "" if smallest >= k + one_to_judge_by else f"{what} {smallest} rows"


def able(task: Task, counts: Sequence[int]) -> list[int]:
    """Classes that may have shots: all of the task's but "O" of tagging."""
    return [label for label, count in enumerate(counts) if count or FORMS[task.form].one_class]


def fewest(task: Task, counts: Sequence[int]) -> int:
    """Different rows in the smallest class, or in all where there are no classes."""
    return min(counts[label] for label in able(task, counts))


def untokenised(*_: object) -> Tokens:
    raise AssertionError("rows are counted here, not read")


@dataclass(frozen=True)
class Remembering:
    """A backbone that runs no query row twice through the same adapters: a method that moves the head alone, or
    nothing, scores every support set with one run of the model."""

    net: Backbone
    known: dict[int, Tensor]  # features by the number of the pass
    number: int  # of this pass

    def features(self, w: Weights, batch: Batch) -> Tensor:
        if self.number not in self.known:
            self.known[self.number] = self.net.features(w, batch)
        return self.known[self.number]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.net, name)


@dataclass(frozen=True)
class Chunk:
    """Some rows in one pass."""

    rows: np.ndarray  # (r,) their numbers
    batch: Batch
    counts: np.ndarray  # (r,) units of each
    places: np.ndarray  # (n,) of each unit in its row


def chunks(pool: Pool) -> list[Chunk]:
    """All rows in passes of about `CHUNK` tokens, rows of like length together: attention pads little, layers never."""
    return [Chunk(rows, pool.pack(rows), *pool.units(rows)) for rows in pool.parts(CHUNK)]


def scored(parts: Sequence[Chunk], scores: Sequence[Tensor]) -> Scored:
    """The scores of all rows, put back into their order."""
    values = np.concatenate([each.float().cpu().numpy() for each in scores])
    joined = (np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "counts", "places"))
    rows, counts, places = joined
    return Scored(values, counts, places).of(np.argsort(rows))


def count_repeats(exam: Exam) -> int:
    """Query rows that are also a support row somewhere: a property of some published splits."""
    support = {key for support in exam.supports for key in support.keys}
    return sum(key in support for key in exam.keys) if exam.task.supports else 0
