"""A task made ready to be tested on: frozen support sets and query rows, the same for every method."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import comb, prod

import numpy as np
import torch
from torch import Tensor

from metanlp.algorithms.base import Algorithm
from metanlp.backbone import Backbone
from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Row, Task, Weights
from metanlp.core.weights import checksum, pick
from metanlp.episodes.chunks import Chunk, chunks, scored
from metanlp.episodes.pool import Pool
from metanlp.episodes.sampling import taken
from metanlp.forms import FORMS, Form, Scored, names_of
from metanlp.tasks.rowset import counts_of, keys_of, ways_of

CACHED = 8  # sets of adapters whose features of all query rows are kept
MANY = 1_000_000  # support sets that may be drawn are counted so far


@dataclass(frozen=True)
class Protocol:
    """What is asked of every method."""

    shots: tuple[int, ...] = (4, 8, 16)  # support rows a class
    episodes: int = 10  # support sets a task and shots, where the task does not bring its own
    test_rows: int | None = None  # query rows a task at the most, drawn once; None takes all
    drop_repeats: bool = False  # leave out query rows whose text is also in the support set of a published split
    seed: int = 0  # of everything that is drawn

    def __post_init__(self) -> None:
        if not self.shots:
            raise InputError("--shots names no number of examples a class; give one or more, from 1 up")
        if min((*self.shots, self.episodes, self.test_rows or 1)) < 1 or self.test_rows == 0 or self.seed < 0:
            raise InputError(
                f"--shots {' '.join(map(str, self.shots))}, --episodes {self.episodes} and --test-rows "
                f"{self.test_rows} are from 1 up, --seed {self.seed} from 0 up"
            )


@dataclass(frozen=True)
class Support:
    """One support set."""

    shots: int  # k
    number: int  # which of the sets with k shots
    batch: Batch
    rows: tuple[Row, ...]
    keys: tuple[int, ...]  # identities of these
    excluded: np.ndarray  # (R,) bool: query rows that may not be scored with it


class HeldOutTask:
    """Query rows of one task in packed passes, and support sets by shots."""

    def __init__(self, task: Task, net: Backbone, protocol: Protocol) -> None:
        self.task, self.net, self.protocol = task, net, protocol
        self.form = FORMS[task.form]
        self._train = Pool.of(task, net.encode)
        rows = task.pools.get("test", self._train.rows)
        order = self._rng().permutation(len(rows))[: protocol.test_rows]
        self.rows = [rows[n] for n in sorted(order)]
        self.keys = keys_of(self.rows, self.form)
        self.supports, self.skipped = self._all_supports()
        # By how features are computed and by the adapters, the oldest first: features of each chunk.
        self._features: dict[tuple[object, str], dict[int, Tensor]] = {}

    @cached_property
    def chunks(self) -> list[Chunk]:
        """The query rows with their trunk."""
        pool = Pool(self.task.meaning, self.rows, self.net.encode)
        return [replace(chunk, batch=self.net.with_trunk(chunk.batch, again=False)) for chunk in chunks(pool)]

    def scores(self, algorithm: Algorithm, phi: Weights) -> Scored:
        """Of every query row. No row goes twice through the same adapters: a method that moves the head alone, or
        nothing, scores every support set with one run of the model."""
        known, found = self._known(algorithm, phi), list[Tensor]()
        with torch.no_grad():
            for number, chunk in enumerate(self.chunks):
                if number not in known:
                    known[number] = algorithm.features(self.net, phi, chunk.batch)
                found.append(algorithm.head_scores(phi, known[number], chunk.batch))
        return scored(self.chunks, found)

    def counting(self, found: Scored, support: Support) -> tuple[Scored, list[Row]]:
        """The query rows that count with this support set, with what was said of them."""
        counted = np.flatnonzero(~support.excluded)
        return found.of(counted), [self.rows[n] for n in counted]

    def judge(self, found: Scored, support: Support) -> dict[str, float]:
        """All metrics of the form, from the scores of every query row."""
        return self.form.metrics(*self.counting(found, support), self.task.meaning)

    def score(self, algorithm: Algorithm, phi: Weights, support: Support) -> float:
        """The metric by which the form is judged: accuracy, where there are classes."""
        return self.judge(self.scores(algorithm, phi), support)[self.form.metric]

    def _known(self, algorithm: Algorithm, phi: Weights) -> dict[int, Tensor]:
        """Features of the query rows through the adapters of φ, by chunk, as far as they are computed. Those of the
        adapters used last are kept."""
        key = (type(algorithm).features, checksum(pick(phi, "lora/")))
        known = self._features[key] = self._features.pop(key, {})
        while len(self._features) > CACHED:
            del self._features[next(iter(self._features))]
        return known

    def fingerprint(self) -> str:
        """sha256 over the folded texts and answers of all rows in use: equal where two people tested on the same
        episodes."""
        texts = [self.form.key(row) for row in self.rows]
        answers = [[*map(float, np.ravel(self.form.gold(row, self.task.meaning)))] for row in self.rows]
        digest = hashlib.sha256(repr((self.task.name, texts, answers)).encode())
        for support in self.supports:
            digest.update(repr((support.shots, support.number, tuple(map(self.form.key, support.rows)))).encode())
        return digest.hexdigest()

    def _all_supports(self) -> tuple[list[Support], dict[int, str]]:
        """The support sets, and the shots that this task can't give with the reason."""
        found: list[Support] = []
        skipped: dict[int, str] = {}
        for k, reason in why_not(self.task, self.protocol.shots).items():
            supports = [] if reason else self._supports(k)
            if any(support.excluded.all() for support in supports):
                reason = "a support set leaves no query row"
            if reason:
                skipped[k] = reason
            else:
                found += supports
        return found, skipped

    def _supports(self, k: int) -> list[Support]:
        """Those that the task brings, or drawn ones."""
        episodes, all_rows = self.protocol.episodes, self._train
        if not self.task.supports.get(k):
            return [self._support(k, n, all_rows, self._draw(k, n)) for n in range(episodes)]
        pools = [Pool(self.task.meaning, rows, self.net.encode) for rows in self.task.supports[k][:episodes]]
        found = [self._support(k, n, pool, np.arange(len(pool.rows))) for n, pool in enumerate(pools)]
        return [replace(each, excluded=each.excluded & self.protocol.drop_repeats) for each in found]

    def possible(self, k: int) -> int:
        """How many support sets there are to draw, at the most; 0 where the task brings its own."""
        if self.task.supports.get(k):
            return 0
        sizes = [len(self._train.by_class[label]) for label in able(self.form, map(len, self._train.by_class))]
        return min(MANY, prod(comb(size, k) for size in sizes))

    def _draw(self, k: int, number: int) -> np.ndarray:
        rng, classes = self._rng(k, number), able(self.form, map(len, self._train.by_class))
        orders = [rng.permutation(self._train.by_class[label]) for label in classes]
        return taken(self._train, classes, orders, k)

    def _support(self, k: int, number: int, pool: Pool, chosen: np.ndarray) -> Support:
        rows = tuple(pool.rows[n] for n in chosen)
        keys = keys_of(rows, self.form)
        return Support(k, number, pool.pack(chosen), rows, tuple(keys.tolist()), np.isin(self.keys, keys))

    def _rng(self, *which: int) -> np.random.Generator:
        """The same draws for (seed, task, shots, number), whatever else the protocol asks for. crc32 and not hash():
        Python's own hash of a string differs from process to process."""
        return np.random.default_rng([self.protocol.seed, zlib.crc32(self.task.name.encode()), *which])


