"""The data cards say what the files and the tables of the code say."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from metanlp.tasks.sources.hub import LIMIT
from metanlp.tasks.sources.table import COMMITS, PUBLISHED, Published, of_source

SPEC = spec_from_file_location("task_cards", Path(__file__).parent.parent / "docs" / "tools" / "task_cards.py")
assert SPEC
assert SPEC.loader
cards = module_from_spec(SPEC)
SPEC.loader.exec_module(cards)
GLUE, LEOPARD = ([row for row in of_source(name) if not row.unusable] for name in ("glue", "leopard"))
FOLDER = Path(__file__).parent.parent / "data_cards"


def table(page: str) -> dict[str, list[str]]:
    """The rows of the card's tables by their first cell."""
    lines = (FOLDER / page).read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {cells[0].strip("`"): cells[1:] for cells in rows}


@pytest.mark.parametrize("page", cards.pages())
def test_the_generated_cards_are_fresh(page: str) -> None:
    written = (FOLDER / page).read_text(encoding="utf-8") if (FOLDER / page).exists() else ""
    assert written == cards.pages()[page], "stale: run `python docs/tools/task_cards.py`"


def test_no_card_is_left_over() -> None:
    assert {f"mini/{path.name}" for path in (FOLDER / "mini").glob("*.md")} == set(cards.pages()) - {"mini.md"}


def test_writing_the_cards_removes_old_ones(tmp_path: Path) -> None:
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "gone.md").write_text("old")
    cards.write(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.md")} == set(cards.pages())


@pytest.mark.parametrize("row", GLUE, ids=lambda row: row.name)
def test_the_card_of_glue(row: Published) -> None:
    columns = ", ".join(row.columns.values())
    answers = " · ".join(row.labels) or "scores from 0 to 5"
    assert table("glue.md")[row.name][:3] == [answers, row.metric, columns]


@pytest.mark.parametrize("row", LEOPARD, ids=lambda row: row.name)
def test_the_card_of_leopard(row: Published) -> None:
    cells = table("leopard.md")[row.name]
    assert cells[:3] == [" · ".join(row.written or row.labels), " · ".join(row.labels), row.metric]


def test_the_cards_name_no_other_tasks() -> None:
    named = {name for page in ("glue.md", "leopard.md") for name in table(page) if "/" in name}
    assert named == {row.name for row in (*GLUE, *LEOPARD)}


@pytest.mark.parametrize("source", ["intents", "topics", "qa", "shopping"])
def test_the_cards_of_published_sources_name_their_sets_and_roles(source: str) -> None:
    rows = of_source(source)
    assert {name for name in table(f"{source}.md") if "/" in name} == {row.name for row in rows}
    page = (FOLDER / f"{source}.md").read_text(encoding="utf-8").lower()
    for row in rows:
        assert all(group in page for group in row.choosing)
        assert row.role == "train" or row.folder in page


def test_the_card_of_glue_names_the_commits() -> None:
    page = (FOLDER / "glue.md").read_text(encoding="utf-8")
    assert all(f"`{repo}`" in page and f"`{commit}`" in page for repo, commit in COMMITS.items())
    assert f"{LIMIT:,} rows" in page


def test_what_is_left_out_is_said() -> None:
    page = (FOLDER / "glue.md").read_text(encoding="utf-8")
    assert all(f"`{row.folder}`" in page for row in PUBLISHED if row.unusable)
