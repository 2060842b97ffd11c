"""Rows that a learner has seen do not judge it, and no others are taken for them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metanlp.core.errors import InputError
from metanlp.tasks.leaks import SEEN_BITS, seen_of, without_seen
from metanlp.tasks.sources.mini import read_mini


def test_of_each_task_the_rows_that_were_seen_are_left_out_and_no_others() -> None:
    roles = read_mini()
    seen = seen_of(roles.train)
    assert 0 < len(seen) <= sum(len(task.pools["train"]) for task in roles.train)
    assert int(seen.max()) < 2**SEEN_BITS
    kept, counts = without_seen(roles.test, seen)
    assert (kept, counts) == (tuple(roles.test), {})
    task, taught = roles.test[0], roles.train[0]
    few = replace(taught, pools={"train": taught.pools["train"][:5]})
    mixed = replace(task, pools={**task.pools, "test": (*task.pools["train"], *few.pools["train"])})
    (judged,), counts = without_seen([mixed], seen)
    assert counts == {task.name: 5}
    assert tuple(judged.pools["test"]) == tuple(task.pools["train"])
    assert judged.pools["train"] == mixed.pools["train"]


def test_a_task_of_which_nothing_is_new_is_refused() -> None:
    task = read_mini().train[0]
    with pytest.raises(InputError, match="every row that judges"):
        without_seen([task], seen_of([task]))
