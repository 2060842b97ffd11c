"""What the tables say of their numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.table import Table
from runs import scored

from metanlp.core.intervals import Interval
from metanlp.evaluation.results import Difference
from metanlp.report import tables as report


def difference(low: float | None, high: float | None, mean: float = 0.02, lacking: str = "") -> Difference:
    return Difference("maml", "frozen", Interval(mean, low, high), lacking)


@pytest.mark.parametrize(
    ("given", "said", "verdict"),
    [
        (difference(0.01, 0.03), "+2.0 [+1.0, +3.0]*", "better"),
        (difference(-0.01, 0.05), "+2.0 [-1.0, +5.0]", "unclear"),
        (difference(-0.03, -0.01, -0.02), "-2.0 [-3.0, -1.0]*", "worse"),
        (difference(None, None), "+2.0", "unclear"),
        (difference(0.01, 0.03, lacking="use --episodes 5"), "+2.0 [+1.0, +3.0]", "too little data"),
    ],
)
def test_a_star_stands_where_there_is_a_verdict(given: Difference, said: str, verdict: str) -> None:
    assert (report.difference(given), given.verdict) == (said, verdict)


def test_a_score_says_its_width_or_its_ends() -> None:
    assert report.percent(Interval(0.02, None, None)) == "2.0"
    assert report.percent(Interval(0.02, 0.01, 0.03)) == "2.0 ± 1.0"
    assert report.percent(Interval(0.95, 0.85, 1.0)) == "95.0 [85.0, 100.0]", "cut at what is possible"


def test_what_is_said_stands_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets and colons of a task or a prompt are no markup."""
    report.say({"views": "every text after '[query] :key: '"})
    assert capsys.readouterr().out == "views: every text after '[query] :key: '\n"


def cells(table: Table) -> list[list[str]]:
    """Of each row."""
    return [list(map(str, row)) for row in zip(*(column.cells for column in table.columns), strict=True)]


def test_mean_recall_stands_beside_accuracy() -> None:
    found = scored({"frozen": 0.5, "maml": 0.6}, ["a"], (4,))
    rows = cells(report.score_table(found))
    assert [row[:3] for row in rows] == [
        ["a", "4", "accuracy"], ["a", "4", "mean recall"], ["mean", "4", "accuracy"], ["mean", "4", "mean recall"]
    ]  # fmt: skip
    assert rows[1][3:] == [report.percent(found.score(name, task="a", metric="recall")) for name in found.methods]
    assert found.means["maml"]["4"]["recall"]["mean"] == pytest.approx(
        found.means["maml"]["4"]["accuracy"]["mean"] - 0.01
    )
    others = replace(found, results=tuple(row for row in found.results if row.metric != "recall"))
    assert found.metric == "accuracy"
    assert [row[2] for row in cells(report.score_table(others))] == ["accuracy"] * 2


def test_a_row_a_method(capsys: pytest.CaptureFixture[str]) -> None:
    found = scored({"frozen": 0.5, "maml": 0.6}, ["a", "b"], (4, 8))
    report.show_overview(found, "frozen")
    said = " ".join(capsys.readouterr().out.split())
    assert "difference to frozen" in said
    assert "330,000" in said
    frozen, maml = cells(report.overview_table(found, "frozen"))
    scores = [report.percent(found.score("maml", shots=k)) for k in (4, 8)]
    scores += [f"{100 * found.score('maml', shots=k, metric='recall').mean:.1f}" for k in (4, 8)]
    gaps = [report.difference(found.compare("maml", "frozen", shots=k)) for k in (4, 8)]
    assert maml == ["maml", *scores, *gaps, "0.100", "330,000"]
    assert frozen[5:7] == ["-", "-"]
