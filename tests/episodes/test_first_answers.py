"""Support and query of a student: the first answers and those that follow, and nothing of what comes later."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted_students import planted

from metanlp.core.errors import InputError
from metanlp.episodes.traces import DECAY, Cuts, FirstAnswers, History, packed


def test_what_came_before_an_answer_knows_no_later_one() -> None:
    student = planted(1, 30, 0)[0]
    whole = History.of(student)
    for cut in (0, 1, 7, 29):
        other = replace(student, right=np.where(np.arange(30) < cut, student.right, ~student.right))
        changed = History.of(other)
        assert (changed.inputs[: cut + 1] == whole.inputs[: cut + 1]).all()
        assert (changed.inputs[cut + 1 :] != whole.inputs[cut + 1 :]).any() or cut == 29


def test_the_counts_are_those_of_a_plain_loop() -> None:
    student = planted(1, 40, 3)[0]
    history = History.of(student)
    for at in (0, 1, 17, 39):
        same = student.skills[:at] == student.skills[at]
        right = student.right[:at]
        assert history.counts[at].tolist() == [
            *(np.bincount(right[same], minlength=2)[[1, 0]]),
            right.sum(),
            at - right.sum(),
        ]
        signs = np.where(right, 1.0, -1.0)
        faded = ((1 - DECAY) * signs * DECAY ** np.arange(at)[::-1]).sum()
        assert history.recent[at, 3] == pytest.approx(faded)
        assert history.recent[at, 0] == (signs[same][-1] if same.any() else 0)


def test_the_support_is_the_beginning_and_the_query_what_follows() -> None:
    draws = FirstAnswers([History.of(s) for s in planted(6, 25, 0)], Cuts((2, 9), 5), seed=3)
    cuts = set[int]()
    for number in range(40):
        episode = draws[number]
        cut = len(episode.support_rows)
        assert episode.support_rows == tuple(range(cut))
        assert episode.query_rows == tuple(range(cut, cut + 5))
        assert episode.support.positions.tolist() == [*range(cut)]
        cuts.add(cut)
    assert cuts == set(range(2, 10))
    assert draws.checksum(0, 5) == draws.checksum(0, 5) != draws.checksum(1, 5)


def test_a_pass_holds_the_answers_of_its_episodes() -> None:
    draws = FirstAnswers([History.of(s) for s in planted(6, 25, 0)], Cuts((2, 9), 5), seed=3)
    (both,) = (build() for build in draws.passes(4, 3, 3))
    for side in ("support", "query"):
        parts = [getattr(draws[number], side) for number in (4, 5, 6)]
        whole = getattr(both, side)
        assert whole.ids.tolist() == [n for part in parts for n in part.ids.tolist()]
        assert whole.targets.tolist() == [n for part in parts for n in part.targets.tolist()]
        assert whole.task_of.tolist() == [n for n, part in enumerate(parts) for _ in part.ids]
        assert whole.ends.tolist() == np.cumsum([len(part.ids) for part in parts]).tolist()


def test_short_students() -> None:
    """One with too few answers is never drawn, a short one ends early, and only such ones are refused."""
    histories = [History.of(s) for s in (*planted(2, 2, 0), *planted(1, 4, 1, "long"))]
    draws = FirstAnswers(histories, Cuts((2, 9), 5), seed=0)
    assert {draws[n].task for n in range(20)} == {"long0"}
    assert all(len(draws[n].support_rows) + len(draws[n].query_rows) == 4 for n in range(20))
    with pytest.raises(InputError, match="none of 2 students has more than 2 answers: the first ones predict the next"):
        FirstAnswers(histories[:2], Cuts((2, 9), 5), seed=0)
    with pytest.raises(InputError, match="is not possible: shots and queries from 1 up"):
        Cuts((3, 2))
    assert packed([(histories[2], slice(1, 3))]).positions.tolist() == [1, 2]
