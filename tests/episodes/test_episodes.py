"""Episodes by number, whoever asks for them and in whatever order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from conftest import pack_rows

from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Episode, Task, Tokens
from metanlp.episodes.pool import Pool
from metanlp.episodes.sampling import Episodes, Sampling, episode_rng, group
from metanlp.forms import FORMS

SAMPLING = Sampling(shots=(2, 4), queries=3, ways=4)


def letters(texts: Sequence[tuple[str, ...]]) -> Tokens:
    """A token a letter: an encoder that needs no model."""
    rows = [[ord(letter) for text in row for letter in text] for row in texts]
    ids = np.array([i for row in rows for i in row], dtype=np.int64)
    return Tokens(ids, 0 * ids, 0 * ids + 1, np.cumsum([0, *map(len, rows)]))


def task(name: str, *sizes: int) -> Task:
    rows = [{"text": f"{name} {label} {n}", "label": label} for label, size in enumerate(sizes) for n in range(size)]
    return Task(name, {"train": rows}, tuple(f"label {n}" for n in range(len(sizes))), "test")


def tensors(batch: Batch) -> list[torch.Tensor]:
    return [
        batch.ids,
        batch.positions,
        batch.types,
        batch.segments,
        batch.lengths,
        batch.targets,
        batch.ways,
        batch.ends,
    ]


def same(a: Episode, b: Episode) -> bool:
    facts = [(e.task, e.number, e.classes, e.support_rows, e.query_rows) for e in (a, b)]
    parts = [tensors(e.support) + tensors(e.query) for e in (a, b)]
    return facts[0] == facts[1] and all(torch.equal(x, y) for x, y in zip(*parts, strict=True))


@pytest.fixture
def tasks() -> tuple[Task, ...]:
    return task("two", 20, 30), task("five", 9, 8, 7, 6, 5), task("uneven", 3, 40, 2)


# By number.


def test_an_episode_depends_on_seed_and_number_alone(tasks: tuple[Task, ...]) -> None:
    one, other = (Episodes(tasks, letters, SAMPLING, seed=3) for _ in range(2))
    forward = [one[number] for number in range(30)]
    backward = [other[number] for number in reversed(range(30))][::-1]
    assert all(same(a, b) for a, b in zip(forward, backward, strict=True))
    assert [episode.number for episode in forward] == list(range(30))
    elsewhere = Episodes(tasks, letters, SAMPLING, seed=4)
    assert sum(same(a, elsewhere[number]) for number, a in enumerate(forward)) < 3


def test_the_stream_of_an_episode_is_the_same_on_any_computer() -> None:
    """numpy promises that a seeded PCG64 gives these bits everywhere."""
    assert episode_rng(1, 2).integers(0, 2**32, 2).tolist() == [2762783682, 1925928375]
    assert episode_rng(1, 2).random() != episode_rng(2, 1).random()


@pytest.mark.parametrize(("start", "count", "size"), [(0, 8, 8), (5, 7, 3), (40, 4, 1), (2, 0, 2)])
def test_passes_cover_exactly_the_numbers_asked(tasks: tuple[Task, ...], start: int, count: int, size: int) -> None:
    episodes = Episodes(tasks, letters, SAMPLING, seed=0)
    passes = [build() for build in episodes.passes(start, count, size)]
    numbers = [[episode.number for episode in each.episodes] for each in passes]
    assert [n for group in numbers for n in group] == list(range(start, start + count))
    assert all(len(group) == size for group in numbers[:-1])
    assert all(same(e, episodes[e.number]) for each in passes for e in each.episodes)


def test_a_group_keeps_the_order_of_its_episodes(tasks: tuple[Task, ...]) -> None:
    episodes = Episodes(tasks, letters, SAMPLING, seed=0)
    drawn = [episodes[number] for number in (9, 2, 5, 2)]
    joined = group(drawn)
    assert joined.episodes == tuple(drawn)
    for side in ("support", "query"):
        batch, parts = getattr(joined, side), [getattr(episode, side) for episode in drawn]
        assert torch.equal(batch.ids, torch.cat([part.ids for part in parts]))
        assert torch.equal(batch.targets, torch.cat([part.targets for part in parts]))
        assert batch.ways.tolist() == [len(episode.classes) for episode in drawn]
        assert torch.equal(batch.task_of, torch.cat([torch.full_like(p.task_of, n) for n, p in enumerate(parts)]))


# What an episode holds.


def test_rows_shots_and_classes_are_what_was_asked(tasks: tuple[Task, ...]) -> None:
    by_name = {each.name: Pool(each.meaning, each.pools["train"], letters) for each in tasks}
    shots = Counter[int]()
    episodes = Episodes(tasks, letters, SAMPLING, seed=1)
    for number in range(300):
        episode = episodes[number]
        pool = by_name[episode.task]
        assert not set(episode.support_rows) & set(episode.query_rows)
        assert not _keys(pool, episode.support_rows) & _keys(pool, episode.query_rows)
        assert 2 <= len(episode.classes) <= SAMPLING.ways
        assert list(episode.classes) == sorted(set(episode.classes))
        for rows, batch in ((episode.support_rows, episode.support), (episode.query_rows, episode.query)):
            assert len(set(rows)) == len(rows)
            assert [episode.classes[t] for t in batch.targets.tolist()] == [pool.rows[n]["label"] for n in rows]
            assert batch.lengths.tolist() == pool.tokens.lengths()[list(rows)].tolist()
        given = Counter(episode.support.targets.tolist())
        asked = Counter(episode.query.targets.tolist())
        assert len(set(given.values())) == 1
        assert len(asked) == len(given) == len(episode.classes)
        assert 2 <= given[0] <= 4
        assert all(1 <= n <= SAMPLING.queries for n in asked.values())
        shots[given[0]] += 1
    assert set(shots) == {2, 3, 4}


def _keys(pool: Pool, rows: Sequence[int]) -> set[tuple[str, ...]]:
    return {FORMS["classify"].key(pool.rows[n]) for n in rows}


def test_a_text_that_comes_twice_is_one_row() -> None:
    rows = [{"text": text, "label": n % 2} for n, text in enumerate(["One", "two", " one ", "TWO", "three", "four"])]
    twice = Task("twice", {"train": rows}, ("a", "b"), "test")
    pool = Pool.of(twice, letters)
    assert [row["text"] for row in pool.rows] == ["One", "two", "three", "four"]
    assert [len(rows) for rows in pool.by_class] == [2, 2]


def test_a_class_with_too_few_rows_stays_out(tasks: tuple[Task, ...]) -> None:
    episodes = Episodes(tasks[2:], letters, SAMPLING, seed=0)
    assert {episodes[number].classes for number in range(20)} == {(0, 1)}


def test_tasks_come_by_the_root_of_their_size() -> None:
    """χ² over 3,000 draws, two degrees of freedom: above 13.8 once in a thousand seeds, and this is one seed."""
    episodes = Episodes([task("s", 5, 5), task("m", 20, 20), task("l", 45, 45)], letters, Sampling((1, 1), 1), seed=0)
    counts = Counter(episodes[number].task for number in range(3000))
    expected = {"s": 500, "m": 1000, "l": 1500}  # √10 : √40 : √90
    assert sum((counts[name] - n) ** 2 / n for name, n in expected.items()) < 13.8


# Refusals.


def test_a_task_is_drawn_as_numpy_draws_with_probabilities() -> None:
    """What runs and learners of before have drawn stays what it was."""
    episodes = Episodes([task("a", 5, 5), task("b", 20, 30), task("c", 9, 9)], letters, SAMPLING, seed=3)
    sizes = np.sqrt([10, 50, 18])
    for number in range(300):
        expected = episode_rng(3, number).choice(3, p=sizes / sizes.sum())
        assert episodes[number].task == "abc"[expected]


def test_a_task_too_small_is_named(tasks: tuple[Task, ...]) -> None:
    with pytest.raises(
        InputError, match=r"task 'small' has \{'label 0': 4, 'label 1': 5\} .* need 5 in at least two"
    ) as e:
        Episodes([tasks[0], task("small", 4, 5)], letters, Sampling(shots=(4, 8)), seed=0)
    assert "\n" not in str(e.value)


def test_no_task_at_all() -> None:
    with pytest.raises(InputError, match="no training task"):
        Episodes([], letters, SAMPLING, seed=0)


@pytest.mark.parametrize("wrong", [{"shots": (0, 2)}, {"shots": (4, 2)}, {"queries": 0}, {"ways": 1}])
def test_settings_that_are_not_possible(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match="is not possible"):
        Sampling(**wrong)  # pyright: ignore[reportArgumentType]


def test_rows_as_one_batch() -> None:
    batch = pack_rows([{"text": "abc", "label": 1}, {"text": "d", "label": 0}], 2, letters)
    assert batch.ids.tolist() == [ord(letter) for letter in "dabc"]  # short texts first
    assert batch.example_of.tolist() == [1, 0, 0, 0]
    assert batch.targets.tolist() == [1, 0]
    assert batch.ways.tolist() == [2]