def check_forms(method: str, learns: Callable[[Form], bool], tasks: Sequence[Task]) -> None:
    """Raises InputError for a task whose form the method can't learn."""
    for task in tasks:
        if not learns(FORMS[task.form]):
            raise InputError(
                f"task {task.name!r} ({task.source}) is of the form {task.form!r}, but {method!r} learns "
                f"{names_of(learns)}; leave out the task, or the method: --method, --baselines"
            )


def check_shots(tasks: Sequence[Task], shots: Sequence[int]) -> None:
    """Raises InputError where no task can give any of `shots`: better said before a run than at its end."""
    reasons: list[str] = []
    for task in tasks:
        why = list(why_not(task, shots).values())
        if not all(why):
            return
        reasons += [f"task {task.name!r} ({task.source}): {why[0]}"] if why else []
    if reasons:
        more = f" and {len(reasons) - 1} more tasks" if len(reasons) > 1 else ""
        said = f"{reasons[0]}{more}; lower --shots or add rows"
        raise InputError(f"no test task can give any of {list(shots)} shots: {said}")


def why_not(task: Task, shots: Sequence[int]) -> dict[int, str]:
    """Shots -> why `task` can't give so many, by its rows and its classes; or nothing."""
    if task.supports:
        published = f"its support sets are for {sorted(task.supports)} shots"
        return {k: "" if task.supports.get(k) else published for k in shots}
    form = FORMS[task.form]
    counts = counts_of(task.pools["train"], form, ways_of(task))
    smallest = min(counts[label] for label in able(form, counts))
    what = "its smallest class has" if form.by_class else "it has"
    one_to_judge_by = "test" not in task.pools
    return {k: "" if smallest >= k + one_to_judge_by else f"{what} {smallest} rows" for k in shots}


def able(form: Form, counts: Iterable[int]) -> list[int]:
    """Classes that may have shots, by the rows of each: all of the task's but "O" of tagging."""
    return [label for label, count in enumerate(counts) if count or form.one_class]


def count_repeats(held_out: HeldOutTask) -> int:
    """Query rows that are also a support row somewhere: a property of some published splits."""
    support = {key for support in held_out.supports for key in support.keys}
    return sum(key in support for key in held_out.keys) if held_out.task.supports else 0
