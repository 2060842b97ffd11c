"""A tracker that breaks in the middle of a run leaves the run, in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from broken import BREAKS, writers_end

from metanlp.training.log import log


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the thread that writes events
@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_tracker_is_left_out(tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    with log(tmp_path, 0, ["tensorboard"], "toy", {"seed": 0}) as write:
        for step in range(1, 5):
            write({"step": step, "loss": 0.5})
            if step == 2:
                BREAKS[how](tmp_path / "trackers")
    writers_end()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("toy: ")]
    assert len(said) == 1
    assert said[0].startswith("toy: tracker tensorboard failed (")
    assert said[0].endswith("); the run goes on without it, and metrics.jsonl has all figures")
