"""What a run says to people: tables on standard output, and a page made for looking."""

from metanlp.report.canvas import NO_PLOT, can_plot
from metanlp.report.tables import (
    console,
    cost_table,
    difference,
    difference_to,
    overview_table,
    paired_table,
    percent,
    say,
    score_table,
    show,
    show_left_out,
    show_overview,
    show_scores,
    side,
    task_table,
    verdict,
)

__all__ = [
    "NO_PLOT", "can_plot", "console", "cost_table", "difference", "difference_to", "overview_table", "paired_table",
    "percent", "say", "score_table", "show", "show_left_out", "show_overview", "show_scores", "side", "task_table",
    "verdict",
]  # fmt: skip
