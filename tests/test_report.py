"""What the tables say of their numbers."""

from __future__ import annotations

from typing import Any

import pytest

from metanlp import report
from metanlp.meta_test import Report, summary


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


def test_what_is_said_stands_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets and colons of a task or a prompt are no markup."""
    report.say({"views": "every text after '[query] :key: '"})
    assert capsys.readouterr().out == "views: every text after '[query] :key: '\n"


# One table over all methods.


def compared(**adapt_s: float) -> Report:
    """Three episodes at 4 and 8 shots; each method is five points above the one before."""
    means = {
        name: {k: {"accuracy": summary([0.5 + 0.05 * n, 0.6 + 0.05 * n, 0.7 + 0.05 * n])} for k in ("4", "8")}
        for n, name in enumerate(adapt_s)
    }
    methods = {name: {"adapt_s": seconds, "parameters": 1234} for name, seconds in adapt_s.items()}
    return Report({"metrics": {"a": "accuracy", "b": "accuracy"}, "left_out": {}}, {}, methods, {}, means, [])


def test_the_difference_to_a_named_method_is_of_the_same_episodes() -> None:
    found = compared(frozen=0.1, multitask=0.3, maml=0.5)
    for name, to, points in (("maml", "multitask", 5), ("frozen", "maml", -10), ("frozen", "frozen", 0)):
        gap = report.difference_to(found, name, to, "8")
        assert [100 * (gap[end] or 0.0) for end in ("difference", "low", "high")] == pytest.approx(
            [points] * 3, abs=1e-3
        )


def test_a_row_a_method(capsys: pytest.CaptureFixture[str]) -> None:
    report.show_overview(compared(frozen=0.1, maml=0.5), "frozen")
    said = " ".join(capsys.readouterr().out.split())
    assert "difference to frozen" in said
    assert "1,234" in said
    assert "0.500" in said
    table = report.overview_table(compared(frozen=0.1, maml=0.5), "frozen")
    cells = [list(column.cells) for column in table.columns]
    assert [row[1] for row in cells] == ["maml", *["65.0 ± 24.8"] * 2, *["+5.0 [+5.0, +5.0]*"] * 2, "0.500", "1,234"]
    assert [row[0] for row in cells][3:5] == ["-", "-"]
