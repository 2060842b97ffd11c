"""What the tables say of their numbers."""

from __future__ import annotations

from typing import Any

import pytest

from metanlp import report


def row(low: float | None, high: float | None, mean: float = 0.02) -> dict[str, Any]:
    return {
        "a": "maml",
        "b": "frozen",
        "k": 4,
        "task": None,
        "difference": mean,
        "mean": mean,
        "low": low,
        "high": high,
    }


@pytest.mark.parametrize(
    ("given", "said", "side"),
    [
        (row(0.01, 0.03), "+2.0 [+1.0, +3.0]*", 1),
        (row(-0.01, 0.05), "+2.0 [-1.0, +5.0]", 0),
        (row(-0.03, -0.01, -0.02), "-2.0 [-3.0, -1.0]*", -1),
        (row(None, None), "+2.0", 0),
    ],
)
def test_a_star_stands_where_the_interval_leaves_out_zero(given: dict[str, Any], said: str, side: int) -> None:
    assert (report.difference(given), report.side(given)) == (said, side)


def test_one_episode_has_no_width() -> None:
    assert report.percent(row(None, None)) == "2.0"
    assert report.percent(row(0.01, 0.03)) == "2.0 ± 1.0"
