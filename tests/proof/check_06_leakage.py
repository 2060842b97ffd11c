"""No row, and no text but for case and spaces, in both support and query; and rows planted in training are found."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from case import Cases
from form_tasks import FORMS as NAMES
from form_tasks import task_of
from tiny_learner import shared

from metanlp.core.types import Episode, Roles, Row, Task
from metanlp.episodes.pool import Pool
from metanlp.episodes.sampling import Episodes, Sampling
from metanlp.forms import FORMS
from metanlp.tasks.leaks import drop_leaks, leakage, query_pool
from metanlp.tasks.sources.mini import read_mini

WIDE = {ord(letter): ord(letter) + 0xFEE0 for letter in "abcdefghijklmnopqrstuvwxyz"}
DISGUISES = (str.upper, lambda text: f"  {text}\t", lambda text: re.sub(" ", "\u00a0\n ", text), str.title,
             lambda text: text.translate(WIDE))  # fmt: skip


def cases(count: int, folder: Path) -> Cases:
    """Of 10,100: 100 planted rows, and 10,000 episodes."""
    planted = max(5, count // 101)
    yield from of_plants(planted)
    yield from of_episodes(count - planted, folder)


def plain(texts: list[str]) -> str:
    """Our own word for the same text: letters and digits alone, in small letters."""
    return "|".join("".join(sign for sign in text.casefold() if sign.isalnum()) for text in texts)


def of_episodes(count: int, folder: Path) -> Cases:
    """Of tasks of every form, in each of which every fifth row comes again in disguise."""
    tasks = tuple(repeated(task) for task in (*shared().tasks, *(task_of(form) for form in NAMES)))
    net = shared().net
    episodes = Episodes(tasks, net.encode, Sampling(shots=(1, 8), queries=8), seed=6)
    rows = {task.name: Pool.of(task, net.encode).rows for task in tasks}
    for number in range(count):
        yield both_have(episodes[number], rows)


def repeated(task: Task) -> Task:
    again = [disguised(row, number) for number, row in enumerate(task.pools["train"]) if number % 5 == 0]
    return replace(task, pools={"train": [*task.pools["train"], *again]})


def disguised(row: Row, number: int) -> Row:
    """The same to a reader: other case, other spaces; only where the row is one text or two."""
    texts = {field: DISGUISES[number % len(DISGUISES)](row[field]) for field in ("text", "text_a", "text_b")
             if isinstance(row.get(field), str)}  # fmt: skip
    return {**row, **texts}


def both_have(episode: Episode, rows: dict[str, list[Row]]) -> str:
    form = FORMS[episode.support.form]
    support, query = (
        {plain([part for text in form.texts(rows[episode.task][n]) for part in text]) for n in side}
        for side in (episode.support_rows, episode.query_rows)
    )
    both = {*episode.support_rows} & {*episode.query_rows} or support & query
    return f"episode {episode.number} of {episode.task}: {both}" if both or not (support and query) else ""


def of_plants(count: int) -> Cases:
    """Rows that judge, in disguise, each in some training task; training goes on without them and without others."""
    roles, _ = drop_leaks(read_mini())
    first, rng = leakage(roles), np.random.default_rng(0)
    if first.count:
        yield f"{first.count} rows leak before any is planted"
        return
    train, places = [list(task.pools["train"]) for task in roles.train], list[tuple[str, int, str, int]]()
    judging = (*roles.validation, *roles.test)
    for number in range(count):
        judge = judging[int(rng.integers(len(judging)))]
        fits = [
            n
            for n, task in enumerate(roles.train)
            if ("text" in task.pools["train"][0]) == ("text" in judge.pools["train"][0])
        ]
        at, row = int(rng.choice(fits)), int(rng.integers(len(judge.pools[query_pool(judge)])))
        copy = disguised(judge.pools[query_pool(judge)][row], number) | {"label": number % len(roles.train[at].labels)}
        places.append((judge.name, row, roles.train[at].name, len(train[at])))
        train[at].append(copy)
    tasks = [replace(task, pools={**task.pools, "train": rows}) for task, rows in zip(roles.train, train, strict=True)]
    yield from found(replace(roles, train=tuple(tasks)), places)


def found(roles: Roles, places: list[tuple[str, int, str, int]]) -> Cases:
    told = {
        (each.evaluation, row, each.training, other) for each in leakage(roles).overlaps for row, other in each.rows
    }
    _, dropped = drop_leaks(roles)
    for place in places:
        gone = dropped.get(place[2], 0) == sum(other[2] == place[2] for other in places)
        yield (
            "" if place in told and gone else f"planted {place}: {'found' if place in told else 'not found'}, {dropped}"
        )
